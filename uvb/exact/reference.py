"""Losses that need no model, at one noise level: the exact floor of the training loss, and the non-parametric test loss."""

from dataclasses import dataclass

from torch import Tensor

from uvb.data import ImageSet
from uvb.data.stream import resident
from uvb.exact.baselines import mean_image_loss
from uvb.exact.empirical_bayes import posterior_mean
from uvb.measure.losses import EvalConfig, Mean, NoisyImages, clustered_mean, image_losses
from uvb.plan import Plan


@dataclass(frozen=True)
class Reference:
    """Losses E‖x - x̂(y)‖², summed over pixels. Standard errors are over images, as for models.

    Attributes:
        floor: loss of the training set's exact posterior mean, on the training set. No training loss can be lower.
        nonparametric: loss of the same estimator, on the test set. It is a reference, not a bound.
        mean_predictor: loss of the training set's mean image, on the test set.
        mean_image_train: the same, on the training set.
    """

    floor: float
    floor_stderr: float
    nonparametric: float
    nonparametric_stderr: float
    mean_predictor: float
    mean_image_train: float


def reference(images: ImageSet, sigma: float, config: EvalConfig, plan: Plan, *, train_images: int | None = None) -> Reference:
    """The exact losses to compare a model's losses with, on the images and noise of `uvb.experiments.losses`.

    Each split costs 4 · images · draws · training images · d floating point operations (MNIST, 10,000 images, one draw:
    2 TFLOP). A smaller ``config.draws`` uses the first of the same draws.

    Args:
        train_images: how many training images, from the first on, make up the prior. None: all.
    """
    prior = resident(images.train[:train_images], plan.device)  # (N, C, H, W) uint8

    def exact(y: Tensor, eps: Tensor) -> Tensor:
        return posterior_mean(y, prior, sigma, levels=images.levels)

    losses: dict[str, Mean] = {}
    means: dict[str, float] = {}
    for split in ("train", "test"):
        noisy = NoisyImages.of(images, split, sigma, config, plan, train_images)
        losses[split] = clustered_mean(image_losses(exact, 0, noisy))
        means[split] = mean_image_loss(images.train[:train_images], noisy.pixels, images.levels)
    floor, test = losses["train"], losses["test"]
    return Reference(floor.value, floor.stderr, test.value, test.stderr, means["test"], means["train"])
