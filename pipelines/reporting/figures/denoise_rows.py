"""Figure 2: clean, noisy, denoised once and twice, models side by side on the same images and noise."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import label, rows_of_images
from pipelines.reporting.headlines import level, own_estimator


def draw(clean: np.ndarray, noisy: np.ndarray, estimates: list[tuple[str, np.ndarray]]) -> Figure:
    """Rows of images (N, C, H, W): the clean, the noisy, and each labelled estimate."""
    return rows_of_images([("clean x", clean), ("noisy y", noisy), *estimates])


@register("denoise_rows", title="Denoising", paper="Fig. 2", needs="denoise_rows", order=40)
def pictures(study: Study) -> Iterator[Picture]:
    """One picture a data set and sigma; models whose images differ get one of their own."""
    losses = study.tables["losses"]
    test = own_estimator(losses[losses["split"] == "test"]).set_index("spec_id")["loss"]
    groups: dict[tuple[str, float, int, bytes], list[tuple[str, dict[str, np.ndarray]]]] = {}
    for model, result in study.files.of_models("denoise_rows"):
        spec, arrays = model.spec, result.arrays
        loss = f", test loss {test[spec.spec_id]:.3g}" if spec.spec_id in test else ""
        key = (spec.data.name, spec.sigma, spec.seed, arrays["noisy"].tobytes())
        groups.setdefault(key, []).append((f"{label(spec.model)}{loss}", arrays))
    for index, ((dataset, sigma, _, _), models) in enumerate(groups.items()):
        rows = []
        for name, arrays in models:
            rows.append((f"x̂(y), {name}", arrays["xhat"]))
            if "xhat2" in arrays:
                rows.append((f"x̂(x̂(y)), {name.split(',')[0]}", arrays["xhat2"]))
        first = models[0][1]
        caption = f"{dataset}, σ = {level(sigma)}. Test images under one noise. Pixels outside [0, 1] are clipped."
        yield Picture(f"denoise_{dataset}_{sigma:g}_{index}", caption, draw(first["clean"], first["noisy"], rows))
