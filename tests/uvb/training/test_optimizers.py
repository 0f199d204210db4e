"""Adam and Muon: which parameters each updates, and what Muon's step is."""

import math

import pytest
import torch

from tests.support.builders import tiny_spec
from uvb.errors import UserError
from uvb.models import build_model
from uvb.spec import RECIPES, Recipe
from uvb.training.optimizers import build_optimizers


def names(model, optimizer):
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in own}


@pytest.mark.parametrize(
    ("name", "matrices"),
    [
        ("uvb", {f"encoder_{of}.layers.{i}.weight" for of in ("mu", "lambda") for i in (5, 7)} | {"decoder.layers.0.weight"}),
        ("deen", {"net.layers.5.weight"}),  # its last layer has one output, so its weight is a vector
    ],
)
def test_build_optimizers_gives_matrices_to_muon_and_the_rest_to_adam(digits, name, matrices):
    model = build_model(tiny_spec(digits, name))
    (everything,) = build_optimizers(model, RECIPES["fast"])
    assert type(everything) is torch.optim.Adam
    assert names(model, everything) == {n for n, _ in model.named_parameters()}
    adam, muon = build_optimizers(model, RECIPES["muon"])
    assert names(model, muon) == matrices | ({"decoder.layers.2.weight"} if name == "uvb" else set())
    assert names(model, adam) | names(model, muon) == names(model, everything)
    assert not names(model, adam) & names(model, muon)


def test_muon_steps_by_a_semi_orthogonal_matrix_of_adams_size():
    """For a gradient G = U S V' the step is about -0.2 lr sqrt(40) U V', whatever S is. Its singular values are about equal."""
    torch.manual_seed(0)
    layer, lr = torch.nn.Linear(40, 8, bias=False, dtype=torch.float64), 1e-2
    u, _, vh = torch.linalg.svd(torch.randn(8, 40, dtype=torch.float64), full_matrices=False)
    gradient = u @ torch.diag(torch.logspace(0, -2, 8, dtype=torch.float64)) @ vh
    before = layer.weight.detach().clone()
    (muon,) = build_optimizers(layer, Recipe("m", epochs=1, learning_rate=lr, optimizer="muon"))
    layer.weight.grad = gradient
    muon.step()
    step = before - layer.weight.detach()
    along = u.T @ step @ vh.T / (0.2 * lr * math.sqrt(40))  # about the identity
    assert torch.diagonal(along).sub(1).abs().max() < 0.35
    assert (along - torch.diag(torch.diagonal(along))).abs().max() < 0.05
    assert float(step.square().mean().sqrt()) == pytest.approx(0.2 * lr, rel=0.35)


@pytest.mark.parametrize("beta2", [0.999, 0.9])
def test_adam_divides_by_its_average_of_squares(beta2):
    """After gradients of 1 and 3 the second step is lr m / sqrt(v), with both averages corrected (Kingma & Ba, 2015)."""
    layer, lr = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64), 1e-2
    (adam,) = build_optimizers(layer, Recipe("r", epochs=1, learning_rate=lr, beta2=beta2))
    for gradient in (1.0, 3.0):
        before = float(layer.weight.detach())
        layer.weight.grad = torch.full((1, 1), gradient, dtype=torch.float64)
        adam.step()
    m = (0.9 * 1 + 3) / (0.9 + 1)
    v = (beta2 * 1 + 9) / (beta2 + 1)
    assert before - float(layer.weight.detach()) == pytest.approx(lr * m / math.sqrt(v), rel=1e-6)


@pytest.mark.parametrize("beta2", [-0.1, 1.0])
def test_recipe_refuses_beta2_outside_its_range(beta2):
    with pytest.raises(UserError, match=r"must lie in \[0, 1\)"):
        Recipe("r", epochs=1, beta2=beta2)


def test_recipe_refuses_an_unknown_optimizer():
    with pytest.raises(UserError, match="choose adam or muon"):
        Recipe("r", epochs=1, optimizer="sgd")
