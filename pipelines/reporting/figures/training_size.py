"""Open question 2: the loss on both splits over the size of the training set."""

from collections.abc import Iterator

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.capacity import draw
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import over_seeds, own_estimator


@register(
    "training_size",
    title="Loss over the size of the training set",
    paper="open question 2",
    needs="losses at several sizes of the training set",
    order=25,
)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a data set, recipe and sigma at which models of one size were trained on several numbers of images.

    For equally many steps (within 5 %), as the space `train_size` has it: else the length of training would show too.
    """
    losses = study.tables["losses"]
    if losses.empty:
        return
    means = over_seeds(own_estimator(losses))
    means["steps"] = means["epochs"] * -(-means["train_images"] // means["batch_size"])
    for key, group in means.groupby(["dataset", "sigma", "recipe", "activation", "batch_size"]):
        group = group[group["parameters"] == group.groupby("model")["parameters"].transform("min")]
        largest = group[group["train_images"] == group["train_images"].max()]
        alike = {int(steps): (group["steps"] / steps - 1).abs() <= 0.05 for steps in largest["steps"].unique()}
        steps = max(alike, key=lambda steps: int(alike[steps].sum()))  # the length that most were trained for
        group = group[alike[steps]]
        sizes = group.groupby("model")["train_images"].nunique()
        group = group[group["model"].isin(sizes.index[sizes > 1])]
        if len(group):
            dataset, sigma, recipe, activation, batch = key
            caption = f"{dataset}, σ = {level(sigma)}, recipe {recipe}, {activation}, {steps:,} steps of {batch} images each."
            chart = draw(group, "train_images", "training images")
            yield Picture("_".join(["training_size", *map(str, key)]), caption, chart, "loss over training images")
