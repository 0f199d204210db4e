"""ImageSet: a data set as uint8 tensors, in memory or memory-mapped."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from uvb.atomic import replacing
from uvb.data.image_file import TENSORS, Contents, ImageFile, map_tensors
from uvb.data.report import ReadReport
from uvb.errors import UserError
from uvb.noise import generator

VERIFIED_BYTES = 1 << 28
"""A file of at most this many bytes is checked at every load. A larger file is checked only when it is made or fetched."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Training and test images with integer pixels. Pixels divided by `levels` are the paper's pixels, in [0, 1].

    Args:
        name: what tables and figures call the data set.
        train: uint8, shape (N, C, H, W), on the CPU.
        test: uint8, shape (M, C, H, W).
        train_labels: int64, shape (N,), or None.
        test_labels: int64, shape (M,), or None.
        levels: the pixel value that means 1.0: 255, or 16 for scikit-learn's digits.
        classes: names of the classes by label, or empty.
        report: what was read, if a reader reported it.
        brightest: the largest pixel value. None: it is found by reading all pixels.

    Raises:
        UserError: a split is empty, shapes or types do not fit, or a pixel is above `levels`.
    """

    name: str
    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    levels: int = 255
    classes: tuple[str, ...] = ()
    report: ReadReport | None = None
    brightest: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 255:
            raise UserError(f"data set {self.name!r}: levels = {self.levels}; uint8 pixels allow 1 to 255")
        for split, images, labels in (("train", self.train, self.train_labels), ("test", self.test, self.test_labels)):
            where, shape = f"data set {self.name!r}, {split}", tuple(images.shape)
            if images.dtype != torch.uint8 or images.ndim != 4:
                raise UserError(f"{where}: images are {images.dtype} of shape {shape}; uint8 (N, C, H, W) is needed")
            if images.numel() == 0:
                raise UserError(f"{where}: it is empty (shape {shape}); at least one image is needed")
            brightest = int(images.max()) if self.brightest is None else self.brightest
            if brightest > self.levels:
                raise UserError(
                    f"{where}: a pixel is {brightest}, above levels = {self.levels}; value / levels must lie in [0, 1]"
                )
            if labels is not None and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
                found = f"{labels.dtype} of shape {tuple(labels.shape)}"
                raise UserError(f"{where}: labels are {found}; int64 of shape ({len(images)},) is needed")
        train, test = tuple(self.train.shape[1:]), tuple(self.test.shape[1:])
        if train != test:
            raise UserError(
                f"data set {self.name!r}: training images are {train} and test images {test} (C, H, W); all must have one size"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @cached_property
    def checksum(self) -> str:
        """First 16 hex digits of the SHA-256 over pixels, labels, their shapes, and `levels`, but not the name."""
        digest = hashlib.sha256(f"levels {self.levels}".encode())
        for key in TENSORS:
            tensor: Tensor | None = getattr(self, key)
            if tensor is None:
                digest.update(f"|{key} none".encode())
            else:
                digest.update(f"|{key} {tuple(tensor.shape)} ".encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def validation(self, one_in: int = 5) -> "ImageSet":
        """A set for model selection: one in `one_in` training images becomes its test set. The real test images are left out.

        The held-out images are drawn with a fixed seed, so they are always the same.

        Raises:
            UserError: there are fewer than `one_in` training images.
        """
        if len(self.train) < one_in:
            raise UserError(f"data set {self.name!r} has {len(self.train)} training images; at least {one_in} are needed")
        order = torch.randperm(len(self.train), generator=generator(0, "validation"))
        held, kept = order[: len(order) // one_in].sort().values, order[len(order) // one_in :].sort().values
        name = f"{self.name}-validation"
        labels = self.train_labels
        kept_labels, held_labels = (None if labels is None else labels[rows] for rows in (kept, held))
        report = self.report
        if report:
            numbers = [None if each is None else each.numpy() for each in (kept_labels, held_labels)]
            report = report.held_out(numbers[0], numbers[1], (len(kept), len(held)))
            if self.train.nbytes > VERIFIED_BYTES:  # indexing would give every process its own copy in memory
                from uvb.data.cache import regrouped

                return regrouped(self, name, kept, held, report)
        return replace(
            self, name=name, train=self.train[kept], test=self.train[held], report=report,
            train_labels=kept_labels, test_labels=held_labels,
        )  # fmt: skip

    def to_unit(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pixels in [0, 1] for the networks: ``images / levels``. The shape and the device stay."""
        return images.to(dtype) / self.levels

    def save(self, path: str | Path) -> None:
        """Write the set as one safetensors file. It appears at `path` only when it is complete. `report` is not saved."""
        train, test = (None if each is None else each.numpy() for each in (self.train_labels, self.test_labels))
        held = Contents(self.name, self.shape, len(self.train), len(self.test), train, test, self.levels, self.classes)
        with replacing(Path(path)) as temporary:
            ImageFile(temporary, held).fill(
                block.numpy() for images in (self.train, self.test) for block in images.split(held.block_rows)
            )

    @staticmethod
    def load(path: str | Path, name: str | None = None, report: ReadReport | None = None) -> "ImageSet":
        """Read what `save` wrote, memory-mapped. The system reads a page when it is used, and all processes share the memory.

        Args:
            name: replaces the name in the file.
            report: what was read when the file was made.

        Raises:
            UserError: the file is missing, damaged, or no image set, or it does not match its checksum.
        """
        tensors, header = map_tensors(Path(path))
        # Only `ImageFile` writes checksums of blocks. It is trusted, since checking all of a large file would take minutes.
        trusted = "blocks" in header and Path(path).stat().st_size > VERIFIED_BYTES
        try:
            images = ImageSet(
                **tensors, name=name or header["name"], levels=int(header["levels"]),
                classes=tuple(json.loads(header.get("classes", "[]"))), report=report,
                brightest=int(header["brightest"]) if trusted else None,
            )  # fmt: skip
            checksum = header["checksum"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not an image set, or damaged ({error!r}); write it again") from error
        if trusted:
            images.__dict__["checksum"] = checksum  # fill the cached property, because computing it would read all pixels
        elif images.checksum != checksum:
            raise UserError(f"{path}: damaged, its contents do not match its checksum; write it again")
        return images
