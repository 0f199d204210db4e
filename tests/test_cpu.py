"""The written-out derivatives of `uvb.cpu` against autograd's own, in float64 and in bf16, and alongside the rest of torch."""

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_spec
from torch import nn

from uvb import cpu
from uvb.models import build_model
from uvb.noise import generator
from uvb.objective import build_objective


def draws(*shape: int, key: str) -> torch.Tensor:
    return torch.randn(shape, generator=generator(0, key), dtype=torch.float64)


def test_silu_has_two_derivatives():
    x = (3 * draws(40, key="x")).requires_grad_()
    assert torch.autograd.gradcheck(cpu.silu, x)
    assert torch.autograd.gradgradcheck(cpu.silu, x)
    torch.testing.assert_close(cpu.silu(x), F.silu(x))


def test_a_third_derivative_of_silu_is_refused():
    x = draws(3, key="x").requires_grad_()
    (first,) = torch.autograd.grad(cpu.silu(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        second.sum().backward()


def test_convolution_has_two_derivatives():
    x, weight, bias = (draws(*s, key=str(s)).requires_grad_() for s in ((2, 3, 6, 5), (4, 3, 3, 3), (4,)))
    assert torch.autograd.gradcheck(cpu._Convolution.apply, (x, weight, bias))

    def input_gradient(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # of a function that is not linear in x
        return torch.func.grad(lambda x: cpu._Convolution.apply(x, weight, bias).pow(3).sum())(x)

    assert torch.autograd.gradcheck(input_gradient, (x, weight))


@pytest.mark.parametrize("name", ["uvb", "deen", "vae", "direct"])
def test_the_fast_path_is_the_plain_one_within_bf16(digits, name, monkeypatch):
    """Loss and gradients of a bf16 step with `uvb.cpu` and with autograd's derivatives, both against float64.

    The fast path is at most as wrong as the plain one, give or take a quarter.
    """
    gradients = {}
    for path in ("exact", "plain", "fast"):
        spec = tiny_spec(digits, name)
        model = build_model(spec).double() if path == "exact" else build_model(spec)
        x = (digits.train[:32] / digits.levels).to(model.sigma if path == "exact" else torch.float32)
        noise, eps = draws(*x.shape, key="noise").to(x), draws(32, model.noise_dim, key="eps").to(x)
        objective = build_objective(spec.objective, model)
        if path == "plain":
            monkeypatch.setattr(cpu, "applies", lambda x: False)
        with torch.autocast("cpu", torch.bfloat16, enabled=path != "exact"):
            objective(x, noise, eps, x.new_full((32,), 1 / 32)).backward()
        monkeypatch.undo()
        gradients[path] = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    error = {k: float((gradients[k] - gradients["exact"]).norm() / gradients["exact"].norm()) for k in ("plain", "fast")}
    assert 0 < error["fast"] < max(1.25 * error["plain"], 4e-3), error
    assert error["fast"] != error["plain"]  # else the fast path was not taken


def test_a_convolution_of_one_channel_is_channels_last_all_the_way():
    """oneDNN picks the layout from strides, which are ambiguous for one channel; a wrong guess costs transpositions."""
    net = nn.Conv2d(1, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = cpu.convolve(torch.rand(2, 1, 6, 6), net.weight, net.bias)
    assert y.stride() == torch.empty(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).stride()


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_a_compiled_step_is_the_eager_one(digits, name):
    """fullgraph=True with the inner gradient inside, as on CUDA, traced down to aten."""
    spec = tiny_spec(digits, name)
    objective = build_objective(spec.objective, build_model(spec))
    x = digits.train[:8] / digits.levels
    arguments = (x, draws(*x.shape, key="n").float(), draws(8, objective.model.noise_dim, key="e").float(), torch.ones(8))
    for bf16 in (False, True):
        losses = []
        for run in (objective, torch.compile(objective, fullgraph=True, backend="aot_eager")):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                losses.append(run(*arguments))
            losses[-1].backward()
        torch.testing.assert_close(losses[0], losses[1], rtol=2e-2 if bf16 else 1e-5, atol=0)


def test_per_image_gradients_by_vmap_agree(digits):
    """`torch.func` transforms go through: one image at a time is the batch."""
    spec = tiny_spec(digits)
    model = build_model(spec)
    y, eps = draws(4, *spec.data.shape, key="y").float(), draws(4, model.noise_dim, key="e").float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        whole = model.gradient(y, eps)
        single = torch.func.vmap(lambda y, e: model.gradient(y[None], e[None])[0])(y, eps)
    torch.testing.assert_close(single, whole, rtol=3e-2, atol=3e-2)


def test_keeping_buffers_is_harmless():
    cpu.keep_large_buffers()
    assert float(torch.ones(1 << 22).sum()) == 1 << 22
