"""Figure 2's caption: x̂ with one z against the mean over many."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.images import rows_of_images
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level
from uvb import paper


def draw(one: np.ndarray, mean: np.ndarray) -> Element:
    """x̂ of one z, of many, and their difference scaled to fill the range; all (N, C, H, W)."""
    difference = np.abs(one - mean)
    largest = max(float(difference.max()), 1e-12)
    rows = [("x̂, one z", one), ("x̂, mean over z", mean), (f"|difference| × {1 / largest:.3g}", difference / largest)]
    return rows_of_images(rows)


@register("one_z", title="One z, or a thousand", paper="Fig. 2, caption", needs="one_z", order=45)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model that samples z."""
    for model, result in study.files.of_models("one_z"):
        spec, values, arrays = model.spec, result.values, result.arrays
        caption = (
            f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}. Largest pixel difference between "
            f"one z and the mean over {values['draws']:,}: {values['max_difference']:.2g} "
            f"(the paper, on MNIST: {paper.ONE_Z_BOUND})."
        )
        yield Picture(f"one_z_{spec.spec_id}", caption, draw(arrays["one"], arrays["mean"]))
