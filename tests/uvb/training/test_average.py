"""The average of the weights."""

import torch

from tests.support.builders import tiny_spec
from uvb.plan import Plan
from uvb.training.loop import fit
from uvb.training.state import TrainState


def test_average_carries_no_history(digits):
    """Without no_grad the average would keep the graph of every step, and memory would grow at each step."""
    spec, plan = tiny_spec(digits), Plan()
    state = TrainState.fresh(spec, plan)
    for _ in fit(spec, plan, state, digits):
        pass
    assert all(p.is_leaf and p.grad_fn is None for p in state.averaged.parameters())
    assert not torch.equal(next(state.averaged.parameters()), next(state.model.parameters()))
