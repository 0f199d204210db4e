"""Statistics of a data set's pixels, counted block by block."""

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Survey:
    """The range and the mean of the pixels, and how many test images are also training images.

    Attributes:
        darkest: the smallest pixel value so far.
        brightest: the largest pixel value so far.
    """

    darkest: int = 255
    brightest: int = 0
    _sum: int = 0
    _pixels: int = 0
    _hashes: tuple["array[int]", "array[int]"] = field(default_factory=lambda: (array("q"), array("q")))

    def add(self, block: NDArray[np.uint8], *, train: bool) -> None:
        """Count a block (n, C, H, W) of the training or the test set."""
        self.darkest = min(self.darkest, int(block.min()))
        self.brightest = max(self.brightest, int(block.max()))
        if train:
            self._sum += int(block.sum(dtype=np.uint64))
            self._pixels += block.size
        self._hashes[0 if train else 1].extend(hash(image.tobytes()) for image in block)  # 64 bits of SipHash

    @property
    def mean(self) -> float:
        """Mean pixel value of the training set."""
        return self._sum / max(1, self._pixels)

    @property
    def in_both(self) -> int:
        """The number of test images that equal a training image bit for bit, counted by hash."""
        train, test = (np.frombuffer(hashes, np.int64) if hashes else np.empty(0, np.int64) for hashes in self._hashes)
        return int(np.isin(test, train).sum())
