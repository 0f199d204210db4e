"""How figures look: one palette with a light and a dark shade of each colour, and SVG that follows its page.

Figures are drawn in the light shades. `to_svg` replaces each with a CSS variable, so that one file serves both themes.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

# name -> (light, dark). Series colours keep a contrast of 3:1 or better on their page; each is told apart by marker too.
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#24242b", "#dcdce4"),
    "faint": ("#8a8a95", "#8d8d9a"),
    "grid": ("#e4e3e8", "#33333d"),
    "uvb": ("#5b3cc4", "#a996ff"),
    "deen": ("#c2571a", "#f29b5c"),
    "vae": ("#1d7f5f", "#55c79c"),
    "sigma_vae": ("#1f6fb4", "#6bb8ee"),
    "uvb_laplace": ("#a8327a", "#ec7fbe"),
    "uvb_laplace_matched": ("#c45a9b", "#f5a8d3"),
    "uvb_mean": ("#7a6a00", "#d6c24a"),
    "direct": ("#3d6b1f", "#96cc66"),
    "autoencoder": ("#8a3b3b", "#e58f8f"),
    "spare_1": ("#4a5568", "#a3b1c6"),
    "spare_2": ("#006d77", "#5cc5cd"),
    "spare_3": ("#6b4f3a", "#cfa98a"),
}
INK, FAINT, GRID = (PALETTE[name][0] for name in ("ink", "faint", "grid"))
_MARKERS = "osD^vP*X<>ph"
_LABELS = {
    "uvb": "UVB",
    "deen": "DEEN",
    "vae": "VAE on Y",
    "sigma_vae": "σ-VAE",
    "uvb_laplace": "UVB, Laplace b = σ",
    "uvb_laplace_matched": "UVB, Laplace b = σ/√2",
    "uvb_mean": "UVB, z = μ",
}
WIDTH = 5.2  # inches: 374 px, a phone's width, so text is legible there without zooming


def label(model: str) -> str:
    """How a model is called in print."""
    return _LABELS.get(model, model.replace("_", " "))


def colour(model: str) -> str:
    """A model's colour, always the same one."""
    if model in PALETTE:
        return PALETTE[model][0]
    return PALETTE[f"spare_{1 + sum(map(ord, model)) % 3}"][0]


def line_colour(line: str) -> str | None:
    """The colour of a line of MLflow's chart over σ, a model's or an exact reference's; None for one of several of a kind."""
    return {"floor": FAINT, "nonparametric": INK, **{model.upper(): colour(model) for model in PALETTE}}.get(line)


def marker(model: str) -> str:
    """A model's marker, so that colour alone never tells two lines apart."""
    known = [name for name in PALETTE if not name.startswith(("ink", "faint", "grid", "spare"))]
    return _MARKERS[known.index(model)] if model in known else _MARKERS[9 + sum(map(ord, model)) % 3]


@contextmanager
def theme() -> Iterator[None]:
    """matplotlib's settings while a figure is made and saved; drawn without pyplot, so no figure outlives its use."""
    with matplotlib.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "axes.labelsize": 9,
            "axes.edgecolor": FAINT,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "figure.facecolor": "none",
            "text.color": INK,
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "lines.markersize": 4.5,
            "svg.fonttype": "none",
            "image.interpolation": "none",
        }
    ):
        yield


def plot(height: float = 3.3, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def legend(axes: Axes, **kwargs: object) -> None:
    """A legend above the axes, where it covers nothing."""
    # Models, which have error bars, come before the paper's lines and the references.
    found = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda e: not isinstance(e[0], ErrorbarContainer))
    handles, labels = [handle for handle, _ in found], [name for _, name in found]
    if handles:
        axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(3, len(labels)), borderaxespad=0.2,
            handlelength=1.9, columnspacing=1.4, **kwargs,
        )  # fmt: skip


def rows_of_images(rows: Sequence[tuple[str, np.ndarray]], per_line: int = 12) -> Figure:
    """Labelled rows of images, one under the other, each label above its row.

    Args:
        rows: (label, images (N, C, H, W) in [0, 1]; values outside are clipped for display).
        per_line: at most this many images of each row are shown.
    """
    count = min(per_line, min(len(images) for _, images in rows))
    _, _, height, width = rows[0][1].shape
    image, text = WIDTH * count / per_line / count * height / width, 0.21  # inches
    line = image + text + 0.05
    total = len(rows) * line
    figure = Figure(figsize=(WIDTH, total))
    for index, (name, images) in enumerate(rows):
        top = total - index * line
        figure.text(0.0, (top - 0.15) / total, name, fontsize=8.5, va="baseline", color=INK)
        axes = figure.add_axes((0.0, (top - text - image) / total, count / per_line, image / total))
        show(axes, strip(images[:count]))
    return figure


def show(axes: Axes, canvas: np.ndarray) -> None:
    """An RGBA canvas (H, W, 4) in [0, 1], every pixel a square that stays sharp when enlarged."""
    axes.imshow(np.round(canvas * 255).astype(np.uint8), aspect="auto", interpolation="none")
    axes.set_axis_off()


def strip(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Images (N, C, H, W) side by side with a transparent gap: (H, N (W + gap) - gap, 4), RGBA in [0, 1]."""
    count, channels, height, width = images.shape
    canvas = np.zeros((height, count * (width + gap) - gap, 4), np.float32)
    for i, image in enumerate(np.clip(np.nan_to_num(images), 0, 1)):
        left = i * (width + gap)
        canvas[:, left : left + width, :3] = image.transpose(1, 2, 0) if channels == 3 else image.mean(0)[..., None]
        canvas[:, left : left + width, 3] = 1
    return canvas


def grid(images: np.ndarray, columns: int = 10, gap: int = 1) -> np.ndarray:
    """Images (N, C, H, W) in a grid, transparent between: RGBA in [0, 1]."""
    height, lines = images.shape[2], -(-len(images) // columns)
    columns = min(columns, len(images))
    canvas = np.zeros((lines * (height + gap) - gap, columns * (images.shape[3] + gap) - gap, 4), np.float32)
    for line in range(lines):
        row = strip(images[line * columns : (line + 1) * columns], gap)
        canvas[line * (height + gap) : line * (height + gap) + height, : row.shape[1]] = row
    return canvas


def to_svg(figure: Figure, name: str, alt: str = "") -> str:
    """The figure as an SVG element: no size of its own, ids unique by `name`, colours that follow the page's theme."""
    buffer = io.StringIO()
    with theme(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(?<=[\s"])id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    for colour_name, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{colour_name.replace('_', '-')}, {light})")
    svg = re.sub(r"'DejaVu Sans'(, [^;\"]+)?|DejaVu Sans(?=[;\"])", "inherit-font", svg)
    svg = svg.replace("inherit-font", "var(--font, 'DejaVu Sans', sans-serif)")
    width = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    label_text = _escape(alt or name)
    # At most 1.45 times its size in points, so that text is of one size in all figures of a wide page.
    size = f' style="max-width:{1.45 * float(width.group(1)):.0f}px"' if width else ""
    head = f'<svg role="img" aria-label="{label_text}"{size}'
    svg = re.sub(r'(<svg[^>]*?) width="[^"]+pt"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]+pt"', r"\1", svg, count=1)
    return svg.replace("<svg", head, 1).strip()


def standalone(svg: str) -> str:
    """An SVG element as a file: it brings the colours of both themes with it."""
    light, dark = variables()
    css = (
        f"svg{{{light};background:#fff;color:{PALETTE['ink'][0]}}}"
        f"@media(prefers-color-scheme:dark){{svg{{{dark};background:#16161b;color:{PALETTE['ink'][1]}}}}}"
    )
    head, rest = svg.split(">", 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}><style>{css}</style>{rest}\n'


def variables() -> tuple[str, str]:
    """CSS declarations of the palette: (light, dark)."""
    light, dark = (";".join(f"--{name.replace('_', '-')}:{shades[i]}" for name, shades in PALETTE.items()) for i in (0, 1))
    return light, dark


def file_name(text: str) -> str:
    """Text as a file's name and an element's id: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "figure"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
