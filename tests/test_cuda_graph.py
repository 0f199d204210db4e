"""The step as one CUDA graph: where it cannot be had, or is wrong. On a GPU, `benchmarks/gpu_checks.py` tries a real one."""

import pytest
import torch
from conftest import tiny_spec
from torch import nn
from torch.nn.functional import mse_loss

from uvb import plan as plans
from uvb.cuda_graph import GraphedGradients
from uvb.plan import Plan, resolve_plan
from uvb.train import fit
from uvb.train_state import TrainState


def step_of(module):
    def gradients(x):
        loss = module(x).square().mean()
        loss.backward()
        return loss.detach()

    return gradients


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a graph is captured")
@pytest.mark.parametrize("model", ["uvb", "deen"])
def test_a_graph_that_cannot_be_captured_is_told_and_done_without(digits, model):
    """It costs speed and a warning, and not a bit of the result."""
    spec = tiny_spec(digits, model)

    def weights(graph):
        # A plan with a graph on a CPU is refused where it is resolved; the loop itself takes it as it is given.
        state = TrainState.fresh(spec, plan := Plan(precision="fp64", graph=graph))
        list(fit(spec, plan, state, digits))
        return torch.cat([p.flatten() for p in state.model.parameters()])

    with pytest.warns(UserWarning, match=r"CUDA graph failed \(\w+: .+\); launching kernel by kernel") as told:
        without = weights(graph=True)
    assert len(told) == 1  # and not at every step
    assert torch.equal(without, weights(graph=False))


@pytest.mark.parametrize(("factor", "refused"), [(1.0, False), (1.001, False), (1.1, True), (float("nan"), True), (None, True)])
def test_a_graph_with_other_gradients_is_refused(factor, refused, recwarn):
    """The first replay is held to the pass it was captured from: a factor on it, or a gradient that never came."""
    module, x = nn.Linear(3, 2), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

    class Held(GraphedGradients):
        """A graph whose replay is computed, times `factor`."""

        def _capture(self, arguments):
            self.inputs = tuple(a.clone() for a in arguments)
            self.loss = self.gradients(*self.inputs)
            expected = [p.grad for p in self.parameters]
            self.outputs = [None if factor is None else factor * g for g in expected]
            self._forget()
            self.graph = type("Graph", (), {"replay": lambda _: None})()
            return expected

    held = Held(step_of(module), module)
    loss = held(x)
    got = [p.grad for p in module.parameters()]
    assert held.given_up == refused
    assert [str(w.message).startswith("CUDA graph failed") for w in recwarn] == [True] * refused
    module.zero_grad()
    torch.testing.assert_close(loss, mse_loss(module(x), torch.zeros(5, 2)))
    module(x).square().mean().backward()
    for gradient, parameter in zip(got, module.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad * (1.0 if refused else factor))


@pytest.mark.parametrize(
    ("wishes", "compile", "graph"),
    [
        ({}, True, True),
        ({"workers": 2}, True, False),  # DDP's all-reduce stays outside
        ({"compile": "off"}, False, False),
        ({"device": "cpu", "compile": "on"}, True, False),
    ],
)
def test_the_plan_for_a_gpu(monkeypatch, wishes, compile, graph):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(plans, "has_fast_bf16", lambda device: device == "cuda")
    plan = resolve_plan(**wishes)
    assert (plan.compile, plan.graph) == (compile, graph)
    assert plan.precision == ("fp32" if wishes.get("device") == "cpu" else "bf16")
