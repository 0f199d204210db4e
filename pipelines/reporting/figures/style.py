"""How figures look: colours with a light and a dark shade, a colour and a marker for each model, matplotlib's settings."""

from functools import cache
from typing import Any

from uvb.models import model_names

# name -> (light, dark). Colours of series have a contrast of 3:1 or more to the page.
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
MARKERS = (  # Vega's names, or those of `_PATHS`
    "circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star", "x", "triangle-left", "triangle-right",
    "pentagon", "hexagon",
)  # fmt: skip
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
FILM = (  # a film (an animated chain) stops under the pointer, and stands still if the system asks for less motion
    "@keyframes film{to{transform:translateX(var(--far))}}svg:hover [style*=film]{animation-play-state:paused!important}"
    "@media(prefers-reduced-motion:reduce){[style*=film]{animation:none!important}}"
)
THEME: Any = {  # matplotlib's settings, for figures of plug-ins
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "image.interpolation", "svg.fonttype"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 9),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8),
    **{"font.family": "DejaVu Sans", "grid.color": GRID, "lines.linewidth": 1.6, "lines.markersize": 4.5},
    "figure.figsize": (5.2, 3.3),  # inches: 374 px, a phone's width, so text is legible there without zooming
    "figure.constrained_layout.use": True,
}


def label(model: str) -> str:
    """A model's name in tables and figures."""
    return _LABELS.get(model, model.replace("_", " "))


def shade(model: str) -> str:
    """The name in `PALETTE` of a model's colour. A model has the same colour in all figures."""
    return _identity(model)[0]


def marker(model: str) -> str:
    """The name in `MARKERS` of a model's marker. No two models have both colour and marker in common."""
    return _identity(model)[1]


def colour(model: str) -> str:
    """A model's colour in the light theme, which MLflow uses."""
    return PALETTE[shade(model)][0]


def css(name: str) -> str:
    """A colour of the palette as a CSS variable of the page."""
    return f"var(--{name.replace('_', '-')})"


def marker_path(name: str) -> str:
    """A marker as Vega takes it: a name or a path."""
    return _PATHS.get(name, name)


def line_colour(line: str) -> str | None:
    """The colour of a line in MLflow's chart over σ, by the line's name: "floor", "nonparametric", or a model in capitals.

    "floor" and "nonparametric" are the losses of the exact posterior mean on training and test images.
    The result is None for other names, such as "paper UVB".
    """
    return {"floor": FAINT, "nonparametric": INK, **{model.upper(): colour(model) for model in KNOWN}}.get(line)


_UNREGISTERED: list[str] = []  # models whose plug-in is gone, in the order in which `_spare_place` saw them


def _identity(model: str) -> tuple[str, str]:
    """A model's colour and marker. Models without a colour of their own get the spare colours, in the order of their names."""
    if model in KNOWN:
        return model, MARKERS[KNOWN.index(model)]
    place = _spare_place(model)
    return SPARE[place % len(SPARE)], MARKERS[(place // len(SPARE)) % len(MARKERS)]


@cache
def _spare_place(model: str) -> int:
    """The model's place among those without a colour. Models whose plug-in is gone come last."""
    others = sorted(name for name in model_names() if name not in KNOWN)
    if model in others:
        return others.index(model)
    _UNREGISTERED.append(model)
    return len(others) + len(_UNREGISTERED) - 1
