"""Losses, their errors, and Tables 4 and 5. The tests compute each number a second way, image by image."""

import math
from collections import defaultdict

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.support.builders import tiny_spec
from uvb.measure.internals import measure_internals
from uvb.measure.losses import BLOCK, EvalConfig, NoisyImages, clustered_mean, denoisers, evaluation_images, image_losses
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


def nine_images(digits):
    return NoisyImages(digits.test[:N], digits.levels, SIGMA, "test", CONFIG, FP64)


def mean_and_error(values):
    """Mean and standard error of a table [image][draw], over images."""
    means = [sum(row) / len(row) for row in values]
    mean = sum(means) / len(means)
    return mean, math.sqrt(sum((m - mean) ** 2 for m in means) / (len(means) - 1) / len(means))


@pytest.mark.parametrize("name", ["uvb", "uvb_laplace", "vae"])
def test_measure_internals_gives_tables_4_and_5_in_every_convention(digits, name):
    """The test computes one image at a time, with the KL of torch.distributions."""
    model = build_model(tiny_spec(digits, name, sigma=SIGMA)).double()
    noisy = nine_images(digits)
    values = defaultdict(lambda: [[] for _ in range(N)])
    with torch.no_grad():
        for noise, eps in draws_of(model.noise_dim):
            for i in range(N):
                clean = noisy.pixels[i : i + 1].double() / digits.levels
                y = clean + SIGMA * noise[i : i + 1]
                for source, seen in (("noisy", y), ("clean", clean)):
                    mu, lam = model.encode(seen)
                    spread = (lam / 2).exp()  # λ is the logarithm of the variance
                    kl = kl_divergence(Normal(mu, spread), Normal(0.0, 1.0)).sum().item()
                    values[f"kl_{source}"][i].append(kl)
                    decoded = model.decode(mu + spread * eps[i : i + 1])
                    for target, wanted in (("y", y), ("x", clean)):
                        square = ((wanted - decoded) ** 2).sum().item() / SIGMA**2
                        values[f"recon_{source}_{target}_full"][i].append(square)
                        values[f"recon_{source}_{target}_half"][i].append(square / 2)
    found = measure_internals(model, noisy)
    assert len(found) == len(values) == 10
    for quantity, mean in found.items():
        assert (mean.value, mean.stderr) == pytest.approx(mean_and_error(values[quantity]), rel=1e-9), quantity


@pytest.mark.parametrize("name", ["uvb", "deen", "direct"])
def test_image_losses_equal_a_loop_over_images(digits, name):
    model = build_model(tiny_spec(digits, name, sigma=SIGMA)).double()
    noisy = nine_images(digits)
    for denoise in denoisers(model).values():
        values = [[] for _ in range(N)]
        with torch.no_grad():
            for noise, eps in draws_of(model.noise_dim):
                for i in range(N):
                    clean = noisy.pixels[i : i + 1].double() / digits.levels
                    x_hat = denoise(clean + SIGMA * noise[i : i + 1], eps[i : i + 1])
                    values[i].append(((clean - x_hat) ** 2).sum().item())
        mean = clustered_mean(image_losses(denoise, model.noise_dim, noisy))
        assert (mean.value, mean.stderr) == pytest.approx(mean_and_error(values), rel=1e-9)


def test_clustered_mean_counts_images_not_draws():
    values = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)).double()
    once, often = clustered_mean(values), clustered_mean(values.expand(50, 7))
    assert (often.value, often.stderr) == pytest.approx((once.value, once.stderr))
    assert once.stderr == pytest.approx(values.std().item() / math.sqrt(50))


@pytest.mark.parametrize("limit", [0, 60])
def test_evaluation_images_of_training_are_images_trained_on(digits, limit):
    chosen = evaluation_images(digits, "train", EvalConfig(train_images=limit), train_images=100)
    trained = {bytes(image) for image in digits.train[:100].flatten(1).numpy()}
    assert len(chosen) == (limit or 100)
    assert {bytes(image) for image in chosen.flatten(1).numpy()} <= trained


def test_noisy_images_draw_new_noise_for_every_block(digits):
    """If blocks shared noise, many images would share few draws, and the error bar would be too short."""
    noisy = NoisyImages(digits.train[: BLOCK + 3], digits.levels, SIGMA, "train", CONFIG, FP64)
    blocks = list(noisy.blocks(noise_dim=2, draw=1))
    assert [len(clean) for clean, _, _ in blocks] == [BLOCK, 3]
    for start, (clean, y, eps) in zip((0, BLOCK), blocks, strict=True):
        key = (CONFIG.seed, "eval", "train", 1, start)
        noise = normal((BLOCK, 1, 8, 8), *key)[: len(clean)].double()
        torch.testing.assert_close(y, clean + SIGMA * noise)
        torch.testing.assert_close(eps, normal((BLOCK, 2), *key, "latent")[: len(clean)].double())


def test_evaluation_images_draw_a_part_from_the_whole_split(digits):
    """The first test images of a set may be the easier ones, as MNIST's are."""
    few = evaluation_images(digits, "test", EvalConfig(test_images=60))
    places = [next(i for i in range(297) if torch.equal(digits.test[i], image)) for image in few]
    assert len(set(places)) == 60
    assert places == sorted(places)
    assert max(places) > 240
    assert torch.equal(evaluation_images(digits, "test", EvalConfig(test_images=1000)), digits.test)


def test_measured_collects_numbers_by_image_and_draw(digits):
    noisy = NoisyImages(digits.test[: BLOCK // 3], digits.levels, SIGMA, "test", CONFIG, FP64)
    found = noisy.measured(0, lambda x, y, eps: {"x": x.flatten(1).sum(1), "y": y.flatten(1).sum(1)})
    x = noisy.pixels.double().flatten(1).sum(1) / digits.levels
    torch.testing.assert_close(found["x"], x[:, None].expand(-1, 2))
    for draw in range(2):
        [(_, y, _)] = noisy.blocks(0, draw)
        assert torch.equal(found["y"][:, draw], y.flatten(1).sum(1))
    assert torch.equal(noisy.measured(0, lambda x, y, eps: {"y": y.flatten(1).sum(1)}, draws=1)["y"], found["y"][:, :1])
