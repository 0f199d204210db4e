"""What the step does if no CUDA graph can be captured, or if a graph is wrong. `benchmarks/gpu/checks.py` tests real graphs."""

from types import SimpleNamespace

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="a graph can be captured here")  # this tests the fallback
@pytest.mark.parametrize("model", ["uvb", "deen"])
def test_fit_goes_on_without_a_graph_that_cannot_be_captured(digits, model):
    """A warning says that the capture failed, and the weights are the same to the bit."""
    spec = tiny_spec(digits, model)

    def weights(graph):
        plan = Plan(precision="fp64", graph=graph)  # `resolve_plan` would refuse a graph on a CPU, but `fit` does not check
        state = TrainState.fresh(spec, plan)
        list(fit(spec, plan, state, digits))
        return torch.cat([p.flatten() for p in state.model.parameters()])

    with pytest.warns(UserWarning, match=r"CUDA graph failed \(\w+: .+\); launching kernel by kernel") as told:
        without = weights(graph=True)
    assert len(told) == 1  # once, not at every step
    assert torch.equal(without, weights(graph=False))


class Replayed(Graphed):
    """Stands in for a graph. Its replay gives the results times `factor`. If `factor` is None, the results are missing."""

    factor: float | None = 1.0

    def _capture(self, arguments):
        self.inputs = tuple(a.clone() for a in arguments)
        expected = self.function(*self.inputs)
        changed = [self._changed(output) for output in expected]
        self.outputs = tuple(None if output is None else output.clone() for output in changed)
        self.graph = SimpleNamespace(replay=self._replayed)
        return expected

    def _replayed(self):
        for output, value in zip(self.outputs, self.function(*self.inputs), strict=True):
            if output is not None:
                output.copy_(self._changed(value))

    def _changed(self, output):
        return None if self.factor is None else self.factor * output


@pytest.mark.parametrize(("factor", "refused"), [(1.0, False), (1.001, False), (1.1, True), (float("nan"), True), (None, True)])
def test_graphed_refuses_a_graph_with_other_results(factor, refused, recwarn):
    """The first replay is compared with an ordinary call on the same inputs."""
    graphed = Replayed(lambda x: (x.square(), x.sum()))
    graphed.factor = factor
    a, b = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    for x in (a, b):  # the second call has other inputs
        for got, expected in zip(graphed(x), (x.square(), x.sum()), strict=True):
            torch.testing.assert_close(got, expected * (1.0 if refused else factor))
    assert graphed.given_up == refused
    assert [str(w.message).startswith("CUDA graph failed") for w in recwarn] == ([True] if refused else [])


@pytest.mark.parametrize(("factor", "refused"), [(1.0, False), (1.1, True)])
def test_gradients_of_compares_a_graphs_gradients_without_the_loss(monkeypatch, recwarn, factor, refused):
    """The loss is so large that one tolerance for loss and gradients would hide wrong gradients."""

    class OtherGradients(Replayed):
        def _changed(self, output):
            return output if output.dim() == 0 else factor * output

    monkeypatch.setattr(train, "Graphed", OtherGradients)
    module = nn.Linear(3, 2)
    loss_of = Shifted(module)
    step = train.gradients_of(loss_of, Plan(graph=True))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    loss = step(x)
    got = [p.grad for p in module.parameters()]
    assert [str(w.message).startswith("CUDA graph failed") for w in recwarn] == ([True] if refused else [])
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
        ({"workers": 2}, True, False),  # no graph, because DDP's all-reduce cannot be in one
        ({"compile": "off"}, False, False),
        ({"device": "cpu", "compile": "on"}, True, False),
    ],
)
def test_resolve_plan_captures_a_graph_for_one_worker_on_a_gpu(monkeypatch, wishes, compile, graph):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(plans, "has_fast_bf16", lambda device: device == "cuda")
    plan = resolve_plan(**wishes)
    assert (plan.compile, plan.graph) == (compile, graph)
    assert plan.precision == ("fp32" if wishes.get("device") == "cpu" else "bf16")


def test_plan_refuses_a_graph_without_a_gpu():
    with pytest.raises(UserError, match="CUDA graph"):
        Plan(graph=True).require_possible_here()
