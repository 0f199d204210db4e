"""The loss over the number of parameters, and over the size of the training set (open question 2)."""

from collections.abc import Iterator

import pandas as pd

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, lines, of_model
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import CONDITION, main_models


def draw(losses: pd.DataFrame, column: str = "parameters", name: str = "parameters, dim(ϑ)") -> Chart:
    """Losses of one data set at one sigma over a column: solid lines for the test split, dashed for the training split."""
    series = []
    for model in main_models(losses):
        for split, dash in (("test", ()), ("train", (5, 3))):
            own = losses[(losses["model"] == model) & (losses["split"] == split)].sort_values(column)
            points = own[column].astype(float), own["loss"], own["stderr"]
            series.append(of_model(model, *points, f", {split}", dash=dash, hollow=split == "train"))
    return lines(series, name, "loss, E‖x − x̂(y)‖²", log_x=True)


@register("loss_over_capacity", title="Loss over capacity", needs="losses at several widths", order=26)
def over_capacity(study: Study) -> Iterator[Picture]:
    """A picture for each data set, sigma and condition in which models were trained with several numbers of parameters.

    The condition is the recipe, the activation, the batch size, the number of training images and the epochs.
    """
    for key, group in study.losses.groupby(["dataset", "sigma", *CONDITION]):
        if len(group := _of_several(group, "parameters")):
            dataset, sigma, recipe, activation, batch = key[:5]
            about = f"{dataset}, σ = {level(sigma)}, recipe {recipe}, {activation}, batch {batch}."
            name = "_".join(["loss_over_capacity", *map(str, key)])
            yield Picture(name, f"{about} Bars are one standard error.", draw(group), "loss over parameters")


@register(
    "training_size", title="Loss over the size of the training set", paper="open question 2", order=25,
    needs="losses at several sizes of the training set",
)  # fmt: skip
def over_training_size(study: Study) -> Iterator[Picture]:
    """A picture for each data set, recipe and sigma at which models of one size were trained on several numbers of images.

    Only trainings with the same number of steps, within 5 %, are compared. Otherwise the plot would also show the effect of
    longer training.
    """
    means = study.losses
    means = means.assign(steps=means["epochs"] * -(-means["train_images"] // means["batch_size"]))
    for key, group in means.groupby(["dataset", "sigma", "recipe", "activation", "batch_size"]):
        group = group[group["parameters"] == group.groupby("model")["parameters"].transform("min")]  # the smallest models
        largest = group[group["train_images"] == group["train_images"].max()]
        # number of steps of a training on the largest set -> mask of the trainings with as many steps, up to 5 %
        alike = {int(steps): (group["steps"] / steps - 1).abs() <= 0.05 for steps in largest["steps"].unique()}
        steps = max(alike, key=lambda steps: int(alike[steps].sum()))  # the number that most trainings have
        if len(group := _of_several(group[alike[steps]], "train_images")):
            dataset, sigma, recipe, activation, batch = key
            caption = f"{dataset}, σ = {level(sigma)}, recipe {recipe}, {activation}, {steps:,} steps of {batch} images each."
            chart = draw(group, "train_images", "training images")
            yield Picture("_".join(["training_size", *map(str, key)]), caption, chart, "loss over training images")


def _of_several(losses: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of the models that have several values of a column."""
    counts = losses.groupby("model")[column].transform("nunique")
    return losses[counts > 1]
