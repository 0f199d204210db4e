"""Tables 2 and 3 as a plot: the losses of each model over sigma, with the references and the paper's losses."""

import math
from collections.abc import Iterable, Iterator

import pandas as pd

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Ends, Series, lines, of_model
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import main_models

REFERENCES = {"train": ("floor", "floor (exact)"), "test": ("nonparametric", "non-parametric")}
ZOOM = 1.25  # `compared` leaves room for other losses up to this multiple of the largest loss that it must show


def draw(losses: pd.DataFrame, split: str, domain: Ends | None = None, across: Ends | None = None) -> Chart:
    """One data set's losses on one split, as means over seeds (`over_seeds`). Bars are one standard error.

    `domain` and `across` are the ends of the vertical and of the horizontal axis.
    """
    rows = losses[losses["split"] == split]
    series = []
    for model in main_models(rows):
        own = rows[rows["model"] == model].sort_values("sigma")
        paper = own.dropna(subset=["paper_loss"])
        series.append(of_model(model, own["sigma"], own["loss"], own["stderr"]))
        series.append(of_model(model, paper["sigma"], paper["paper_loss"], what=", paper", dash=(2, 3), hollow=True))
    for column, name, dash in ((*REFERENCES[split], (6, 3)), ("mean_image", "mean image", (1, 3))):
        known = rows.dropna(subset=[column]).groupby("sigma")[column].first()
        series.append(Series(name, known.index, known, colour="faint", dash=dash))
    domain = domain or compared(rows, split)
    shown = [one for one in series if reaches(one.y, domain)]  # the legend names only lines that are visible
    return lines(shown, "noise level σ", f"{split} loss, E‖x − x̂(y)‖²", domain=domain, across=across)


def reaches(values: Iterable[float], ends: Ends) -> bool:
    """Whether a line through `values` reaches the range `ends`."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) <= ends[1] and max(finite) >= ends[0]


def compared(rows: pd.DataFrame, split: str) -> tuple[float, float]:
    """The ends of the vertical axis. The exact reference and the losses of UVB and DEEN lie between them.

    If there is neither UVB nor DEEN, all models' losses lie between them.
    """
    two = rows[rows["model"].isin(["uvb", "deen"])]
    main = two if len(two) else rows
    known = [*main["loss"], *main["paper_loss"].dropna(), *main[REFERENCES[split][0]].dropna()]
    low, high = float(min(known)), float(max(known))
    near = rows.loc[rows["loss"] <= ZOOM * high, "loss"]
    high = max(high, float(near.max()))
    margin = 0.06 * (high - low) or 0.1 * high
    return max(0.0, low - margin), high + margin


@register("loss_over_sigma", title="Loss over the noise level", paper="Tables 2–3", needs="losses", order=10)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each data set and split."""
    for dataset, group in study.main_losses.groupby("dataset"):
        for split in ("test", "train"):
            rows = group[group["split"] == split]
            if len(rows):
                caption = f"{dataset}, {split} split. Bars are one standard error, clustered by image. {about(rows, split)}"
                yield Picture(f"loss_over_sigma_{dataset}_{split}", caption, draw(group, split), f"{split} loss over sigma")


def about(rows: pd.DataFrame, split: str) -> str:
    """The caption's text on what the lines are, and which losses are cut off."""
    exact = "the training set's exact posterior mean" + (" on its own images" if split == "train" else "")
    paper = rows["paper_loss"].notna().any()
    if rows["sigma"].nunique() > 1:
        said = f"Dashed: {exact}. Fine dots: always answering the mean image, if its loss is low enough to show."
        said += " Dotted: the paper's losses." if paper else ""
    else:
        reference = REFERENCES[split][1].capitalize()
        said = f"{reference}: {exact}. Mean image: always answering the mean image, if its loss is low enough to show."
        said += " Hollow: the paper's losses." if paper else ""
    _, high = compared(rows, split)
    above = rows[rows["loss"] > high]
    told = "; ".join(f"{label(r.model)} at σ = {level(r.sigma)}: {r.loss:.3g}" for r in above.itertuples())
    return said + (f" Above the figure: {told}." if told else "")
