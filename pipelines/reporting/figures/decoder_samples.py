"""Figure 4: samples of the decoder, z from the prior; and the VAE's failure figure (Sec. 3.3.2)."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import WIDTH, grid, label, rows_of_images, show
from pipelines.reporting.headlines import level


def draw(samples: np.ndarray, columns: int = 12) -> Figure:
    """Samples (N, C, H, W) in a grid."""
    lines = -(-len(samples) // columns)
    figure = Figure(figsize=(WIDTH, WIDTH * lines / columns * samples.shape[2] / samples.shape[3]))
    width = min(1.0, len(samples) / columns)
    show(figure.add_axes((0, 0, width, 1)), grid(samples, columns))
    return figure


def draw_failure(clean: np.ndarray, noisy: np.ndarray, recon: np.ndarray, samples: np.ndarray) -> Figure:
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
            yield Picture(f"decoder_samples_{spec.spec_id}", caption, draw(arrays["samples"][:48]))
