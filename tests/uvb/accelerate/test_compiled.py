"""The compiled step has the loss and gradients of the uncompiled step, or it is refused."""

import functools

import pytest
import torch

from tests.support.builders import tiny_spec
from uvb.accelerate.compiled import CompiledObjective
from uvb.accelerate.gradients import distance
from uvb.models import build_model, get_model
from uvb.noise import normal
from uvb.plan import Plan
from uvb.spec import Widths
from uvb.training.objectives import build_objective
from uvb.training.step import prepare


def batch_of(spec, model, key):
    x, noise = (normal((16, *spec.data.shape), 0, name, key).to(model.sigma) for name in ("x", "noise"))
    weight = torch.linspace(0, 0.1, 16).to(x)  # the first image is padding
    return x, noise, normal((16, model.noise_dim), 0, "eps", key).to(x), weight


@pytest.mark.parametrize("name", ["uvb", "deen", "vae", "direct"])
@pytest.mark.parametrize(
    ("precision", "bound", "backend"),
    [("fp64", 1e-12, "eager"), ("bf16", 1e-12, "eager"), pytest.param("bf16", 2e-2, "inductor", marks=pytest.mark.slow)],
)
def test_compiled_step_equals_the_eager_step(digits, name, precision, bound, backend, monkeypatch):
    """The backend "eager" runs the trace: loss and gradients are equal nearly to the bit. Inductor's differ by rounding."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module, **options: compile(module, backend=backend, **options))
    spec, plan = tiny_spec(digits, name), Plan(precision=precision, compile=True)
    model = build_model(spec).to(plan.dtype)
    objective = build_objective(spec.objective, model)
    prepared = prepare(objective, plan, (16, *spec.data.shape))
    assert isinstance(prepared, CompiledObjective)
    trained = [p for p in model.parameters() if p.requires_grad]
    for key in range(2):
        batch, gradients, losses = batch_of(spec, model, key), [], []
        for way in (objective, prepared):
            with plan.autocast():
                losses.append(way(*batch))
            losses[-1].backward()
            gradients.append([p.grad for p in trained])
            objective.zero_grad(set_to_none=True)
        assert distance(gradients[1], gradients[0]) < bound
        torch.testing.assert_close(losses[1], losses[0], rtol=bound, atol=0)
        with torch.no_grad():  # the second batch must be computed with the changed weights
            torch._foreach_mul_(trained, 0.9)


def test_prepare_trains_eagerly_if_the_model_branches_on_data(digits):
    spec = tiny_spec(digits)
    model = build_model(spec)
    denoise = model.forward

    def forward(y, eps):
        return (2 if float(y.detach().sum()) > 0 else 1) * denoise(y, eps)

    objective = build_objective("denoise", model)
    model.forward = forward
    with pytest.warns(UserWarning, match=r"torch\.compile failed \(.+\); training eagerly"):
        assert prepare(objective, Plan(compile=True), (4, *spec.data.shape)) is objective


def test_prepare_refuses_a_trace_with_another_gradient(digits, monkeypatch):
    """The model multiplies by another number at every call, but a trace keeps one number."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    spec = tiny_spec(digits)
    model, calls = build_model(spec), []
    denoise = model.forward

    def forward(y, eps):
        calls.append(1)
        return len(calls) * denoise(y, eps)

    model.forward = forward
    objective = build_objective("denoise", model)
    with pytest.warns(UserWarning, match=r"the compiled gradient differs from the uncompiled one by [\d.]+ of its norm"):
        assert prepare(objective, Plan(compile=True), (4, *spec.data.shape)) is objective


@pytest.mark.slow
def test_prepare_compiles_more_than_eight_networks_in_a_process(monkeypatch, recwarn):
    """A worker may train more than eight models in turn, but by default Dynamo refuses the ninth compilation of a function."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    for hidden in range(6, 17):
        model = get_model("deen").build((1, 9, 11), Widths(conv=(3,), hidden=hidden), "silu", 1.0)
        compiled = prepare(build_objective("denoise", model), Plan(compile=True), (4, 1, 9, 11))
        assert isinstance(compiled, CompiledObjective)
    assert not [w for w in recwarn if "torch.compile failed" in str(w.message)]
