"""Figure 4: the decoder's output for z from the prior. Sec. 3.3.2 shows the same for the VAE, with reconstructions."""

from collections.abc import Iterator

from pipelines.reporting.figures import Picture, Study, named, register
from pipelines.reporting.figures.images import grid_of_images, rows_of_images

# the rows of the paper's figure in Sec. 3.3.2
ROWS = {"clean": "clean x", "noisy": "noisy y", "recon": "μ_y(z), z ~ q(z|y)", "samples": "μ_y(z), z ~ N(0, I)"}


@register("decoder_samples", title="What the decoders show", paper="Fig. 4 and Sec. 3.3.2", needs="decoder_samples", order=80)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each model, with reconstructions if the task made them."""
    for model, result in study.of_models("decoder_samples"):
        caption, arrays = f"{named(model.spec)}.", result.arrays
        if "recon" in arrays:
            figure = rows_of_images([(text, arrays[name]) for name, text in ROWS.items()])
            yield Picture(f"decoder_rows_{model.spec_id}", caption, figure)
        else:
            caption += " Samples μ_y(z), z ~ N(0, I)."
            yield Picture(f"decoder_samples_{model.spec_id}", caption, grid_of_images(arrays["samples"][:48], columns=12))
