"""The derivatives that `accelerate/convolution` and `accelerate/silu` write out, against autograd, in float64 and bf16."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import uvb.accelerate.silu
from tests.support.builders import tiny_spec
from uvb.accelerate import cpu
from uvb.accelerate.convolution import convolve
from uvb.accelerate.patches import product
from uvb.accelerate.silu import silu
from uvb.models import build_model, nets
from uvb.noise import generator
from uvb.training.objectives import build_objective


def draws(*shape: int, key: str) -> torch.Tensor:
    return torch.randn(shape, generator=generator(0, key), dtype=torch.float64)


def test_silu_has_two_derivatives():
    x = (3 * draws(40, key="x")).requires_grad_()
    assert torch.autograd.gradcheck(silu, x)
    assert torch.autograd.gradgradcheck(silu, x)
    torch.testing.assert_close(silu(x), F.silu(x))


def test_silu_refuses_a_third_derivative():
    x = draws(3, key="x").requires_grad_()
    (first,) = torch.autograd.grad(silu(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative"):
        second.sum().backward()


@pytest.mark.parametrize("layer", [convolve, product])
def test_convolution_has_two_derivatives(layer):
    x, weight, bias = (draws(*s, key=str(s)).requires_grad_() for s in ((2, 3, 6, 5), (4, 3, 3, 3), (4,)))
    assert torch.autograd.gradcheck(layer, (x, weight, bias))
    torch.testing.assert_close(layer(x, weight, bias), torch.conv2d(x, weight, bias))

    def input_gradient(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # the cube makes it nonlinear in x
        return torch.func.grad(lambda x: layer(x, weight, bias).pow(3).sum())(x)

    assert torch.autograd.gradcheck(input_gradient, (x, weight))


@pytest.mark.parametrize("layer", [convolve, product])
def test_convolution_and_its_input_gradient_have_forward_derivatives_in_the_weight(layer):
    x, weight, bias = (draws(*s, key=str(s)).requires_grad_() for s in ((2, 3, 6, 5), (4, 3, 3, 3), (4,)))
    changes = []
    for convolution in (layer, torch.conv2d):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(weight, draws(4, 3, 3, 3, key="t"))
            gradient = torch.func.grad(lambda x, w=dual, layer=convolution: layer(x, w, bias).pow(3).sum())(x)
            found = convolution(x, dual, bias), gradient
            changes.append([forward_ad.unpack_dual(each).tangent for each in found])
    torch.testing.assert_close(*changes)


def test_convolve_has_no_filter_as_large_as_the_image_in_its_second_derivative():
    """Our rule computes one weight gradient. Autograd's rule uses the activations as a filter."""
    x, weight, bias = draws(2, 3, 9, 9, key="x"), draws(4, 3, 3, 3, key="w").requires_grad_(), draws(4, key="b")

    class Filters(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution.default:
                self.largest = max(self.largest, *args[1].shape[2:])
            return func(*args, **(kwargs or {}))

    largest = {}
    for layer in (convolve, torch.conv2d):
        with Filters() as filters:
            torch.func.grad(lambda x, layer=layer: layer(x, weight, bias).pow(3).sum())(x).square().sum().backward()
        largest[layer] = filters.largest
    assert largest == {convolve: 3, torch.conv2d: 7}


@pytest.mark.parametrize("layer", [convolve, product])
def test_convolution_in_forward_mode_equals_reverse_mode(digits, layer, monkeypatch):
    """torch.func.hessian takes forward over reverse mode. It must equal reverse over reverse mode."""
    monkeypatch.setattr(nets, "convolve", layer)
    model = build_model(tiny_spec(digits, "deen")).double()
    y, eps = draws(1, *digits.shape, key="y"), draws(1, 0, key="e")

    def energy(y):
        return model.energy(y, eps).sum()

    forward, reverse = torch.func.hessian(energy)(y), torch.func.jacrev(torch.func.jacrev(energy))(y)
    torch.testing.assert_close(forward, reverse)
    assert float(forward.detach().abs().max()) > 0

    def by_weight(weight):
        return torch.func.functional_call(model, {"net.layers.0.weight": weight}, (y, eps)).sum()

    weight = model.net.layers[0].weight.detach()
    tangent = draws(*weight.shape, key="t")
    _, change = torch.func.jvp(by_weight, (weight,), (tangent,))
    torch.testing.assert_close(change, (torch.func.grad(by_weight)(weight) * tangent).sum())


@pytest.mark.parametrize("name", ["uvb", "deen", "vae", "direct"])
def test_fast_derivatives_are_as_exact_as_autograds_in_bf16(digits, name, monkeypatch):
    """Compare the gradients of a bf16 step with float64: once with our derivatives, and once with autograd's.

    Our error may be a quarter larger than autograd's error, or as large as the rounding of bf16 (2⁻⁸ = 0.004).
    """
    gradients = {}
    for path in ("exact", "plain", "fast"):
        spec = tiny_spec(digits, name)
        model = build_model(spec).double() if path == "exact" else build_model(spec)
        x = (digits.train[:32] / digits.levels).to(model.sigma if path == "exact" else torch.float32)
        noise, eps = draws(*x.shape, key="noise").to(x), draws(32, model.noise_dim, key="eps").to(x)
        objective = build_objective(spec.objective, model)
        if path == "plain":
            monkeypatch.setattr(nets, "convolve", torch.conv2d)
            monkeypatch.setattr(uvb.accelerate.silu, "applies", lambda x: False)
        with torch.autocast("cpu", torch.bfloat16, enabled=path != "exact"):
            objective(x, noise, eps, x.new_full((32,), 1 / 32)).backward()
        monkeypatch.undo()
        gradients[path] = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    error = {k: float((gradients[k] - gradients["exact"]).norm() / gradients["exact"].norm()) for k in ("plain", "fast")}
    assert 0 < error["fast"] < max(1.25 * error["plain"], 4e-3), error
    assert error["fast"] != error["plain"]  # equal errors would mean that the fast path was not used


def test_convolve_of_one_channel_returns_channels_last():
    """oneDNN reads the layout from strides, which are ambiguous for one channel. If it guesses wrong, it transposes."""
    net = nn.Conv2d(1, 8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        y = convolve(torch.rand(2, 1, 6, 6), net.weight, net.bias)
    assert y.stride() == torch.empty(2, 8, 4, 4).contiguous(memory_format=torch.channels_last).stride()


@pytest.mark.parametrize("layer", [convolve, product])
def test_gradient_under_vmap_equals_the_batch(digits, layer, monkeypatch):
    monkeypatch.setattr(nets, "convolve", layer)
    spec = tiny_spec(digits)
    model = build_model(spec)
    y, eps = draws(4, *spec.data.shape, key="y").float(), draws(4, model.noise_dim, key="e").float()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        whole = model.gradient(y, eps)
        single = torch.func.vmap(lambda y, e: model.gradient(y[None], e[None])[0])(y, eps)
        many = torch.func.vmap(lambda e: model.gradient(y[:1], e[None])[0])(eps)  # here y is not mapped over
        one = model.gradient(y[:1].expand_as(y), eps)
    torch.testing.assert_close(single, whole, rtol=3e-2, atol=3e-2)
    torch.testing.assert_close(many, one, rtol=3e-2, atol=3e-2)


def test_keep_large_buffers_does_no_harm():
    cpu.keep_large_buffers()
    assert float(torch.ones(1 << 22).sum()) == 1 << 22


def test_flush_subnormals_reaches_every_thread():
    code = """
import torch
from uvb.accelerate.cpu import flush_subnormals
flush_subnormals()
torch.set_num_threads(2)
small = torch.full((1_000_000,), 1e-20)
print(int((small * small).count_nonzero()))
"""
    left = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(left) == 0
