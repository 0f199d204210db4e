"""Losses of estimates that need no training: the training set's mean image, the noisy image itself, the best linear map."""

import math

import torch
from torch import Tensor

BLOCK, LARGE_BLOCK = 500, 5000  # images that are summed at once


def mean_image_loss(train: Tensor, x: Tensor, levels: int) -> float:
    """E‖x − m‖² of the mean image m of `train`, summed over pixels. It does not depend on the noise.

    Args:
        train: images (N, C, H, W) as whole numbers in [0, levels], whose mean is m.
        x: images (n, C, H, W) of the same kind.
        levels: the pixel value that means 1.
    """
    total = torch.zeros(
        train.shape[1:], dtype=torch.float64, device=train.device
    )  # sums of whole numbers are exact in any order
    for part in train.split(BLOCK):
        total += part.double().sum(0)
    mean = total / len(train)  # (C, H, W)
    return float(sum((part.double() - mean).square().sum() for part in x.split(BLOCK)) / len(x) / levels**2)


def noisy_image_loss(sigma: float, shape: tuple[int, ...]) -> float:
    """E‖x − y‖² = σ² d of the noisy image y = x + σ N(0, I) itself, for images of `shape` with d pixels."""
    return sigma**2 * math.prod(shape)


def linear_loss(train: Tensor, x: Tensor, sigma: float, levels: int) -> float:
    """E‖x − m − A (y − m)‖², summed over pixels, of the affine map that is best for `train`. The mean over the noise is exact.

    m is the mean image and C the covariance of `train`, and A = C (C + σ² I)⁻¹. This is the Bayes estimator of a Gaussian.

    Args:
        train: images (N, C, H, W) as whole numbers in [0, levels], to which the map is fitted.
        x: images (n, C, H, W) of the same kind that are denoised.
        sigma: noise level, in units of pixels in [0, 1].
        levels: the pixel value that means 1.
    """
    mean, variances, axes = principal_axes(train, levels)
    lost = sigma**2 / (variances + sigma**2)  # 1 - A on each axis
    bias = sum(((part.double().flatten(1) / levels - mean) @ axes * lost).square().sum() for part in x.split(BLOCK)) / len(x)
    return float(bias + sigma**2 * (1 - lost).square().sum())


def principal_axes(images: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,), ascending variances (d,), and axes (d, d) as columns, of images (N, C, H, W) of whole numbers."""
    d = math.prod(images.shape[1:])
    total, products = torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for part in images.split(LARGE_BLOCK):
        rows = part.double().flatten(1) / levels  # (b, d)
        total, products = total + rows.sum(0), products + rows.T @ rows
    mean = total / len(images)
    variances, axes = torch.linalg.eigh(products / len(images) - mean.outer(mean))
    return mean, variances.clamp(min=0), axes
