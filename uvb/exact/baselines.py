"""Losses of three simple estimators: the mean training image, the noisy image, and the best affine map."""

import math

import torch
from torch import Tensor

BLOCK, LARGE_BLOCK = 500, 5000  # images to sum at once


def mean_image_loss(train: Tensor, x: Tensor, levels: int) -> float:
    """The mean of ‖x − m‖², summed over pixels, where m is the mean image of `train`. It does not depend on the noise.

    Args:
        train: images (N, C, H, W) as whole numbers in [0, levels].
        x: images (n, C, H, W) as whole numbers in [0, levels].
        levels: the pixel value that means 1.
    """
    total = torch.zeros(train.shape[1:], dtype=torch.float64, device=train.device)  # sums of whole numbers are exact
    for part in train.split(BLOCK):
        total += part.double().sum(0)
    mean = total / len(train)  # (C, H, W)
    return float(sum((part.double() - mean).square().sum() for part in x.split(BLOCK)) / len(x) / levels**2)


def noisy_image_loss(sigma: float, shape: tuple[int, ...]) -> float:
    """E‖x − y‖² = σ² d: the loss of the noisy image y = x + σ N(0, I) as the estimate. Images of `shape` have d pixels."""
    return sigma**2 * math.prod(shape)


def linear_loss(train: Tensor, x: Tensor, sigma: float, levels: int) -> float:
    """The loss E‖x − x̂(y)‖², summed over pixels, of the affine estimator x̂(y) = m + A (y − m) that is best on `train`.

    m is the mean image of `train`, C its covariance, and A = C (C + σ² I)⁻¹. For a Gaussian X this is the Bayes estimator. The
    expectation over the noise is computed exactly.

    Args:
        train: images (N, C, H, W) as whole numbers in [0, levels].
        x: images (n, C, H, W) to denoise, as whole numbers in [0, levels].
        sigma: noise level, in units of pixels in [0, 1].
        levels: the pixel value that means 1.
    """
    mean, variances, axes = principal_axes(train, levels)
    lost = sigma**2 / (variances + sigma**2)  # 1 - A on each axis
    centred = (part.double().flatten(1) / levels - mean for part in x.split(BLOCK))  # each (b, d)
    bias = sum((rows @ axes * lost).square().sum() for rows in centred) / len(x)
    return float(bias + sigma**2 * (1 - lost).square().sum())


def principal_axes(images: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """The principal components of images (N, C, H, W), which are whole numbers in [0, levels].

    Returns:
        The mean (d,), the variances (d,) in ascending order, and the axes (d, d) as columns, in units of pixels in [0, 1].
    """
    d = math.prod(images.shape[1:])
    total, products = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for part in images.split(LARGE_BLOCK):
        rows = part.double().flatten(1) / levels  # (b, d)
        total, products = total + rows.sum(0), products + rows.T @ rows
    mean = total / len(images)
    variances, axes = torch.linalg.eigh(products / len(images) - mean.outer(mean))
    return mean, variances.clamp(min=0), axes
