"""The cost of mixing: effective samples per 1,000 gradients over the step size, gradients per effective sample over σ."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.reporting.figures import Found, Picture, Study, named, register
from pipelines.reporting.figures.chart import Chart, Series, lines, of_model
from pipelines.reporting.figures.style import MARKERS, SPARE, label
from pipelines.reporting.numbers import level
from uvb.experiments.mixing import CONVERGED
from uvb.measure.mixing import power_law

Row = Mapping[str, Any]
Costs = dict[str, dict[float, float | None]]  # model -> σ -> gradients per effective sample of the best setting


def draw(rows: Sequence[Row]) -> Chart:
    """Effective samples per 1,000 gradients over δ/σ, with a line for each sampler and friction."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        friction = row["settings"].get("friction")
        kind = row["sampler"].replace("_", " ") + (f", γσ = {friction:g}" if friction else "")
        points = kinds.setdefault(kind, [])
        if row["ess_per_gradient"] is not None:
            points.append((row["settings"]["delta"], 1000 * row["ess_per_gradient"]))
    series = []
    for index, (name, points) in enumerate(kinds.items()):
        x, y = [delta for delta, _ in points], [samples for _, samples in points]
        series.append(Series(name, x, y, colour=SPARE[index % len(SPARE)], marker=MARKERS[index % len(MARKERS)]))
    return lines(series, "step size δ, in units of σ", "effective samples per 1,000 gradients")


def draw_cost(costs: Costs) -> Chart:
    """Gradients per effective sample of the best setting, over σ, and a power law of σ through them."""
    series = []
    for model, known in _known(costs):
        series.append(of_model(model, list(known), list(known.values()), dash=None))
        if len(known) > 2:
            scale, power, _ = power_law(list(known), list(known.values()))
            fitted = [scale * sigma**power for sigma in known]
            series.append(of_model(model, list(known), fitted, what=", fit", marker=""))
    return lines(series, "σ", "gradients per effective sample", log_y=True)


@register("mixing", title="What mixing costs", paper="Remark 5", needs="mixing", order=56)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture of all settings for each model, and one over σ for each data set and seed."""
    for model, result in study.of_models("mixing"):
        values = result.values
        left = [f"{row['sampler']} {_said(row['settings'])}: {row['message']}" for row in values["rows"] if row["message"]]
        left_out = f" Left out: {'; '.join(left)}." if left else ""
        caption = (
            f"{named(model.spec)}; {values['chains']} chains of {values['gradients']} gradients from Unif[0, 1]ᵈ, measured "
            f"along the data’s first three principal components. {_best(values)}{left_out}"
        )
        yield Picture(f"mixing_{model.spec_id}", caption, draw(values["rows"]), "effective samples over the step size")
    for data, seed, found in study.by_data("mixing_over_sigma"):
        costs = _costs(found)
        caption = f"{data}: gradients for one effective sample with the best setting. {' '.join(_fits(costs))}"
        yield Picture(f"mixing_over_sigma_{data}_{seed}", caption, draw_cost(costs), "cost of mixing over sigma")


def _costs(found: Found) -> Costs:
    costs: Costs = {}
    for model, result in found:
        best = result.values["best"]
        costs.setdefault(model.spec.model, {})[model.spec.sigma] = 1 / best["ess_per_gradient"] if best else None
    return costs


def _known(costs: Costs) -> Iterator[tuple[str, dict[float, float]]]:
    """The costs at the noise levels at which some setting mixed."""
    for model, own in costs.items():
        yield model, {sigma: cost for sigma, cost in own.items() if cost is not None}


def _fits(costs: Costs) -> Iterator[str]:
    """For each model: how its cost grows, and the noise levels at which no setting mixed."""
    for model, known in _known(costs):
        said = []
        if len(known) > 2:
            _, power, error = power_law(list(known), list(known.values()))
            said.append(f"{label(model)}: the cost of one effective sample grows as σ to the power {power:.1f} ± {error:.1f}.")
        if stuck := [level(sigma) for sigma in costs[model] if sigma not in known]:
            said.append(f"{label(model)}: no setting reached R̂ < {CONVERGED} at σ = {', '.join(stuck)}.")
        yield " ".join(said)


def _best(values: Mapping[str, Any]) -> str:
    best = values["best"]
    if best is None:
        return f"No setting reached R̂ < {CONVERGED}."
    paper = next((row for row in values["rows"] if (row["sampler"], row["settings"]) == ("langevin", {"delta": 0.2})), None)
    cost = f"one effective sample in {1 / best['ess_per_gradient']:.0f} gradients"
    said = f"Best setting: {best['sampler']} with {_said(best['settings'])}, {cost}"
    if paper and paper["ess_per_gradient"]:
        return f"{said}; the paper’s walk takes {1 / paper['ess_per_gradient']:.0f}."
    return f"{said}; the paper’s walk had not mixed ({paper['message']})." if paper else f"{said}."


def _said(settings: Mapping[str, float]) -> str:
    names = {"delta": "δ/σ", "friction": "γσ", "leapfrogs": "leapfrogs"}
    return ", ".join(f"{names.get(name, name)} = {value:g}" for name, value in settings.items())
