"""Training curves at the largest sigma: the loss on both splits, their gap, and the encoder's KL, over epochs."""

from collections import Counter
from collections.abc import Collection, Iterator
from operator import attrgetter

import pandas as pd

from pipelines.files.study_files import Model, order
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, lines, of_model
from pipelines.reporting.figures.style import marker
from pipelines.reporting.numbers import level
from uvb.training.objectives import OBJECTIVES

FEW = 20  # a curve with at most this many epochs has a marker at each
CONDITION = attrgetter("spec.recipe", "spec.activation", "spec.data")  # what the models of a figure share

Curve = tuple[Model, pd.DataFrame]


def draw(curves: list[Curve], value: str, name: str, beside: str | None = None) -> Chart:
    """The columns `value` (solid) and `beside` (dashed) of each model over epochs. A single epoch is drawn as a point."""
    models = [model.spec.model for model, _ in curves]
    series = []
    for model, rows in curves:
        kind = model.spec.model
        widths = f", {model.spec.widths}" if models.count(kind) > 1 else ""
        for column, suffix, dash in ((value, "", ()), (beside, ", training", (4, 3))):
            if column is not None:
                known = rows.dropna(subset=[column])
                mark = marker(kind) if len(known) <= FEW and not dash else ""
                points = known["epoch"].astype(float), known[column].astype(float)
                series.append(of_model(kind, *points, what=f"{widths}{suffix}", marker=mark, dash=dash))
    values = pd.concat([rows[value].dropna() for _, rows in curves])
    log = bool(len(values) and values.min() > 0 and values.max() > 4 * values.min())
    return lines(series, "epoch", name, log_y=log, whole=True, height=160)


@register("curves", title="Training", paper="Sec. 3.1.1", needs="training curves", order=30)
def pictures(study: Study) -> Iterator[Picture]:
    """For each data set and objective, the losses and their gap. For each data set, the KL of models with a latent."""
    curves = dict(list(study.tables["curves"].groupby("spec_id")))
    chosen = _chosen(list(study.files.models.values()), set(curves), study.files.asked)
    for dataset, models in chosen.items():
        own = [(m, curves[m.spec_id]) for m in models]
        at = f"{dataset}, σ = {level(models[0].spec.sigma)}."
        for objective in sorted({m.spec.objective for m in models}):  # squared errors and nats do not fit on one axis
            some = [(m, rows) for m, rows in own if m.spec.objective == objective]
            name = OBJECTIVES.get(objective).unit
            caption = f"{at} Solid: test loss on a fixed subset of the test set. Dashed: training loss, mean over the epoch."
            suffix = "" if objective == "denoise" else f"_{objective}"
            yield Picture(f"curves_{dataset}{suffix}", caption, draw(some, "test_loss", name, "train_loss"), "loss over epochs")
            gaps = [(m, rows.assign(gap=rows["test_loss"] - rows["train_probe"])) for m, rows in some]
            if any(rows["gap"].notna().any() for _, rows in gaps):
                caption = (
                    f"{at} Test loss minus training loss. Both are computed with the averaged weights, on fixed images of "
                    "each split with the same noise. The gap's size depends mostly on the choice of these images, so look "
                    "at its trend."
                )
                yield Picture(f"gap_{dataset}{suffix}", caption, draw(gaps, "gap", f"gap of the {name}"), "gap over epochs")
        latent = [(m, rows) for m, rows in own if rows["kl"].notna().any()]
        if latent:
            caption = f"{at} KL[q(z|y), p(z)], mean over the fixed subset of the test set (Eq. 15)."
            yield Picture(f"kl_{dataset}", caption, draw(latent, "kl", "KL, nats"), "KL over epochs")


def _chosen(models: list[Model], measured: set[str], asked: Collection[str]) -> dict[str, list[Model]]:
    """The models to draw for each data set: those of the largest sigma, its most frequent condition, and the first seed."""
    found: dict[str, list[Model]] = {}
    for model in sorted((m for m in models if m.spec_id in measured), key=lambda m: order(m.spec)):
        found.setdefault(model.spec.data.name, []).append(model)
    for dataset, group in found.items():
        pool = [m for m in group if m.spec_id in asked] or group
        largest = max(m.spec.sigma for m in pool)
        pool = [m for m in pool if m.spec.sigma == largest]
        trained = Counter(map(CONDITION, pool))
        main = max(trained, key=lambda condition: (trained[condition], condition[0].epochs))  # ties go to more epochs
        own = [m for m in pool if CONDITION(m) == main]
        first = min(m.spec.seed for m in own)
        found[dataset] = [m for m in own if m.spec.seed == first]
    return found
