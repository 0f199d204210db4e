"""The energy as a detector of images that do not belong to the data set."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.files.study_files import Result
from pipelines.reporting.figures import Found, Picture, Study, register
from pipelines.reporting.figures.chart import WIDTH, Chart, rounded
from pipelines.reporting.figures.style import css, label, marker, marker_path, shade
from pipelines.reporting.numbers import level

Row = Mapping[str, Any]
Lines = Sequence[tuple[str, str, Sequence[Row]]]


def draw(lines: Lines) -> Chart:
    """The AUROC of test images against every other set of images, with 95 % intervals.

    Args:
        lines: (name, model, rows) for each energy. The model is "" for the exact energy.
    """
    values = [
        {"energy": name, "set": row["set"], "auroc": rounded(row["auroc"]),
         "low": rounded(row["auroc"] - 1.96 * row["stderr"]), "high": rounded(row["auroc"] + 1.96 * row["stderr"])}
        for name, _, rows in lines
        for row in rows
    ]  # fmt: skip
    looks = {name: (css(shade(model)), marker_path(marker(model))) if model else (css("ink"), marker_path("x"))
             for name, model, _ in lines}  # fmt: skip
    colours = [colour for colour, _ in looks.values()]
    shapes = [path for _, path in looks.values()]

    def scale(values: list[str]) -> dict[str, Any]:
        return {"field": "energy", "title": None, "scale": {"domain": list(looks), "range": values}}

    x = {"type": "quantitative", "title": "AUROC: how often the other image has the higher energy", "scale": {"domain": [0, 1]}}
    places = {"y": {"field": "set", "title": None}, "yOffset": {"field": "energy"}, "color": scale(colours)}
    ends = [{"field": end, "title": word, "format": ".3f"} for end, word in (("low", "from"), ("high", "to"))]
    tooltip = [{"field": "energy", "title": " "}, {"field": "set"}, {"field": "auroc", "format": ".3f"}, *ends]
    chance = {"mark": {"type": "rule", "color": css("faint"), "strokeDash": [4, 3]}, "encoding": {"x": {"datum": 0.5}}}
    bars = {"mark": {"type": "rule", "clip": True}, "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, **places}}
    mark = {"type": "point", "filled": True, "size": 42, "opacity": 1}
    points = {"mark": mark, "encoding": {"x": {**x, "field": "auroc"}, "shape": scale(shapes), "tooltip": tooltip, **places}}
    return Chart({"width": WIDTH - 40, "height": {"step": 14}, "data": {"values": values}, "layer": [chance, bars, points]})


@register("detection", title="Detection of unusual images", needs="detection", order=62)
def pictures(study: Study) -> Iterator[Picture]:
    """Two pictures for each data set, σ and seed: one of noisy images, one of clean images."""
    groups: dict[tuple[str, float, int], Found] = {}
    for model, result in study.of_models("detection"):
        groups.setdefault((model.spec.data.name, model.spec.sigma, model.spec.seed), []).append((model, result))
    for (data, sigma, seed), found in groups.items():
        for kind, what in (("noisy", "energy f(y)"), ("clean", "energy f(x)")):
            lines = [(label(m.spec.model), m.spec.model, _rows(r, kind, "model")) for m, r in found]
            lines.append(("training set’s exact energy", "", _rows(found[0][1], kind, "exact")))
            caption = (
                f"{data}, σ = {level(sigma)}. How often a {kind} image of another set has a higher {what} than a {kind} test "
                f"image (AUROC), with 95 % intervals. "
                f"{_failure(lines)}{_gone(found)}"
            )
            yield Picture(f"detection_{kind}_{data}_{sigma:g}_{seed}", caption, draw(lines), f"AUROC of the energy, {kind}")


def _rows(result: Result, kind: str, energy: str) -> list[Row]:
    return [row for row in result.values["rows"] if (row["input"], row["energy"]) == (kind, energy)]


def _failure(lines: Lines) -> str:
    """A sentence on constant images, which many learned densities of images wrongly find likely."""
    constant = [(name, row) for name, _, rows in lines for row in rows if row["set"] == "constants"]
    fooled = [name for name, row in constant if row["auroc"] - 1.96 * row["stderr"] <= 0.5]
    if fooled:
        return f"Constant images may be as likely as test images, or likelier, under: {', '.join(fooled)}."
    return "Constant images are less likely than test images under every energy." if constant else ""


def _gone(found: Found) -> str:
    """Sentences on data sets that were not there, and on energies without a finite value."""
    absent = sorted({name for _, result in found for name in result.values["absent"]})
    told = [f" {label(m.spec.model)}: {r.values['message']}." for m, r in found if r.values["message"]]
    missing = f" Not compared with {', '.join(absent)}: the machine that measured did not have this data." if absent else ""
    return missing + "".join(told)
