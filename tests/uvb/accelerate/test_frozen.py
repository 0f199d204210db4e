"""A frozen energy, which is a faster copy for Markov chains, gives the same bits as the energy itself."""

import pytest
import torch
from torch import nn

from tests.support.builders import tiny_spec
from tests.uvb.accelerate.test_cuda_graph import Replayed
from uvb.accelerate import frozen
from uvb.accelerate.frozen import Frozen
from uvb.models import build_model
from uvb.models.base import Energy
from uvb.plan import Plan
from uvb.sampling.chains import begin, chain_gradient


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("name", ["uvb", "deen", "uvb_laplace"])
def test_frozen_equals_the_energy(digits, name, precision):
    plan = Plan(precision=precision)
    energy = build_model(tiny_spec(digits, name)).to(plan.dtype)
    y = begin(5, digits.shape, 0, dtype=plan.dtype).y
    eps = torch.randn(5, energy.noise_dim, dtype=plan.dtype, generator=torch.Generator().manual_seed(0))
    held = Frozen(energy, plan)
    with plan.autocast(), torch.no_grad():
        expected = energy.energy(y, eps), energy.gradient(y, eps), energy(y, eps)
    with torch.no_grad():
        found = held.energy(y, eps), held.gradient(y, eps), held(y, eps)
    for got, right in zip(found, expected, strict=True):
        assert got.dtype == right.dtype
        assert torch.equal(got, right)
    assert {p.dtype for p in energy.parameters()} == {plan.dtype}, "the original was changed"
    assert all(p.requires_grad for p in energy.parameters())
    weights = {p.dtype for p in held.parameters()}
    assert (torch.bfloat16 in weights) == (precision == "bf16"), "weights must be cast once"


def test_frozen_gradients_of_several_batches_do_not_overwrite_each_other(digits, monkeypatch):
    """Five chains in batches of two need two graphs. The graph of two chains runs twice and reuses its memory."""
    monkeypatch.setattr(frozen, "Graphed", Replayed)  # stands in for a CUDA graph on a CPU
    energy = build_model(tiny_spec(digits, "uvb"))
    assert isinstance(energy, Energy)
    held, state = Frozen(energy, Plan(graph=True)), begin(5, digits.shape, 0)
    with torch.no_grad():
        for step in range(3):
            state = state._replace(step=step)
            assert torch.equal(chain_gradient(held, state, 0, batch=2), chain_gradient(energy, state, 0, batch=2))
    assert [tuple(shape) for shape, *_ in held._graphs] == [(2, *digits.shape), (1, *digits.shape)]


def test_frozen_does_not_cast_weights_of_unknown_modules():
    """This readout stays in float32, outside autocast."""

    class Own(Energy):
        def __init__(self):
            super().__init__(1.0)
            self.readout = nn.Linear(16, 1)

        def energy(self, y, eps):
            with torch.autocast("cpu", enabled=False):
                return self.readout(y.flatten(1)).square().sum(1)

    energy, none = Own(), torch.empty(2, 0)
    y = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Frozen(energy, Plan(precision="bf16")).energy(y, none), energy.energy(y, none))
