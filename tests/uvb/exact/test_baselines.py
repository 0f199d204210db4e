"""The losses of estimates that need no training, against known numbers."""

import pytest
import torch

from uvb.data import load_dataset
from uvb.exact.baselines import linear_loss, mean_image_loss, noisy_image_loss


def test_mean_image_of_digits_has_the_known_loss() -> None:
    digits = load_dataset("digits", "unused")
    assert mean_image_loss(digits.train, digits.test, digits.levels) == pytest.approx(4.74, abs=0.005)


def test_mean_image_loss_is_the_variance_of_its_own_images() -> None:
    x = torch.randint(0, 17, (1300, 1, 3, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    variance = (x.double() / 16).flatten(1).var(0, correction=0).sum().item()
    assert mean_image_loss(x, x, 16) == pytest.approx(variance)


def test_noisy_image_loss_is_the_variance_of_the_noise() -> None:
    """At sigma = 1 the loss is the number of pixels, 64. At sigma = 0.5 it is compared with 4,000 draws of noise."""
    assert noisy_image_loss(1.0, (1, 8, 8)) == 64
    noise = 0.5 * torch.randn(4000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert noise.square().sum(1).mean().item() == pytest.approx(noisy_image_loss(0.5, (1, 8, 8)), rel=0.02)


def test_linear_loss_of_its_own_images_is_the_loss_of_the_wiener_filter() -> None:
    """On the images it is fitted to, the linear map has the loss Σ λ σ² / (λ + σ²). λ are eigenvalues of their covariance."""
    x = torch.randint(0, 17, (1300, 1, 3, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    variances = torch.linalg.eigvalsh((x.double() / 16).flatten(1).T.cov(correction=0))
    expected = (variances * 0.49 / (variances + 0.49)).sum().item()
    assert linear_loss(x, x, 0.7, 16) == pytest.approx(expected, rel=1e-9)


def test_linear_loss_approaches_mean_image_loss_for_large_noise() -> None:
    digits = load_dataset("digits", "unused")
    mean = mean_image_loss(digits.train, digits.test, digits.levels)
    assert linear_loss(digits.train, digits.test, 100.0, digits.levels) == pytest.approx(mean, rel=1e-3)
    assert linear_loss(digits.train, digits.test, 1.0, digits.levels) < mean
