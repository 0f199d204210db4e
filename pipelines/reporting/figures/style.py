"""How figures look: colours with a light and a dark shade, a colour and a marker for each model, matplotlib's settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import matplotlib
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from uvb.models import model_names

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
    "spare_4": ("#9c3848", "#f2949f"),
    "spare_5": ("#3f5e9e", "#9bb4ef"),
    "spare_6": ("#5f7a2f", "#b6d07c"),
}
INK, FAINT, GRID = (PALETTE[name][0] for name in ("ink", "faint", "grid"))
KNOWN = tuple(name for name in PALETTE if not name.startswith(("ink", "faint", "grid", "spare")))
SPARE = tuple(name for name in PALETTE if name.startswith("spare"))
# Vega's name of a marker, or its path -> matplotlib's
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "star": "*",
    "x": "X",
    "triangle-left": "<",
    "triangle-right": ">",
    "pentagon": "p",
    "hexagon": "h",
}
_PATHS = {
    "star": "M0,-1L.23,-.32H.95L.37,.12L.59,.81L0,.39L-.59,.81L-.37,.12L-.95,-.32H-.23Z",
    "x": "M-.8,-.5L-.5,-.8L0,-.3L.5,-.8L.8,-.5L.3,0L.8,.5L.5,.8L0,.3L-.5,.8L-.8,.5L-.3,0Z",
    "pentagon": "M0,-.9L.86,-.28L.53,.73H-.53L-.86,-.28Z",
    "hexagon": "M0,-.9L.78,-.45V.45L0,.9L-.78,.45V-.45Z",
}
_LABELS = {
    "uvb": "UVB",
    "deen": "DEEN",
    "vae": "VAE on Y",
    "sigma_vae": "σ-VAE",
    "uvb_laplace": "UVB, Laplace b = σ",
    "uvb_laplace_matched": "UVB, Laplace b = σ/√2",
    "uvb_mean": "UVB, z = μ",
}
FILM = (  # of `film`: what moves rests under the pointer, and where less motion is wanted
    "@keyframes film{to{transform:translateX(var(--far))}}svg:hover [style*=film]{animation-play-state:paused!important}"
    "@media(prefers-reduced-motion:reduce){[style*=film]{animation:none!important}}"
)
WIDTH = 5.2  # inches: 374 px, a phone's width, so text is legible there without zooming


def label(model: str) -> str:
    """How a model is called in print."""
    return _LABELS.get(model, model.replace("_", " "))


def shade(model: str) -> str:
    """The palette's name of a model's colour, always the same one."""
    return _identity(model)[0]


def marker(model: str) -> str:
    """The name in `MARKERS` of a model's marker. No two models have both colour and marker in common."""
    return _identity(model)[1]


def colour(model: str) -> str:
    """A model's colour in the light theme, as matplotlib and MLflow take it."""
    return PALETTE[shade(model)][0]


def css(name: str) -> str:
    """A colour of the palette as the page's variable."""
    return f"var(--{name.replace('_', '-')})"


def marker_path(name: str) -> str:
    """A marker as Vega takes it: a name or a path."""
    return _PATHS.get(name, name)


def line_colour(line: str) -> str | None:
    """The colour of a line of MLflow's chart over σ, a model's or an exact reference's; None for one of several of a kind."""
    return {"floor": FAINT, "nonparametric": INK, **{model.upper(): colour(model) for model in KNOWN}}.get(line)


def _identity(model: str) -> tuple[str, str]:
    """Colour and marker. Models without a colour of their own take the spare ones in the order of their names."""
    markers = list(MARKERS)
    if model in KNOWN:
        return model, markers[KNOWN.index(model)]
    place = _spare_place(model)
    return SPARE[place % len(SPARE)], markers[(place // len(SPARE)) % len(markers)]


@cache
def _spare_place(model: str) -> int:
    """The model's place among those without a colour. One that is not registered, as its plug-in is gone, comes after."""
    others = sorted(name for name in model_names() if name not in KNOWN)
    if model in others:
        return others.index(model)
    _UNREGISTERED.append(model)
    return len(others) + len(_UNREGISTERED) - 1


_UNREGISTERED: list[str] = []


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
