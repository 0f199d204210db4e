"""The step as one CUDA graph: where it cannot be had, or is wrong. On a GPU, `benchmarks/gpu/checks.py` tries a real one."""

import pytest
import torch
from torch import nn

from tests.support.builders import tiny_spec
from uvb import plan as plans
from uvb.accelerate.cuda_graph import Graphed
from uvb.errors import UserError
from uvb.plan import Plan, resolve_plan
from uvb.training import step as train
from uvb.training.loop import fit
from uvb.training.state import TrainState


@pytest.mark.skipif(torch.cuda.is_available(), reason="here a graph is captured")  # of a machine without, it tests the way out
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


class Replayed(Graphed):
    """A graph whose replay is computed, times `factor` (None: a gradient that never came), into memory of its own."""

    factor: float | None = 1.0

    def _capture(self, arguments):
        self.inputs = tuple(a.clone() for a in arguments)
        expected = self.function(*self.inputs)
        self.outputs = tuple(self._changed(o).clone() if self._changed(o) is not None else None for o in expected)
        self.graph = type("Graph", (), {"replay": lambda _: self._replayed()})()
        return expected

    def _replayed(self):
        for output, value in zip(self.outputs, self.function(*self.inputs), strict=True):
            if output is not None:
                output.copy_(self._changed(value))

    def _changed(self, output):
        return None if self.factor is None else self.factor * output


@pytest.mark.parametrize(("factor", "refused"), [(1.0, False), (1.001, False), (1.1, True), (float("nan"), True), (None, True)])
def test_a_graph_with_other_results_is_refused(factor, refused, recwarn):
    """The first replay is held to the call it was captured from."""
    graphed = Replayed(lambda x: (x.square(), x.sum()))
    graphed.factor = factor
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    for x in (a, b):  # the second call brings other numbers
        for got, expected in zip(graphed(x), (x.square(), x.sum()), strict=True):
            torch.testing.assert_close(got, expected * (1.0 if refused else factor))
    assert graphed.given_up == refused
    assert [str(w.message).startswith("CUDA graph failed") for w in recwarn] == [True] * refused


@pytest.mark.parametrize(("factor", "refused"), [(1.0, False), (1.1, True)])
def test_a_step_s_gradients_are_compared_without_its_loss(monkeypatch, recwarn, factor, refused):
    """A loss is large beside them, and would hide that they are wrong."""

    class OtherGradients(Replayed):
        def _changed(self, output):
            return output if output.dim() == 0 else factor * output

    monkeypatch.setattr(train, "Graphed", OtherGradients)
    module = nn.Linear(3, 2)
    loss_of = Shifted(module)
    step = train.gradients_of(loss_of, Plan(graph=True))
    loss = step(x := torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    got = [p.grad for p in module.parameters()]
    assert [str(w.message).startswith("CUDA graph failed") for w in recwarn] == [True] * refused
    module.zero_grad()
    loss_of(x).backward()
    torch.testing.assert_close(loss, loss_of(x).detach())
    for gradient, parameter in zip(got, module.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


class Shifted(nn.Module):
    """A loss with a large constant."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return 1e6 + self.module(x).square().mean()


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


def test_plan_with_a_graph_needs_a_gpu():
    with pytest.raises(UserError, match="CUDA graph"):
        Plan(graph=True).require_honourable()
