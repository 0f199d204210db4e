"""Figure 2: clean, noisy, denoised once and twice, models side by side on the same images and noise."""

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

import numpy as np

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.images import rows_of_images
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import main_group, main_models, own_estimator


def draw(clean: np.ndarray, noisy: np.ndarray, estimates: list[tuple[str, np.ndarray]]) -> Element:
    """Rows of images (N, C, H, W): the clean, the noisy, and each labelled estimate."""
    return rows_of_images([("clean x", clean), ("noisy y", noisy), *estimates])


@register("legible", title="What they see, and what they answer", needs="denoise_rows", order=15)
def legible(study: Study) -> Iterator[Picture]:
    """One strip a data set, at the largest noise level at which the images can be told from their mean.

    That is where the best model's test loss is under half of the mean image's, else the smallest level.
    """
    losses = main_group(study.tables["losses"], study.files.asked)
    test = own_estimator(losses[losses["split"] == "test"])
    found = {model.spec_id: (model, result) for model, result in study.files.of_models("denoise_rows")}
    for dataset, group in test[test["spec_id"].isin(found)].groupby("dataset"):
        best = group.groupby("sigma").agg(loss=("loss", "min"), mean=("mean_image", "first"))
        clear = best[best["loss"] < best["mean"] / 2]
        sigma = float(clear.index.max() if len(clear) else best.index.min())
        here = group[(group["sigma"] == sigma) & (group["seed"] == group["seed"].min())]
        first = [here[here["model"] == m].iloc[0] for m in main_models(here)[:3]]
        arrays = {row["model"]: found[row["spec_id"]][1].arrays for row in first}
        rows = [(f"x̂(y), {label(row['model'])}, test loss {row['loss']:.3g}", arrays[row["model"]]["xhat"]) for row in first]
        shown = next(iter(arrays.values()))
        caption = f"{dataset}, σ = {level(sigma)}. Test images under one noise, and what each model answers."
        yield Picture(f"legible_{dataset}", caption, draw(shown["clean"], shown["noisy"], rows), "clean, noisy, denoised")


@register("denoise_rows", title="Denoising", paper="Fig. 2", needs="denoise_rows", order=40)
def pictures(study: Study) -> Iterator[Picture]:
    """One picture a data set and sigma; models whose images differ get one of their own."""
    losses = study.tables["losses"]
    test = own_estimator(losses[losses["split"] == "test"]).set_index("spec_id")["loss"]
    groups: dict[tuple[str, float, int, bytes], list[tuple[str, Mapping[str, np.ndarray]]]] = {}
    for model, result in study.files.of_models("denoise_rows"):
        spec, arrays = model.spec, result.arrays
        loss = f", test loss {test[spec.spec_id]:.3g}" if spec.spec_id in test else ""
        key = (spec.data.name, spec.sigma, spec.seed, arrays["noisy"].tobytes())
        groups.setdefault(key, []).append((f"{label(spec.model)}{loss}", arrays))
    for index, ((dataset, sigma, _, _), models) in enumerate(groups.items()):
        rows = []
        for name, own in models:
            rows.append((f"x̂(y), {name}", own["xhat"]))
            if "xhat2" in own:
                rows.append((f"x̂(x̂(y)), {name.split(',')[0]}", own["xhat2"]))
        first = models[0][1]
        caption = f"{dataset}, σ = {level(sigma)}. Test images under one noise. Pixels outside [0, 1] are clipped."
        yield Picture(f"denoise_{dataset}_{sigma:g}_{index}", caption, draw(first["clean"], first["noisy"], rows))
