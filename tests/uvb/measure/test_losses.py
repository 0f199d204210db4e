"""What is measured on the models: losses, their errors, Tables 4 and 5, each computed here a second way, image by image."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.support.builders import tiny_spec
from uvb.measure.internals import QUANTITIES, measure_internals
from uvb.measure.losses import (
    BLOCK,
    EvalConfig,
    clustered_mean,
    denoisers,
    drawn_test_images,
    evaluation_images,
    image_losses,
    noisy_blocks,
    paired_difference,
)
from uvb.models import build_model
from uvb.noise import normal
from uvb.plan import Plan

FP64 = Plan(precision="fp64")
CONFIG = EvalConfig(draws=2)
SIGMA, N = 0.7, 9


def draws_of(noise_dim, split="test"):
    """Noise (N, 1, 8, 8) and ε (N, noise_dim) of each draw, by their keys."""
    for draw in range(CONFIG.draws):
        key = (CONFIG.seed, "eval", split, draw, 0)
        noise, eps = normal((BLOCK, 1, 8, 8), *key), normal((BLOCK, noise_dim), *key, "latent")
        yield noise[:N].double(), eps[:N].double()


def told(values):
    """Mean and standard error of a table [image][draw], over images."""
    means = [sum(row) / len(row) for row in values]
    mean = sum(means) / len(means)
    return mean, math.sqrt(sum((m - mean) ** 2 for m in means) / (len(means) - 1) / len(means))


@pytest.mark.parametrize("name", ["uvb", "uvb_laplace", "vae"])
def test_tables_4_and_5_in_every_convention(digits, name):
    """One image at a time, the KL by torch.distributions."""
    model = build_model(tiny_spec(digits, name, sigma=SIGMA)).double()
    x = digits.test[:N]
    values = {quantity: [[] for _ in range(N)] for quantity in QUANTITIES}
    with torch.no_grad():
        for noise, eps in draws_of(model.noise_dim):
            for i in range(N):
                clean = x[i : i + 1].double() / digits.levels
                noisy = clean + SIGMA * noise[i : i + 1]
                for source, seen in (("noisy", noisy), ("clean", clean)):
                    mu, lam = model.encode(seen)
                    spread = (lam / 2).exp()  # λ is the logarithm of the variance
                    kl = kl_divergence(Normal(mu, spread), Normal(0.0, 1.0)).sum().item()
                    values[f"kl_{source}"][i].append(kl)
                    decoded = model.decode(mu + spread * eps[i : i + 1])
                    for target, wanted in (("y", noisy), ("x", clean)):
                        square = ((wanted - decoded) ** 2).sum().item() / SIGMA**2
                        values[f"recon_{source}_{target}_full"][i].append(square)
                        values[f"recon_{source}_{target}_half"][i].append(square / 2)
    found = measure_internals(model, x, digits.levels, "test", CONFIG, FP64)
    assert len(found) == 10
    for quantity, mean in found.items():
        assert (mean.value, mean.stderr) == pytest.approx(told(values[quantity]), rel=1e-9), quantity


@pytest.mark.parametrize("name", ["uvb", "deen", "direct"])
def test_a_loss_and_its_error_written_out(digits, name):
    model = build_model(tiny_spec(digits, name, sigma=SIGMA)).double()
    x = digits.test[:N]
    for denoise in denoisers(model).values():
        values = [[] for _ in range(N)]
        with torch.no_grad():
            for noise, eps in draws_of(model.noise_dim):
                for i in range(N):
                    clean = x[i : i + 1].double() / digits.levels
                    x_hat = denoise(clean + SIGMA * noise[i : i + 1], eps[i : i + 1])
                    values[i].append(((clean - x_hat) ** 2).sum().item())
        losses = image_losses(denoise, model.noise_dim, x, digits.levels, SIGMA, "test", CONFIG, FP64)
        mean = clustered_mean(losses)
        assert (mean.value, mean.stderr) == pytest.approx(told(values), rel=1e-9)


def test_an_error_counts_images_and_not_draws():
    values = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).double()
    once, often = clustered_mean(values), clustered_mean(values.expand(50, 7))
    assert (often.value, often.stderr) == pytest.approx((once.value, once.stderr))
    assert once.stderr == pytest.approx(values.std().item() / math.sqrt(50))
    shift = paired_difference(values + 0.25, values)
    assert (shift.value, shift.stderr) == pytest.approx((0.25, 0.0), abs=1e-12)


@pytest.mark.parametrize("limit", [0, 60])
def test_training_losses_are_of_images_that_were_trained_on(digits, limit):
    chosen = evaluation_images(digits, "train", EvalConfig(train_images=limit), train_images=100)
    trained = {bytes(image) for image in digits.train[:100].flatten(1).numpy()}
    assert len(chosen) == (limit or 100)
    assert {bytes(image) for image in chosen.flatten(1).numpy()} <= trained


def test_every_block_of_images_has_noise_of_its_own(digits):
    """Else many images would share few draws, and the error bar would not know."""
    blocks = list(noisy_blocks(digits.train[: BLOCK + 3], digits.levels, SIGMA, 2, "train", 1, CONFIG, FP64))
    assert [len(clean) for clean, _, _ in blocks] == [BLOCK, 3]
    for start, (clean, y, eps) in zip((0, BLOCK), blocks, strict=True):
        key = (CONFIG.seed, "eval", "train", 1, start)
        noise = normal((BLOCK, 1, 8, 8), *key)[: len(clean)].double()
        torch.testing.assert_close(y, clean + SIGMA * noise)
        torch.testing.assert_close(eps, normal((BLOCK, 2), *key, "latent")[: len(clean)].double())


def test_few_images_are_drawn_from_all(digits):
    """The first test images of a set may be the easier ones (MNIST's are), so a part of a split is a drawn one."""
    few = drawn_test_images(digits, 60, EvalConfig())
    assert torch.equal(few, evaluation_images(digits, "test", EvalConfig(test_images=60)))
    places = [next(i for i in range(297) if torch.equal(digits.test[i], image)) for image in few]
    assert len(set(places)) == 60
    assert places == sorted(places)
    assert max(places) > 240
    assert torch.equal(drawn_test_images(digits, 1000, EvalConfig()), digits.test)
