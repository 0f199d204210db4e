"""The data set "mixture": images from a Gaussian mixture. Its density, its score and the best possible loss are known."""

from pathlib import Path

import torch
from torch import Tensor

from uvb.data.image_set import ImageSet
from uvb.data.registry import register_dataset
from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.noise import generator

COMPONENTS, SHAPE, LEVELS = 8, (1, 8, 8), 255
TRAIN_IMAGES, TEST_IMAGES = 20_000, 2_000
DEVIATION = 0.05  # standard deviation of each pixel about its component's mean


def true_mixture() -> GaussianMixture:
    """The mixture that `load_mixture` draws from: eight components with weights 1/36 to 8/36, in float64.

    The pixels of the means are uniform in [0.25, 0.75], at least five standard deviations from black and white. So clipping
    changes one pixel in millions. Rounding to 1/255 adds 1/(12 · 255²) to the variance of a pixel, a relative change of 5e-4.
    The mixture's variances include this term.
    """
    means = 0.25 + 0.5 * torch.rand(COMPONENTS, *SHAPE, generator=generator(0, "mixture", "means"), dtype=torch.float64)
    weights = torch.arange(1, COMPONENTS + 1, dtype=torch.float64)
    variance = DEVIATION**2 + 1 / (12 * LEVELS**2)
    return GaussianMixture(weights / weights.sum(), means, torch.full((COMPONENTS,), variance, dtype=torch.float64))


@register_dataset("mixture")
def load_mixture(data_dir: Path) -> ImageSet:
    """Draw 20,000 training and 2,000 test images, (1, 8, 8), from `true_mixture`. The label is the component's number."""
    train, train_labels = _draw(TRAIN_IMAGES, "train")
    test, test_labels = _draw(TEST_IMAGES, "test")
    return ImageSet("mixture", train, test, train_labels, test_labels, LEVELS)


def _draw(n: int, split: str) -> tuple[Tensor, Tensor]:
    mixture, g = true_mixture(), generator(0, "mixture", split)
    labels = torch.multinomial(mixture.weights, n, replacement=True, generator=g)  # (n,)
    x = mixture.means[labels] + DEVIATION * torch.randn(n, *SHAPE, generator=g, dtype=torch.float64)
    return (x * LEVELS).round().clamp(0, LEVELS).to(torch.uint8), labels
