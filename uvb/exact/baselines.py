"""Losses of two answers that need no training: the training set's mean image, and the noisy image itself."""

import math

import torch
from torch import Tensor

BLOCK = 500  # images that are summed at once


def mean_image_loss(train: Tensor, x: Tensor, levels: int) -> float:
    """E‖x − m‖², summed over pixels, of always answering the mean image m of `train`, whatever the noise.

    Args:
        train: images (N, C, H, W) as whole numbers in [0, levels]; their mean is the answer.
        x: images (n, C, H, W) of the same kind that are answered.
        levels: the number that stands for a pixel of 1.
    """
    total = torch.zeros(train.shape[1:], dtype=torch.float64, device=train.device)  # whole numbers: exact in any order
    for part in train.split(BLOCK):
        total += part.double().sum(0)
    mean = total / len(train)  # (C, H, W)
    return float(sum((part.double() - mean).square().sum() for part in x.split(BLOCK)) / len(x) / levels**2)


def noisy_image_loss(sigma: float, shape: tuple[int, ...]) -> float:
    """E‖x − y‖² = σ² d of answering y = x + σ N(0, I) itself, for images of the given shape with d pixels."""
    return sigma**2 * math.prod(shape)
