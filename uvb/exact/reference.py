"""Losses that need no model, at one noise level: the lowest possible training loss, and a non-parametric test loss."""

from dataclasses import dataclass

from torch import Tensor

from uvb.data import ImageSet
from uvb.data.stream import on_device_if_it_fits
from uvb.exact.baselines import mean_image_loss
from uvb.exact.empirical_bayes import posterior_mean
from uvb.measure.losses import EvalConfig, Mean, NoisyImages, clustered_mean, image_losses
from uvb.plan import Plan


@dataclass(frozen=True)
class Reference:
    """Losses E‖x - x̂(y)‖², summed over pixels. Standard errors are over images, as for models.

    Attributes:
        floor: the loss of the exact posterior mean on the training set. No training loss can be lower.
        nonparametric: the loss of the exact posterior mean on the test set. It is a reference, not a bound.
        mean_predictor: the loss of the mean training image on the test set.
        mean_image_train: the loss of the mean training image on the training set.
    """

    floor: float
    floor_stderr: float
    nonparametric: float
    nonparametric_stderr: float
    mean_predictor: float
    mean_image_train: float


def reference(images: ImageSet, sigma: float, config: EvalConfig, plan: Plan, *, train_images: int | None = None) -> Reference:
    """Compute the losses of `Reference`, on the images and the noise of `uvb.experiments.losses`.

    Each split costs 4 · images · draws · training images · d floating point operations (MNIST, 10,000 images, one draw:
    2 TFLOP). A smaller ``config.draws`` uses only the first noise draws.

    Args:
        train_images: the prior is uniform on the first `train_images` training images. None: on all.
    """
    prior = on_device_if_it_fits(images.train[:train_images], plan.device)  # (N, C, H, W) uint8

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
