"""Make pictures, grids and animations of images, and the folder for them."""

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from uvb.atomic import replacing
from uvb.errors import UserError
from uvb.spec import Shape

CHANNELS_OF_PICTURES = (1, 3)  # grey and colour; images may have other numbers of channels
OVERVIEW = 280  # pixels: an overview of few images is enlarged to about this width


def to_pil(image: Tensor, zoom: int = 1) -> Image.Image:
    """Convert an image (C, H, W), clipped to [0, 1], to a picture. Each pixel becomes `zoom` pixels wide and high."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def grid(images: Tensor, columns: int) -> Tensor:
    """Join images (N, C, H, W) into one, with `columns` images per row, in reading order, one pixel apart."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    sheet = torch.ones(c, rows * (h + 1) - 1, columns * (w + 1) - 1)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + 1), (i % columns) * (w + 1)
        sheet[:, top : top + h, left : left + w] = image
    return sheet


def zoom_for(shape: Shape) -> int:
    """A whole factor that enlarges small images to about 56 pixels, a legible size."""
    return max(1, round(56 / max(shape[1:])))


def output_folder(path: Path, files: Iterable[str] = (), given: Path | None = None) -> Path:
    """Make the folder `path` if it is absent, and return it.

    Args:
        files: the names of all files that will be written into the folder.
        given: the user's input, a file or a folder of files.

    Raises:
        UserError: one of `files` is an input, or the folder cannot be made or written.
    """
    inputs = set() if given is None else {os.path.realpath(each) for each in (given, *given.glob("*"))}
    for file in files:
        if os.path.realpath(path / file) in inputs:
            raise UserError(f"{path / file} is an input and would be overwritten; choose another --out")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise UserError(f"cannot write into {path}: {error.strerror}; choose another --out") from error


def put(path: Path, write: Callable[[Path], object]) -> None:
    """Write the file `path` with the function `write`, whole or not at all, and print the path."""
    with replacing(path, durable=False) as temporary:
        write(temporary)
    print(path)


def put_overview(rows: dict[str, Tensor], path: Path) -> None:
    """Write a picture with a row for each value (N, C, H, W) of `rows`. Print its path and the names of its rows.

    Only the first 20 images of each row are shown.
    """
    columns = min(20, *map(len, rows.values()))
    c, h, w = next(iter(rows.values())).shape[1:]
    sheet = grid(torch.cat([images[:columns] for images in rows.values()]), columns)
    put(path, to_pil(sheet, max(zoom_for((c, h, w)), OVERVIEW // (columns * max(h, w)))).save)
    print(f"its rows: {', '.join(rows)}")


def save_animation(frames: Tensor, path: Path, zoom: int) -> None:
    """Write frames (T, C, H, W) as an endless GIF, 120 ms each."""
    pictures = [to_pil(frame, zoom) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=120, loop=0)
