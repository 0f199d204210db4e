"""ImageSet: a data set as it lies in memory, in whole, as uint8."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from uvb.errors import UserError
from uvb.noise import generator

_TENSORS = ("train", "test", "train_labels", "test_labels")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Training and test images with integer pixels; a pixel of the paper, in [0, 1], is ``value / levels``.

    Args:
        name: what tables and figures call the data set.
        train: uint8, shape (N, C, H, W), on the CPU.
        test: uint8, shape (M, C, H, W).
        train_labels: int64, shape (N,), or None.
        test_labels: int64, shape (M,), or None.
        levels: the pixel value that means 1.0: 255, or 16 for scikit-learn's digits.

    Raises:
        UserError: a set is empty, shapes or types do not fit, or a pixel is above `levels`.
    """

    name: str
    train: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    levels: int = 255

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 255:
            raise UserError(f"data set {self.name!r}: levels = {self.levels}; uint8 pixels allow 1 to 255")
        for split, images, labels in (
            ("train", self.train, self.train_labels),
            ("test", self.test, self.test_labels),
        ):
            where = f"data set {self.name!r}, {split}"
            if images.dtype != torch.uint8 or images.ndim != 4:
                raise UserError(
                    f"{where}: images are {images.dtype} of shape {tuple(images.shape)}; uint8 (N, C, H, W) is needed"
                )
            if images.numel() == 0:
                raise UserError(f"{where}: it is empty (shape {tuple(images.shape)}); at least one image is needed")
            if (brightest := int(images.max())) > self.levels:
                raise UserError(
                    f"{where}: a pixel is {brightest}, above levels = {self.levels}; value / levels must lie in [0, 1]"
                )
            if labels is not None and (labels.dtype != torch.int64 or labels.shape != images.shape[:1]):
                raise UserError(
                    f"{where}: labels are {labels.dtype} of shape {tuple(labels.shape)}; "
                    f"int64 of shape ({len(images)},) is needed"
                )
        if self.train.shape[1:] != self.test.shape[1:]:
            raise UserError(
                f"data set {self.name!r}: training images are {tuple(self.train.shape[1:])} and test images "
                f"{tuple(self.test.shape[1:])} (C, H, W); all must have one size"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @cached_property
    def checksum(self) -> str:
        """First 16 hex digits of the SHA-256 over pixels, labels, their shapes, and `levels`; the name is left out."""
        digest = hashlib.sha256(f"levels {self.levels}".encode())
        for key in _TENSORS:
            tensor: Tensor | None = getattr(self, key)
            if tensor is None:
                digest.update(f"|{key} none".encode())
            else:
                digest.update(f"|{key} {tuple(tensor.shape)} ".encode())
                digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def subset(self, train_images: int) -> "ImageSet":
        """The same set with only its first `train_images` training images; the test set stays whole.

        Raises:
            UserError: `train_images` is below 1 or above what there is.
        """
        available = len(self.train)
        if not 1 <= train_images <= available:
            raise UserError(
                f"train_images = {train_images}: data set {self.name!r} has {available} training images; "
                f"choose 1 to {available}"
            )
        if train_images == available:
            return self
        labels = None if self.train_labels is None else self.train_labels[:train_images]
        return replace(self, train=self.train[:train_images], train_labels=labels)

    def validation(self, one_in: int = 5) -> "ImageSet":
        """A set for choosing by: one in `one_in` of the training images is its test set, and the real test set is not in it.

        Which ones is keyed, so always the same; the name says what it is.

        Raises:
            UserError: there are fewer than `one_in` training images.
        """
        if len(self.train) < one_in:
            raise UserError(f"data set {self.name!r} has {len(self.train)} training images; at least {one_in} are needed")
        order = torch.randperm(len(self.train), generator=generator(0, "validation"))
        held, kept = order[: len(order) // one_in].sort().values, order[len(order) // one_in :].sort().values
        labels = self.train_labels
        return replace(
            self, name=f"{self.name}-validation", train=self.train[kept], test=self.train[held],
            train_labels=None if labels is None else labels[kept], test_labels=None if labels is None else labels[held],
        )  # fmt: skip

    def to_unit(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pixels as the networks see them, in [0, 1]: ``images / levels``, of any shape, on the device of `images`."""
        return images.to(dtype) / self.levels

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, name, levels and checksum in its header; whole or not at all."""
        path = Path(path)
        tensors = {key: t.contiguous() for key in _TENSORS if (t := getattr(self, key)) is not None}
        header = {"name": self.name, "levels": str(self.levels), "checksum": self.checksum}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            save_file(tensors, part, metadata=header)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @staticmethod
    def load(path: str | Path) -> "ImageSet":
        """The inverse of `save`.

        Raises:
            UserError: the file is missing, damaged, not of this kind, or its contents do not match its checksum.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            images = ImageSet(**tensors, name=header["name"], levels=int(header["levels"]))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; an image set written by ImageSet.save is needed") from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not an image set, or damaged ({_line(error)}); write it again") from error
        if images.checksum != header.get("checksum"):
            raise UserError(f"{path}: damaged, its contents do not match its checksum; write it again")
        return images


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
