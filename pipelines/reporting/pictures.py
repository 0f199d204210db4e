"""Images in and out of files: grids, animations, and own pictures made to fit a model."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from uvb.errors import UserError
from uvb.spec import Shape


def to_pil(image: Tensor, zoom: int = 1) -> Image.Image:
    """(C, H, W) with pixels in [0, 1] (clipped) to a picture, each pixel `zoom` wide."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def grid(images: Tensor, columns: int) -> Tensor:
    """(N, C, H, W) to one image of rows of `columns`, left to right and top to bottom, one pixel apart."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    sheet = torch.ones(c, rows * (h + 1) - 1, columns * (w + 1) - 1)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + 1), (i % columns) * (w + 1)
        sheet[:, top : top + h, left : left + w] = image
    return sheet


def zoom_for(shape: Shape) -> int:
    """A zoom that shows small images at a legible size."""
    return max(1, round(56 / max(shape[1:])))


def output_folder(path: Path) -> Path:
    """`path` as a folder that can be written, made if need be.

    Raises:
        UserError: it cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise UserError(f"cannot write into {path}: {error.strerror}; choose another --out") from error


def save_animation(frames: Tensor, path: Path, zoom: int, milliseconds: int = 120) -> None:
    """(T, C, H, W) to an endless GIF."""
    pictures = [to_pil(frame, zoom) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)


def read_images(path: Path, shape: Shape) -> tuple[Tensor, list[str]]:
    """Own images, (N, C, H, W) float32 in [0, 1], and their names: a picture, a folder of pictures, or an .npy/.npz array.

    Pictures are converted to the model's channels and resized to its size; arrays must have its shape.

    Raises:
        UserError: nothing is there, a file is no picture, or an array has another shape.
    """
    if path.suffix in (".npy", ".npz"):
        return read_array(path, shape)
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise UserError(f"{path}: no picture there; give a PNG or JPEG, a folder of them, or an .npy or .npz array")
    images = []
    for file in files:
        try:
            picture = Image.open(file).convert("L" if shape[0] == 1 else "RGB").resize((shape[2], shape[1]))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{file}: not a picture that can be read; give PNG or JPEG") from error
        pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)
        images.append(pixels.reshape(shape[1], shape[2], -1).permute(2, 0, 1))
    return torch.stack(images), [file.stem for file in files]


def read_array(path: Path, shape: Shape) -> tuple[Tensor, list[str]]:
    """The first array of an .npy or .npz file, (N, C, H, W) or, of one channel, (N, H, W); uint8 is divided by 255."""
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not a NumPy array that can be read") from error
    images = torch.from_numpy(np.asarray(array, dtype=np.float32)) / (255 if array.dtype == np.uint8 else 1)
    if shape[0] == 1 and images.ndim == 3:
        images = images.unsqueeze(1)
    if tuple(images.shape[1:]) != shape:
        raise UserError(f"{path}: the array is {tuple(array.shape)}; this model takes (N, {', '.join(map(str, shape))})")
    if not bool(images.isfinite().all()):
        raise UserError(f"{path}: the array holds NaN or infinite values; pixels must be finite")
    return images, [f"{i:04d}" for i in range(len(images))]
