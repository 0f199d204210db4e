"""What no model is needed for: the exact floor of the training loss, and the non-parametric test loss, at one noise level."""

from dataclasses import dataclass

import torch
from torch import Tensor

from uvb.data import ImageSet
from uvb.exact.empirical_bayes import posterior_mean
from uvb.measure.losses import BLOCK, EvalConfig, Mean, clustered_mean, evaluation_images, image_losses
from uvb.plan import Plan


@dataclass(frozen=True)
class Reference:
    """Losses E‖x - x̂(y)‖², summed over pixels; the standard errors are clustered by image, as a model's are.

    Attributes:
        floor: of the training set's exact posterior mean on that training set; no training loss can be lower.
        nonparametric: of the same estimator on the test set; a reference and no bound.
        mean_predictor: of always answering the training set's mean, on the test set.
    """

    floor: float
    floor_stderr: float
    nonparametric: float
    nonparametric_stderr: float
    mean_predictor: float


def reference(images: ImageSet, sigma: float, config: EvalConfig, plan: Plan, *, train_images: int | None = None) -> Reference:
    """The exact answers beside a model's losses: the same images and the same noise as `uvb.experiments.losses`.

    It costs 4 · images · draws · training images · d floating point operations a split (MNIST, 10,000 images and one
    draw: 2 TFLOP). Fewer ``config.draws`` give the first of the same draws.

    Args:
        train_images: how many training images, from the first, are the prior (None: all).
    """
    prior = images.train[:train_images].to(plan.device)  # (N, C, H, W) uint8

    def exact(y: Tensor, eps: Tensor) -> Tensor:
        return posterior_mean(y, prior, sigma, levels=images.levels)

    losses: dict[str, Mean] = {}
    for split in ("train", "test"):
        x = evaluation_images(images, split, config, train_images)
        losses[split] = clustered_mean(image_losses(exact, 0, x, images.levels, sigma, split, config, plan))
    floor, test = losses["train"], losses["test"]
    mean_predictor = _mean_predictor(images, train_images, config)
    return Reference(floor.value, floor.stderr, test.value, test.stderr, mean_predictor)


def _mean_predictor(images: ImageSet, train_images: int | None, config: EvalConfig) -> float:
    train, x = images.train[:train_images], evaluation_images(images, "test", config)
    mean = torch.stack([part.double().sum(0) for part in train.split(BLOCK)]).sum(0) / len(train)  # (C, H, W)
    return float(sum((part.double() - mean).square().sum() for part in x.split(BLOCK)) / len(x) / images.levels**2)
