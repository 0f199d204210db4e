"""What mixing costs: effective samples per 1,000 gradients over the step size, and the cost over σ with a fit."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.files.study_files import Model, Result, order
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import MARKERS, SPARE, label, marker, shade
from pipelines.reporting.numbers import level
from uvb.measure.mixing import power_law

Row = Mapping[str, Any]
Found = Sequence[tuple[Model, Result]]


def draw(rows: Sequence[Row]) -> Chart:
    """Effective samples per 1,000 gradients over δ/σ, a line a sampler and friction."""
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        friction = row["settings"].get("friction")
        kinds.setdefault(row["sampler"].replace("_", " ") + (f", γσ = {friction:g}" if friction else ""), []).append(row)
    series = []
    for index, (name, own) in enumerate(kinds.items()):
        known = [row for row in own if row["ess_per_gradient"] is not None]
        at, found = [row["settings"]["delta"] for row in known], [1000 * row["ess_per_gradient"] for row in known]
        series.append(Series(name, at, found, colour=SPARE[index % len(SPARE)], marker=list(MARKERS)[index % len(MARKERS)]))
    return lines(series, "step size δ, in units of σ", "effective samples per 1,000 gradients")


def draw_cost(found: Found) -> Chart:
    """Gradients per effective sample of the best setting, over σ, and a power law of σ through them."""
    series = []
    for name in dict.fromkeys(model.spec.model for model, _ in found):
        sigmas, costs = _costs(found, name)
        look: dict[str, Any] = {"colour": shade(name), "marker": marker(name)}
        series.append(Series(label(name), sigmas, costs, dash=None, **look))
        if len(sigmas) > 2:
            scale, power, _ = power_law(sigmas, costs)
            series.append(Series(f"{label(name)}, fit", sigmas, [scale * s**power for s in sigmas], colour=shade(name)))
    return lines(series, "σ", "gradients per effective sample", log_y=True)


@register("mixing", title="What mixing costs", paper="Remark 5", needs="mixing", order=56)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model of all settings; and one over σ for each data set and seed."""
    for model, result in study.files.of_models("mixing"):
        values, spec = result.values, model.spec
        left = [f"{row['sampler']} {_said(row['settings'])}: {row['message']}" for row in values["rows"] if row["message"]]
        caption = (
            f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}; {values['chains']} chains of "
            f"{values['gradients']} gradients from Unif[0, 1]ᵈ, along the data’s first three principal components. "
            f"{_best(values)}{' Left out: ' + '; '.join(left) + '.' if left else ''}"
        )
        yield Picture(f"mixing_{spec.spec_id}", caption, draw(values["rows"]), "effective samples over the step size")
    groups: dict[tuple[str, int], list[tuple[Model, Result]]] = {}
    for model, result in study.files.of_models("mixing_over_sigma"):
        groups.setdefault((model.spec.data.name, model.spec.seed), []).append((model, result))
    for (data, seed), found in groups.items():
        found.sort(key=lambda pair: order(pair[0].spec))
        parts = [_fit(found, name) for name in dict.fromkeys(model.spec.model for model, _ in found)]
        caption = f"{data}: gradients for one effective sample by the best setting. {' '.join(parts)}"
        yield Picture(f"mixing_over_sigma_{data}_{seed}", caption, draw_cost(found), "cost of mixing over sigma")


def _costs(found: Found, name: str) -> tuple[list[float], list[float]]:
    own = [
        (m.spec.sigma, 1 / r.values["best"]["ess_per_gradient"]) for m, r in found if m.spec.model == name and r.values["best"]
    ]
    return [sigma for sigma, _ in own], [cost for _, cost in own]


def _fit(found: Found, name: str) -> str:
    """What a power law says of one model's cost, and at which levels no setting mixed."""
    sigmas, costs = _costs(found, name)
    stuck = [level(m.spec.sigma) for m, r in found if m.spec.model == name and not r.values["best"]]
    said = f"{label(name)}: no setting reached R̂ < 1.05 at σ = {', '.join(stuck)}." if stuck else ""
    if len(sigmas) > 2:
        _, power, error = power_law(sigmas, costs)
        said = f"{label(name)}: cost grows as σ to the power {power:.1f} ± {error:.1f}. {said}"
    return said.strip()


def _best(values: Mapping[str, Any]) -> str:
    best = values["best"]
    if best is None:
        return "No setting reached R̂ < 1.05."
    paper = next((r for r in values["rows"] if (r["sampler"], r["settings"]) == ("langevin", {"delta": 0.2})), None)
    cost = f"one effective sample in {1 / best['ess_per_gradient']:.0f} gradients"
    said = f"Best: {best['sampler']} with {_said(best['settings'])}, {cost}"
    if paper and paper["ess_per_gradient"]:
        return f"{said}; the paper’s walk takes {1 / paper['ess_per_gradient']:.0f}."
    return f"{said}; the paper’s walk had not mixed ({paper['message']})." if paper else f"{said}."


def _said(settings: Mapping[str, float]) -> str:
    names = {"delta": "δ/σ", "friction": "γσ", "leapfrogs": "leapfrogs"}
    return ", ".join(f"{names.get(name, name)} = {value:g}" for name, value in settings.items())
