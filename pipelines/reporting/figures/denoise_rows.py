"""Figure 2: clean images, noisy images, and the images that each model denoised once and twice."""

from collections.abc import Iterator, Mapping

import numpy as np

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.images import rows_of_images
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import main_group, main_models, own_estimator


@register("legible", title="What the models see and answer", needs="denoise_rows", order=15)
def legible(study: Study) -> Iterator[Picture]:
    """One picture for each data set, at the largest noise level at which the best model still tells the images apart.

    The model tells them apart if its test loss is under half of the mean image's loss. If it can do so at no level, the picture
    is at the smallest level. The last rows are samples of the same models, if the study has them.
    """
    losses = main_group(study.tables["losses"], study.files.asked)
    test = own_estimator(losses[losses["split"] == "test"])
    # A copy made by keep.py has no arrays, so its figure stays as it is.
    found = {m.spec_id: result.arrays for m, result in study.of_models("denoise_rows") if "clean" in result.arrays}
    for dataset, group in test[test["spec_id"].isin(found)].groupby("dataset"):
        best = group.groupby("sigma").agg(loss=("loss", "min"), mean=("mean_image", "first"))
        clear = best[best["loss"] < best["mean"] / 2]
        sigma = float(clear.index.max() if len(clear) else best.index.min())
        here = group[(group["sigma"] == sigma) & (group["seed"] == group["seed"].min())]
        first = [here[here["model"] == m].iloc[0] for m in main_models(here)[:3]]
        arrays = found[first[0]["spec_id"]]
        rows = [("clean x", arrays["clean"]), ("noisy y", arrays["noisy"])]
        rows += [(f"x̂(y), {label(row['model'])}, test loss {row['loss']:.3g}", found[row["spec_id"]]["xhat"]) for row in first]
        walks = [
            (f"samples, {label(row['model'])}", found[row["spec_id"]]["samples"])
            for row in first
            if "samples" in found[row["spec_id"]]
        ]
        caption = f"{dataset}, σ = {level(sigma)}. Test images. Every model got the same noisy copies."
        caption += " Samples are jumps of one chain, which began at uniform noise." if walks else ""
        yield Picture(f"legible_{dataset}", caption, rows_of_images([*rows, *walks]), "clean, noisy, denoised, sampled")


@register("denoise_rows", title="Denoising", paper="Fig. 2", needs="denoise_rows", order=40)
def pictures(study: Study) -> Iterator[Picture]:
    """One picture for each data set, sigma and seed. Models that were measured on other images get a separate picture."""
    losses = study.tables["losses"]
    test = own_estimator(losses[losses["split"] == "test"]).set_index("spec_id")["loss"]
    groups: dict[tuple[str, float, int, bytes], list[tuple[str, Mapping[str, np.ndarray]]]] = {}
    for model, result in study.of_models("denoise_rows"):
        spec, arrays = model.spec, result.arrays
        loss = f", test loss {test[spec.spec_id]:.3g}" if spec.spec_id in test else ""
        key = (spec.data.name, spec.sigma, spec.seed, arrays["noisy"].tobytes())
        groups.setdefault(key, []).append((f"{label(spec.model)}{loss}", arrays))
    for index, ((dataset, sigma, _, _), models) in enumerate(groups.items()):
        first = models[0][1]
        rows = [("clean x", first["clean"]), ("noisy y", first["noisy"])]
        for name, own in models:
            rows.append((f"x̂(y), {name}", own["xhat"]))
            if "xhat2" in own:
                rows.append((f"x̂(x̂(y)), {name.split(',')[0]}", own["xhat2"]))
        caption = f"{dataset}, σ = {level(sigma)}. Test images. Every model got the same noisy copies."
        caption += " Pixels outside [0, 1] are clipped."
        yield Picture(f"denoise_{dataset}_{sigma:g}_{index}", caption, rows_of_images(rows))
