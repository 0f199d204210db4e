"""Figure 1a: histograms of f(x), f(x̂(y)) and f(y): noisy samples have high energy."""

from collections.abc import Iterator

import numpy as np

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, histograms
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level


def draw(clean: np.ndarray, denoised: np.ndarray, noisy: np.ndarray) -> Chart:
    """Three histograms of energies (N,) over common bins; an energy's zero is arbitrary (Sec. 1.2)."""
    kinds = ((clean, "f(x), clean", "ink"), (denoised, "f(x̂(y)), denoised", "vae"), (noisy, "f(y), noisy", "uvb"))
    groups = [(name, values, colour) for values, name, colour in kinds]
    return histograms(groups, "energy, nats up to a constant", "images")


@register("energies", title="Energies of clean, denoised and noisy images", paper="Fig. 1a", needs="energies", order=60)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model."""
    for model, result in study.files.of_models("energies"):
        spec, arrays = model.spec, result.arrays
        means = ", ".join(f"{name} {arrays[key].mean():.3g}" for name, key in (("f(x)", "f_clean"), ("f(y)", "f_noisy")))
        caption = f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}. Means: {means}."
        yield Picture(f"energies_{spec.spec_id}", caption, draw(arrays["f_clean"], arrays["f_xhat"], arrays["f_noisy"]))
