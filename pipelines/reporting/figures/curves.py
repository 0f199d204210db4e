"""Training curves at the largest sigma: the loss on both splits, their gap, and the encoder's KL, over epochs."""

from collections.abc import Collection, Iterator

import pandas as pd
from matplotlib.figure import Figure

from pipelines.files.study_files import Model, order
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import colour, label, legend, plot
from pipelines.reporting.headlines import level
from uvb.training.objectives import OBJECTIVES


def draw(curves: list[tuple[str, pd.DataFrame]], value: str, name: str, beside: str | None = None) -> Figure:
    """`value` over epochs for each (model, its curve), and `beside` as a thin dashed line."""
    figure, axes = plot(2.9)
    seen: set[str] = set()
    for model, rows in curves:
        known = rows.dropna(subset=[value])
        axes.plot(known["epoch"], known[value], color=colour(model), label=None if model in seen else label(model))
        seen.add(model)
        if beside:
            known = rows.dropna(subset=[beside])
            axes.plot(known["epoch"], known[beside], color=colour(model), linestyle="--", linewidth=0.9)
    values = pd.concat([rows[value].dropna() for _, rows in curves])
    if len(values) and values.min() > 0 and values.max() > 4 * values.min():
        axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    legend(axes)
    return figure


@register("curves", title="Training", paper="Sec. 3.1.1", needs="training curves", order=30)
def pictures(study: Study) -> Iterator[Picture]:
    """A data set's losses, a picture an objective, and the KL where models have a latent."""
    curves = dict(list(study.tables["curves"].groupby("spec_id")))
    chosen = _chosen(list(study.files.models.values()), set(curves), study.files.asked)
    for dataset, models in chosen.items():
        own = [(m.spec.model, curves[m.spec_id]) for m in models]
        sigma = models[0].spec.sigma
        for objective in sorted({m.spec.objective for m in models}):  # least squares and nats do not share an axis
            some = [(m.spec.model, curves[m.spec_id]) for m in models if m.spec.objective == objective]
            name = OBJECTIVES[objective].unit
            caption = f"{dataset}, σ = {level(sigma)}. Test loss on a fixed subset; dashed: training loss, mean over the epoch."
            suffix = "" if objective == "denoise" else f"_{objective}"
            yield Picture(f"curves_{dataset}{suffix}", caption, draw(some, "test_loss", name, "train_loss"), "loss over epochs")
            gaps = [(model, rows.assign(gap=rows["test_loss"] - rows["train_probe"])) for model, rows in some]
            if any(rows["gap"].notna().any() for _, rows in gaps):
                caption = (
                    f"{dataset}, σ = {level(sigma)}. Test less training loss, both of the averaged weights, on fixed "
                    "images of either split with the same noise. Its height is mostly which images they are; its trend tells."
                )
                yield Picture(f"gap_{dataset}{suffix}", caption, draw(gaps, "gap", f"gap of the {name}"), "gap over epochs")
        latent = [(model, rows) for model, rows in own if rows["kl"].notna().any()]
        if latent:
            caption = f"{dataset}, σ = {level(sigma)}. KL[q(z|y), p(z)], mean over the fixed subset of the test set (Eq. 15)."
            yield Picture(f"kl_{dataset}", caption, draw(latent, "kl", "KL, nats"), "KL over epochs")


def _chosen(models: list[Model], measured: set[str], asked: Collection[str]) -> dict[str, list[Model]]:
    """Of each data set the models at its largest sigma, trained as most of those `asked` for are, first seed only."""
    found: dict[str, list[Model]] = {}
    for model in sorted((m for m in models if m.spec_id in measured), key=lambda m: order(m.spec)):
        found.setdefault(model.spec.data.name, []).append(model)
    for dataset, group in found.items():
        pool = [m for m in group if m.spec_id in asked] or group
        top = [m for m in pool if m.spec.sigma == max(n.spec.sigma for n in pool)]
        conditions = [(m.spec.recipe, m.spec.activation, m.spec.data) for m in top]
        main = max(conditions, key=lambda c: (conditions.count(c), c[0].epochs))
        own = [m for m, c in zip(top, conditions, strict=True) if c == main]
        found[dataset] = [m for m in own if m.spec.seed == min(n.spec.seed for n in own)]
    return found
