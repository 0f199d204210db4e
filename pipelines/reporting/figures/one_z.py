"""x̂ with one z, compared with the mean over many z (Figure 2's caption)."""

from collections.abc import Iterator

import numpy as np

from pipelines.reporting.figures import Picture, Study, named, register
from pipelines.reporting.figures.images import rows_of_images, scaled
from uvb import paper


@register("one_z", title="One z, or a thousand", paper="Fig. 2, caption", needs="one_z", order=45)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each model that samples z: x̂ of one z, of many, and their difference."""
    for model, result in study.of_models("one_z"):
        values, one, mean = result.values, result.arrays["one"], result.arrays["mean"]
        caption = (
            f"{named(model.spec)}. Largest difference of a pixel between x̂ by one z and the mean x̂ over {values['draws']:,} z: "
            f"{values['max_difference']:.2g} (the paper, on MNIST: {paper.ONE_Z_BOUND})."
        )
        difference, times = scaled(np.abs(one - mean))
        rows = [("x̂, one z", one), ("x̂, mean over z", mean), (f"|difference| × {times:.3g}", difference)]
        yield Picture(f"one_z_{model.spec_id}", caption, rows_of_images(rows))
