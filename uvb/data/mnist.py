"""MNIST, as the paper uses it."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uvb.data._download import fetch, has_md5
from uvb.data._torchvision import torchvision_datasets
from uvb.data.image_set import ImageSet
from uvb.data.registry import register_dataset
from uvb.errors import UserError


@register_dataset("mnist")
def load_mnist(data_dir: Path, download: bool = True) -> ImageSet:
    """Load 60,000 training and 10,000 test images, (1, 28, 28), from ``data_dir/MNIST/raw``, where torchvision keeps them.

    The addresses and md5 sums are torchvision's. At each load the four files are checked, and unpacked in memory. torchvision's
    loader is not used: it waits forever on a dead network, and at later loads it does not check the files that it unpacked.

    Raises:
        UserError: a file is absent or damaged, and cannot be downloaded.
    """
    source = torchvision_datasets().MNIST
    raw = data_dir / "MNIST" / "raw"
    try:
        for name, md5 in source.resources:
            if not download and not has_md5(raw / name, md5):
                raise UserError("download is off")
            fetch([mirror + name for mirror in source.mirrors], raw / name, md5)
    except UserError as error:
        bad = [name for name, md5 in source.resources if not has_md5(raw / name, md5)]
        missing = ", ".join(f"{name} ({'damaged' if (raw / name).exists() else 'absent'})" for name in bad)
        raise UserError(f"mnist: {error}; put these official files into {raw}: {missing}") from error
    train, train_labels, test, test_labels = (_read(raw / name) for name, _ in source.resources)
    return ImageSet("mnist", train, test, train_labels.long(), test_labels.long())


def _read(path: Path) -> Tensor:
    """Read a gzipped IDX file as uint8: (N, 1, 28, 28) for images, (N,) for labels."""
    content = gzip.decompress(path.read_bytes())
    ndim = content[3]  # header: 0, 0, type, ndim, then ndim big-endian int32 sizes
    shape = np.frombuffer(content, ">i4", count=ndim, offset=4).tolist()
    values = torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * ndim).copy()).reshape(shape)
    return values.unsqueeze(1) if ndim == 3 else values
