"""What no model is needed for: the exact floor of the training loss, and the non-parametric test loss, at one noise level."""

from dataclasses import dataclass

from torch import Tensor

from uvb.data import ImageSet
from uvb.data.stream import resident
from uvb.exact.baselines import mean_image_loss
from uvb.exact.empirical_bayes import posterior_mean
from uvb.measure.losses import EvalConfig, Mean, clustered_mean, evaluation_images, image_losses
from uvb.plan import Plan


@dataclass(frozen=True)
class Reference:
    """Losses E‖x - x̂(y)‖², summed over pixels; the standard errors are clustered by image, as a model's are.

    Attributes:
        floor: of the training set's exact posterior mean on that training set; no training loss can be lower.
        nonparametric: of the same estimator on the test set; a reference and no bound.
        mean_predictor: of always answering the training set's mean image, on the test set.
        mean_image_train: the same on the training set.
    """

    floor: float
    floor_stderr: float
    nonparametric: float
    nonparametric_stderr: float
    mean_predictor: float
    mean_image_train: float


def reference(images: ImageSet, sigma: float, config: EvalConfig, plan: Plan, *, train_images: int | None = None) -> Reference:
    """The exact answers beside a model's losses: the same images and the same noise as `uvb.experiments.losses`.

    It costs 4 · images · draws · training images · d floating point operations a split (MNIST, 10,000 images and one
    draw: 2 TFLOP). Fewer ``config.draws`` give the first of the same draws.

    Args:
        train_images: how many training images, from the first, are the prior (None: all).
    """
    prior = resident(images.train[:train_images], plan.device)  # (N, C, H, W) uint8

    def exact(y: Tensor, eps: Tensor) -> Tensor:
        return posterior_mean(y, prior, sigma, levels=images.levels)

    losses: dict[str, Mean] = {}
    means: dict[str, float] = {}
    for split in ("train", "test"):
        x = evaluation_images(images, split, config, train_images)
        losses[split] = clustered_mean(image_losses(exact, 0, x, images.levels, sigma, split, config, plan))
        means[split] = mean_image_loss(images.train[:train_images], x, images.levels)
    floor, test = losses["train"], losses["test"]
    return Reference(floor.value, floor.stderr, test.value, test.stderr, means["test"], means["train"])
