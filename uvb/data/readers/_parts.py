"""What a reader of one's own files hands over, before it is split and its labels are numbered."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Parts(NamedTuple):
    """Images, uint8 (N, C, H, W), and labels, integers or strings (N,); `test` is None where the files are not split."""

    train: Tensor
    test: Tensor | None
    train_labels: NDArray[Any] | None
    test_labels: NDArray[Any] | None


def shuffled(count: int) -> NDArray[np.int64]:
    """The fixed order used wherever one is needed: ``torch.randperm(count)`` by a CPU generator of seed 0."""
    order: NDArray[np.int64] = torch.randperm(count, generator=torch.Generator().manual_seed(0)).numpy()
    return order
