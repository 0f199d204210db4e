"""Figure 1a: histograms of f(x), f(x̂(y)) and f(y): noisy samples have high energy."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import PALETTE, label, legend, plot
from pipelines.reporting.headlines import level


def draw(clean: np.ndarray, denoised: np.ndarray, noisy: np.ndarray) -> Figure:
    """Three histograms of energies (N,) over common bins; an energy's zero is arbitrary (Sec. 1.2)."""
    figure, axes = plot(2.6)
    everything = np.concatenate([clean, denoised, noisy])
    bins = np.histogram_bin_edges(everything[np.isfinite(everything)], 50).tolist()
    kinds = ((clean, "f(x), clean", "ink"), (denoised, "f(x̂(y)), denoised", "vae"), (noisy, "f(y), noisy", "uvb"))
    for values, name, shade in kinds:
        axes.hist(values, bins, histtype="stepfilled", alpha=0.35, color=PALETTE[shade][0], label=name)
        axes.hist(values, bins, histtype="step", linewidth=1.2, color=PALETTE[shade][0])
    axes.set_xlabel("energy, nats up to a constant")
    axes.set_ylabel("images")
    axes.grid(axis="x", visible=False)
    legend(axes)
    return figure


@register("energies", title="Energies of clean, denoised and noisy images", paper="Fig. 1a", needs="energies", order=60)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a model."""
    for model, result in study.files.of_models("energies"):
        spec, arrays = model.spec, result.arrays
        means = ", ".join(f"{name} {arrays[key].mean():.3g}" for name, key in (("f(x)", "f_clean"), ("f(y)", "f_noisy")))
        caption = f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}. Means: {means}."
        yield Picture(f"energies_{spec.spec_id}", caption, draw(arrays["f_clean"], arrays["f_xhat"], arrays["f_noisy"]))
