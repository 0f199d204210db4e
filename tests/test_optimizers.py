"""Adam or Muon: who updates which parameter, and what Muon's step is."""

import math

import pytest
import torch
from conftest import tiny_spec

from uvb.errors import UserError
from uvb.models import build_model
from uvb.optimizers import build_optimizers
from uvb.spec import RECIPES, Recipe


def names(model, optimizer):
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name for name, p in model.named_parameters() if id(p) in own}


@pytest.mark.parametrize(
    ("name", "matrices"),
    [
        ("uvb", {f"encoder_{of}.layers.{i}.weight" for of in ("mu", "lambda") for i in (5, 7)} | {"decoder.layers.0.weight"}),
        ("deen", {"net.layers.5.weight"}),  # its last layer has one output: a vector
    ],
)
def test_muon_has_the_matrices_and_adam_the_rest(digits, name, matrices):
    model = build_model(tiny_spec(digits, name))
    (everything,) = build_optimizers(model, RECIPES["fast"])
    assert type(everything) is torch.optim.Adam
    assert names(model, everything) == {n for n, _ in model.named_parameters()}
    adam, muon = build_optimizers(model, RECIPES["muon"])
    assert names(model, muon) == matrices | ({"decoder.layers.2.weight"} if name == "uvb" else set())
    assert names(model, adam) | names(model, muon) == names(model, everything)
    assert not names(model, adam) & names(model, muon)


def test_muons_step_is_a_semi_orthogonal_matrix_of_adams_size():
    """Of G = U S V' it steps along about U V', whatever S is: all singular values alike, 0.2 lr a weight, and downhill."""
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


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match="choose adam or muon"):
        Recipe("r", epochs=1, optimizer="sgd")
