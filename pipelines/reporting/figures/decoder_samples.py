"""Figure 4: samples of the decoder, z from the prior; and the VAE's failure figure (Sec. 3.3.2)."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.images import grid_of_images, rows_of_images
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level


def draw_failure(clean: np.ndarray, noisy: np.ndarray, recon: np.ndarray, samples: np.ndarray) -> Element:
    """The rows of the paper's figure in Sec. 3.3.2."""
    rows = [("clean x", clean), ("noisy y", noisy), ("μ_y(z), z ~ q(z|y)", recon), ("μ_y(z), z ~ N(0, I)", samples)]
    return rows_of_images(rows)


@register("decoder_samples", title="What the decoders show", paper="Fig. 4 and Sec. 3.3.2", needs="decoder_samples", order=80)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model: with reconstructions where the task gives them."""
    for model, result in study.files.of_models("decoder_samples"):
        spec, arrays = model.spec, result.arrays
        caption = f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}."
        if "recon" in arrays:
            figure = draw_failure(*(arrays[name] for name in ("clean", "noisy", "recon", "samples")))
            yield Picture(f"decoder_rows_{spec.spec_id}", caption, figure)
        else:
            caption += " Samples μ_y(z), z ~ N(0, I)."
            yield Picture(f"decoder_samples_{spec.spec_id}", caption, grid_of_images(arrays["samples"][:48], columns=12))
