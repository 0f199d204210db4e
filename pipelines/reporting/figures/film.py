"""An animation of a chain, which needs no script. It shows the jumps in turn, beside the energy and the class over time.

The page, and each figure's file, define the CSS animation ``film`` (`style.FILM`).
"""

from xml.etree.ElementTree import Element, SubElement

import numpy as np

from pipelines.reporting.figures.images import WIDTH, place, sheet, strip, write
from pipelines.reporting.figures.style import css

SECONDS_A_JUMP = 0.25
SIDE, LEFT, RIGHT = 124.0, 168.0, 366.0  # px: width of the image, left and right end of the panels beside it
TOP, HEIGHT, GAP = 14.0, 62.0, 34.0  # px: top of the first panel, height of a panel, gap between two panels


def film(jumps: np.ndarray, energy: np.ndarray | None, labels: np.ndarray | None) -> Element:
    """Animate the jumps (T, C, H, W) of one chain, with its energy (T,) and class labels (T,) if they are known.

    A label below 0 is unknown.
    """
    count = len(jumps)
    figure = sheet(WIDTH, TOP + 2 * HEIGHT + GAP + 26)
    _frames(figure, jumps)
    panels = [("energy f(y), nats", energy, False), ("class of the jump", labels, True)]
    known = [(name, values, dots) for name, values, dots in panels if values is not None]
    for index, (name, values, dots) in enumerate(known):
        _panel(figure, name, values.astype(float), TOP + index * (HEIGHT + GAP), dots)
    write(figure, f"jumps 1 to {count}", (LEFT + RIGHT) / 2, TOP + len(known) * (HEIGHT + GAP) - 12, 10, "faint", "middle")
    cursor = SubElement(figure, "line", {"x1": f"{LEFT:g}", "x2": f"{LEFT:g}", "y1": f"{TOP:g}", "stroke": css("deen")})
    cursor.attrib |= {"y2": f"{TOP + len(known) * (HEIGHT + GAP) - GAP:g}", "style": _moved(RIGHT - LEFT, count)}
    return figure


def _frames(figure: Element, jumps: np.ndarray) -> None:
    """All jumps side by side. They move past a window that shows one of them."""
    count, _, height, width = jumps.shape
    side = SIDE * height / width
    window = SubElement(figure, "svg", {"y": f"{TOP:g}", "width": f"{SIDE:g}", "height": f"{side:g}"})
    window.set("viewBox", f"0 0 {SIDE:g} {side:g}")
    image = place(window, strip(jumps, gap=0), 0, 0, SIDE * count)
    image.set("style", f"image-rendering:pixelated;{_moved(-SIDE * count, count)}")


def _panel(figure: Element, name: str, values: np.ndarray, top: float, dots: bool) -> None:
    """A quantity along the chain: a line, or dots for classes."""
    known = np.isfinite(values)
    if dots:
        known &= values >= 0
    write(figure, name, LEFT, top - 3, 10, "ink")
    SubElement(figure, "path", {"d": f"M{LEFT:g} {top:g}V{top + HEIGHT:g}H{RIGHT:g}", "stroke": css("faint"), "fill": "none"})
    if not known.any():
        return
    low, high = float(values[known].min()), float(values[known].max())
    x = LEFT + (np.arange(len(values)) + 0.5) / len(values) * (RIGHT - LEFT)
    y = top + HEIGHT - 4 - (values - low) / max(high - low, 1e-9) * (HEIGHT - 8)
    for value, at in {high: top + 7, low: top + HEIGHT}.items():  # one label if both are equal
        write(figure, f"{value:.4g}", LEFT - 4, at, 9, "faint", "end")
    points = [(a, b) for a, b, ok in zip(x, y, known, strict=True) if ok]
    if dots:
        path = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in points)
        SubElement(figure, "path", {"d": path, "stroke": css("uvb"), "stroke-width": "3.4", "stroke-linecap": "round"})
    else:
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        SubElement(figure, "path", {"d": path, "stroke": css("uvb"), "fill": "none", "stroke-width": "1.3"})


def _moved(far: float, count: int) -> str:
    """The style of an element that moves by `far` px in `count` steps."""
    return f"--far:{far:g}px;animation:film {count * SECONDS_A_JUMP:g}s steps({count}) infinite"
