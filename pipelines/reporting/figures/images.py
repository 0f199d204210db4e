"""Rows and grids of images as SVG, in which each pixel is a sharp square."""

import base64
import io
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from PIL import Image

from pipelines.reporting.figures.style import css

WIDTH = 374.0  # px: a phone's width, so text is legible there without zooming


def sheet(width: float, height: float) -> Element:
    """An empty SVG of this size in px, for `place` and `write`."""
    return Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height:g}"})


def place(on: Element, canvas: np.ndarray, x: float, y: float, width: float) -> Element:
    """Put an RGBA canvas (H, W, 4) in [0, 1] on a sheet, `width` px wide. Its pixels stay square."""
    file = io.BytesIO()
    Image.fromarray(np.round(canvas * 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    data = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    size = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{width * canvas.shape[0] / canvas.shape[1]:g}"}
    return SubElement(on, "image", {**size, "href": data, "style": "image-rendering:pixelated"})


def write(on: Element, text: str, x: float, y: float, size: float = 11, colour: str = "ink", anchor: str = "start") -> Element:
    """Put a line of text on a sheet, with its baseline at y."""
    where = {"x": f"{x:g}", "y": f"{y:g}", "font-size": f"{size:g}", "text-anchor": anchor, "fill": css(colour)}
    line = SubElement(on, "text", where)
    line.text = text
    return line


def rows_of_images(rows: Sequence[tuple[str, np.ndarray]], per_line: int = 12) -> Element:
    """Rows of images one below the other, each with its label above it.

    Args:
        rows: (label, images (N, C, H, W) in [0, 1]; values outside are clipped for display).
        per_line: at most this many images of each row are shown.
    """
    count = min(per_line, *(len(images) for _, images in rows))
    strips = [(name, strip(images[:count])) for name, images in rows]
    tall, wide, _ = strips[0][1].shape  # in pixels of the images
    width = WIDTH * wide / _strip_width(per_line, rows[0][1].shape[3])
    height = width * tall / wide
    line = height + 21
    figure = sheet(WIDTH, len(rows) * line)
    for index, (name, canvas) in enumerate(strips):
        write(figure, name, 0, index * line + 12)
        place(figure, canvas, 0, index * line + 17, width)
    return figure


def grid_of_images(images: np.ndarray, labels: Sequence[str] = (), columns: int = 10) -> Element:
    """Images (N, C, H, W) in reading order, each with its label below it."""
    step = WIDTH / columns
    lines = -(-len(images) // columns)
    height = step * images.shape[2] / images.shape[3] + (13 if labels else 0)
    figure = sheet(WIDTH, lines * height)
    for line in range(lines):
        row = images[line * columns : (line + 1) * columns]
        canvas = strip(row)
        place(figure, canvas, 0, line * height, WIDTH * canvas.shape[1] / _strip_width(columns, images.shape[3]))
        for i, text in enumerate(labels[line * columns : line * columns + len(row)]):
            write(figure, text, (i + 0.5) * step, (line + 1) * height - 3, 9, "faint", "middle")
    return figure


def scaled(images: np.ndarray) -> tuple[np.ndarray, float]:
    """Multiply images by a factor, so that their largest value is 1. Return the images and the factor."""
    largest = max(float(images.max()), 1e-12)
    return images / largest, 1 / largest


def strip(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images (N, C, H, W) side by side with a transparent gap: (H, N (W + gap) - gap, 4), RGBA in [0, 1]."""
    count, channels, height, width = images.shape
    canvas = np.zeros((height, _strip_width(count, width, gap), 4), np.float32)
    for i, image in enumerate(np.clip(np.nan_to_num(images), 0, 1)):
        left = i * (width + gap)
        canvas[:, left : left + width, :3] = image.transpose(1, 2, 0) if channels == 3 else image.mean(0)[..., None]
        canvas[:, left : left + width, 3] = 1
    return canvas


def _strip_width(count: int, width: int, gap: int = 1) -> int:
    return count * (width + gap) - gap
