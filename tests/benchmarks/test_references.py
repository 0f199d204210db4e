"""The implementations that benchmarks time beside our code compute the same numbers as our code."""

import pytest
import torch

from benchmarks import exact
from benchmarks.gpu import variants
from uvb.exact.empirical_bayes import posterior_mean
from uvb.models import get_model
from uvb.noise import normal
from uvb.spec import Widths
from uvb.training.objectives import build_objective

SHAPE = (1, 9, 11)
WIDTHS = Widths(conv=(3, 4, 5), hidden=6, latent=5, decoder=7)


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_jax_step_has_torchs_loss_and_gradients(name):
    """σ is not 1, and the image is not square. So a missing factor σ, or height and width exchanged, fails the test."""
    jax_step = pytest.importorskip("benchmarks.jax_step", reason="JAX is not installed", exc_type=ImportError)
    model = get_model(name).build(SHAPE, WIDTHS, "silu", 0.7)
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    noise, eps = normal(tuple(x.shape), 0, "n"), normal((6, model.noise_dim), 0, "e")
    loss = build_objective("denoise", model)(x, noise, eps, torch.full((6,), 1 / 6))
    loss.backward()
    value, gradients = jax_step.loss_and_gradients(model, name, x, noise, eps)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(torch.tensor(gradients[key]), parameter.grad, rtol=1e-3, atol=1e-4)


def test_straightforward_estimator_equals_the_exact_one():
    train = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(exact.first_written(y, train), posterior_mean(y, train, exact.SIGMA), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_straightforward_step_has_our_loss_and_changes_weights(name):
    model = get_model(name).build(SHAPE, WIDTHS, "silu", 0.7)
    before = [p.detach().clone() for p in model.parameters()]
    expected = build_objective("denoise", model)(*variants.batch_for(model, SHAPE, "cpu", 6))
    loss = variants.first_written(model, SHAPE, "cpu", 6)()
    torch.testing.assert_close(loss, expected)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_forward_flops_are_those_counted_by_hand():
    """DEEN on 9×11 images: three convolutions, two linear layers, two operations for each multiplication."""
    widths = Widths(conv=(3, 4, 5), hidden=6)
    positions = (7 * 9, 5 * 7, 3 * 5)
    by_hand = 2 * (9 * (1 * 3 * positions[0] + 3 * 4 * positions[1] + 4 * 5 * positions[2]) + 5 * positions[2] * 6 + 6)
    assert variants.forward_flops("deen", SHAPE, widths) == by_hand
