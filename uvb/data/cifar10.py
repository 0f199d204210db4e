"""CIFAR-10: 50,000 training and 10,000 test images, (3, 32, 32)."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uvb.data._download import fetch, has_md5
from uvb.data._torchvision import torchvision_datasets
from uvb.data.image_set import ImageSet
from uvb.data.registry import register_dataset
from uvb.errors import UserError


@register_dataset("cifar10")
def load_cifar10(data_dir: Path, download: bool = True) -> ImageSet:
    """Load 50,000 training and 10,000 test images, (3, 32, 32), from torchvision's files in `data_dir`.

    At each load torchvision checks the md5 sums of the files before it unpickles them.

    Raises:
        UserError: the archive cannot be downloaded or unpacked.
    """
    source = torchvision_datasets().CIFAR10
    archive = data_dir / source.filename
    try:
        try:
            train, test = (source(data_dir, train=is_train, download=False) for is_train in (True, False))
        except RuntimeError:  # the unpacked files are missing or damaged
            if not download and not has_md5(archive, source.tgz_md5):
                raise UserError("download is off") from None
            fetch([source.url], archive, source.tgz_md5)
            with contextlib.redirect_stdout(io.StringIO()):  # torchvision only unpacks, because the archive is there
                train, test = (source(data_dir, train=is_train, download=True) for is_train in (True, False))
    except (UserError, OSError) as error:
        state = "damaged" if archive.exists() else "absent"
        raise UserError(
            f"cifar10: {error}; put the official {archive.name} ({state}) into {data_dir}, "
            "or give the path of a Parquet folder instead of the name"
        ) from error
    labels = torch.tensor(train.targets), torch.tensor(test.targets)
    return ImageSet("cifar10", _images(train), _images(test), *labels, classes=tuple(train.classes))


def _images(dataset: Any) -> Tensor:
    pixels: Tensor = torch.from_numpy(dataset.data)  # (N, 32, 32, 3)
    return pixels.permute(0, 3, 1, 2).contiguous()  # (N, 3, 32, 32)
