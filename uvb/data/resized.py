"""Resize the images of a data set."""

from dataclasses import replace

from torch import Tensor
from torch.nn import functional as F

from uvb.data.image_set import ImageSet

BLOCK = 4096  # images that are resized at once


def resized(images: ImageSet, side: int) -> ImageSet:
    """Resize images to `side` pixels on the shorter side, by means over areas. Return a new set called ``NAME-SIDE``.

    If the images already have this size, return the same set.
    """
    height, width = images.shape[1:]
    if side == min(height, width):
        return images
    size = [max(side, round(length * side / min(height, width))) for length in (height, width)]

    def fitted(pixels: Tensor) -> Tensor:
        found = pixels.new_empty((*pixels.shape[:2], *size))
        for start in range(0, len(pixels), BLOCK):
            part = F.interpolate(pixels[start : start + BLOCK].double(), size, mode="area")
            found[start : start + BLOCK] = part.add(0.5).floor().to(pixels.dtype)
        return found

    train, test = fitted(images.train), fitted(images.test)
    # The loader's report describes the original images, so it is left out.
    return replace(images, name=f"{images.name}-{side}", train=train, test=test, report=None, brightest=None)
