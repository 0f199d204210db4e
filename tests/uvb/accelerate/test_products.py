"""Matrix products give the same numbers and derivatives as convolutions with few output pixels. A plan turns them on."""

import dataclasses

import pytest
import torch

from tests.support.builders import tiny_spec
from uvb.accelerate import products
from uvb.accelerate.convolution import convolve
from uvb.models import build_model
from uvb.noise import generator
from uvb.plan import Plan, resolve_plan
from uvb.training.loop import fit
from uvb.training.objectives import build_objective
from uvb.training.state import TrainState


def draws(*shape: int, key: str) -> torch.Tensor:
    return torch.randn(shape, generator=generator(0, key), dtype=torch.float64)


def test_products_are_the_convolution_and_its_two_gradients():
    x, weight, bias = draws(2, 3, 6, 5, key="x"), draws(4, 3, 3, 3, key="w"), draws(4, key="b")
    g = draws(2, 4, 4, 3, key="g")
    leaves = [t.clone().requires_grad_() for t in (x, weight)]
    y = torch.conv2d(*leaves, bias)
    of_x, of_weight = torch.autograd.grad(y, leaves, g)
    torch.testing.assert_close(products.convolution(x, weight, bias), y.detach())
    torch.testing.assert_close(products.convolution(x, weight), torch.conv2d(x, weight))
    torch.testing.assert_close(products.input_gradient(g, x, weight), of_x)
    torch.testing.assert_close(products.weight_gradient(g, x, weight), of_weight)


def test_products_have_two_derivatives():
    with products.products(True):
        x, weight, bias = (draws(*s, key=str(s)).requires_grad_() for s in ((2, 3, 5, 4), (4, 3, 3, 3), (4,)))
        assert products.applies(x, 3)
        assert torch.autograd.gradcheck(convolve, (x, weight, bias))
        assert torch.autograd.gradgradcheck(lambda x, w: convolve(x, w, bias).pow(3), (x, weight))


@pytest.mark.parametrize("name", ["uvb", "deen", "vae"])
def test_fit_with_products_trains_the_same_model_up_to_rounding(digits, name):
    spec, plain = tiny_spec(digits, name), Plan(precision="fp64")
    found = []
    for plan in (plain, dataclasses.replace(plain, products=True)):
        state = TrainState.fresh(spec, plan)
        for _ in fit(spec, plan, state, digits):
            pass
        found.append(state.tensors())
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=1e-8, atol=1e-10)
    assert any(not torch.equal(found[1][key], tensor) for key, tensor in found[0].items()), "products were not used"


def test_products_apply_to_few_pixels_on_a_cpu_and_not_in_old_plans():
    small, large = torch.zeros(1, 2, 6, 6), torch.zeros(1, 2, 7, 7)
    with products.products(True):
        assert (products.applies(small, 3), products.applies(large, 3)) == (True, False)
        assert not products.applies(small.to("meta"), 3)
    assert not products.applies(small, 3)
    assert resolve_plan(device="cpu", precision="fp32").products
    old = Plan(workers=2).to_json()
    del old["products"]
    assert not Plan.from_json(old).products


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_inner_gradient_by_autograd_equals_vjp_to_the_bit(digits, name, precision, monkeypatch):
    """Compare the loss and the gradients of all parameters. On a CPU a model uses autograd, which takes less time."""
    spec, plan, found = tiny_spec(digits, name), Plan(precision=precision), []
    for inside in (False, True):  # inside a transform the model uses vjp
        monkeypatch.setattr("uvb.models.base.inside_transform", lambda inside=inside: inside)
        model = build_model(spec)
        x, noise = digits.train[:8].float() / 16, draws(8, *digits.shape, key="n").float()
        eps = draws(8, model.noise_dim, key="e").float()
        with plan.autocast():
            loss = build_objective("denoise", model)(x, noise, eps, torch.full((8,), 1 / 8))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 5
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
