"""The energy as a detector of images that are not of the data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pipelines.files.study_files import Model, Result
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import FAINT, INK, MARKERS, colour, label, legend, marker, plot
from pipelines.reporting.numbers import level

Row = Mapping[str, Any]


def draw(lines: Sequence[tuple[str, str, Sequence[Row]]]) -> Figure:
    """AUROC per other set, a line of points for each (name, model or "" for the exact energy, rows of one input)."""
    names = sorted({row["set"] for _, _, rows in lines for row in rows})
    figure, axes = plot(0.9 + 0.42 * len(names))
    for index, (name, model, rows) in enumerate(lines):
        look: dict[str, Any] = {"color": INK, "marker": "x"}
        if model:
            look = {"color": colour(model), "marker": MARKERS[marker(model)]}
        at = [names.index(row["set"]) + 0.16 * (index - (len(lines) - 1) / 2) for row in rows]
        errors = [1.96 * row["stderr"] for row in rows]
        axes.errorbar([row["auroc"] for row in rows], at, xerr=errors, label=name, linestyle="", capsize=2, **look)
    axes.axvline(0.5, color=FAINT, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("AUROC: the share of pairs in which the other image has the higher energy")
    axes.grid(axis="y", visible=False)
    legend(axes)
    return figure


@register("detection", title="Is it in the data?", needs="detection", order=62)
def pictures(study: Study) -> Iterator[Picture]:
    """Noisy and clean images, a picture each, for each data set, σ and seed."""
    groups: dict[tuple[str, float, int], list[tuple[Model, Result]]] = {}
    for model, result in study.files.of_models("detection"):
        groups.setdefault((model.spec.data.name, model.spec.sigma, model.spec.seed), []).append((model, result))
    for (data, sigma, seed), found in groups.items():
        for kind, what in (("noisy", "f(y) of noisy images"), ("clean", "f(x) of clean images")):
            lines = [(label(m.spec.model), m.spec.model, _rows(r, kind, "model")) for m, r in found]
            lines.append(("training set’s exact energy", "", _rows(found[0][1], kind, "exact")))
            caption = (
                f"{data}, σ = {level(sigma)}: {what} against test images, with 95 % intervals. {_failure(lines)}{_gone(found)}"
            )
            yield Picture(f"detection_{kind}_{data}_{sigma:g}_{seed}", caption, draw(lines), f"AUROC of the energy, {kind}")


def _rows(result: Result, kind: str, energy: str) -> list[Row]:
    return [row for row in result.values["rows"] if (row["input"], row["energy"]) == (kind, energy)]


def _failure(lines: Sequence[tuple[str, str, Sequence[Row]]]) -> str:
    """Whether constants count as likely, which is how densities of images are known to fail."""
    constant = [
        (name, row["auroc"], 1.96 * row["stderr"]) for name, _, rows in lines for row in rows if row["set"] == "constants"
    ]
    fooled = [name for name, value, error in constant if value - error <= 0.5]
    if fooled:
        return f"Constants count as at least as likely as test images for: {', '.join(fooled)}."
    return "No energy takes constants for likelier than test images." if constant else ""


def _gone(found: Sequence[tuple[Model, Result]]) -> str:
    absent = sorted({name for _, result in found for name in result.values["absent"]})
    told = [f"{label(m.spec.model)}: {r.values['message']}." for m, r in found if r.values["message"]]
    lines = [f" Not compared with {', '.join(absent)}, which is not on the machine that measured."] if absent else []
    return "".join([*lines, *(f" {line}" for line in told)])
