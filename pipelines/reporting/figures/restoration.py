"""Inpainted, deblurred and enlarged test images, with maps of the spread of the jumps."""

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

import numpy as np

from pipelines.reporting.figures import Picture, Study, named, register
from pipelines.reporting.figures.images import rows_of_images, scaled
from uvb.sampling.composed import TASKS

TITLES = {"inpaint": "right half missing", "deblur": "blurred", "enlarge": "half the size"}


def draw(arrays: Mapping[str, np.ndarray], tasks: list[str]) -> Element:
    """For each task: the measured images v, the mean of the jumps, and the spread of the jumps."""
    rows = [("clean", arrays["clean"])]
    for task in tasks:
        spread, times = scaled(arrays[f"{task}/spread"])
        rows += [(f"{TITLES[task]}, with noise", arrays[f"{task}/measured"]), ("mean of the jumps", arrays[f"{task}/mean"]),
                 (f"spread of the jumps × {times:.2g}", spread)]  # fmt: skip
    return rows_of_images(rows)


@register("restoration", title="Restoration by posterior sampling", needs="restoration", order=58)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each model."""
    for model, result in study.of_models("restoration"):
        values = result.values
        tasks = [task for task in TASKS if f"{task}/mean" in result.arrays]
        rows = {(row["task"], row["energy"]): row for row in values["rows"]}
        whole, best = rows["none", "model"]["loss"], rows["none", "exact"]["loss"]
        parts = [f"x̂(y) of the whole y, for comparison: {whole:.2f} (exact energy {best:.2f})"]
        for (task, energy), row in rows.items():
            if row["message"]:
                parts.append(f"{task} by the {energy} energy: {row['message']}")
            elif energy == "model" and task != "none":
                exact = rows[task, "exact"]
                theirs = f" (exact energy {exact['loss']:.2f})" if exact["loss"] is not None else ""
                covered = f"{row['coverage']:.0%} of the pixels of y are in their 90 % intervals"
                parts.append(f"{TITLES[task]}: {row['loss']:.2f}{theirs}, {covered}")
        caption = (
            f"{named(model.spec)}. The measurement is v = Ay + τ noise with τ = σ/2. For each image, {values['chains']} "
            f"chains walk on f(y) + ‖v − Ay‖²/2τ². ‖x − x̂‖² over {values['images']} images: {'; '.join(parts)}."
        )
        yield Picture(f"restoration_{model.spec_id}", caption, draw(result.arrays, tasks))
