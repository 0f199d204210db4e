"""Inpainted, deblurred and enlarged test images, with maps of how far the chains agree."""

from collections.abc import Iterator, Mapping

import numpy as np

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.images import rows_of_images
from pipelines.reporting.figures.style import label
from pipelines.reporting.figures.svg import Drawn
from pipelines.reporting.numbers import level
from uvb.sampling.composed import TASKS

TITLES = {"inpaint": "right half missing", "deblur": "blurred", "enlarge": "half the size"}


def draw(arrays: Mapping[str, np.ndarray], tasks: list[str]) -> Drawn:
    """For each task what was measured, the mean of the jumps, and their spread scaled to fill the range."""
    rows = [("clean", arrays["clean"])]
    for task in tasks:
        spread = arrays[f"{task}/spread"]
        largest = max(float(spread.max()), 1e-12)
        rows += [(f"{TITLES[task]}, with noise", arrays[f"{task}/measured"]), ("mean of the jumps", arrays[f"{task}/mean"]),
                 (f"their spread × {1 / largest:.2g}", spread / largest)]  # fmt: skip
    return rows_of_images(rows)


@register("restoration", title="Restoration by posterior sampling", needs="restoration", order=58)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model."""
    for model, result in study.files.of_models("restoration"):
        spec, values = model.spec, result.values
        tasks = [task for task in TASKS if f"{task}/mean" in result.arrays]
        of = {(row["task"], row["energy"]): row for row in values["rows"]}
        parts = [f"all of y seen: {of['none', 'model']['loss']:.2f} (exact energy {of['none', 'exact']['loss']:.2f})"]
        for (task, energy), row in of.items():
            if row["message"]:
                parts.append(f"{task} by the {energy} energy: {row['message']}")
            elif energy == "model" and task != "none":
                exact = of[task, "exact"]
                theirs = f" (exact energy {exact['loss']:.2f})" if exact["loss"] is not None else ""
                parts.append(f"{TITLES[task]}: {row['loss']:.2f}{theirs}, 90 % intervals of y cover {row['coverage']:.0%}")
        caption = (
            f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}: walks on f(y) + ‖v − Ay‖²/2τ² given "
            f"v = Ay + τ noise, τ = σ/2, {values['chains']} chains an image. ‖x − x̂‖² over {values['images']} images: "
            f"{'; '.join(parts)}."
        )
        yield Picture(f"restoration_{spec.spec_id}", caption, draw(result.arrays, tasks))
