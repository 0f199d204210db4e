"""Figure 1a: histograms of f(x), f(x̂(y)) and f(y). Noisy images have a high energy."""

from collections.abc import Iterator

from pipelines.reporting.figures import Picture, Study, named, register
from pipelines.reporting.figures.chart import histograms

KINDS = {"f_clean": ("f(x), clean", "ink"), "f_xhat": ("f(x̂(y)), denoised", "vae"), "f_noisy": ("f(y), noisy", "uvb")}


@register("energies", title="Energies of clean, denoised and noisy images", paper="Fig. 1a", needs="energies", order=60)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture for each model. An energy's zero is arbitrary (Sec. 1.2)."""
    for model, result in study.of_models("energies"):
        arrays = result.arrays
        means = ", ".join(
            f"{name} {arrays[key].mean():.3g}".replace("-", "−") for name, key in (("f(x)", "f_clean"), ("f(y)", "f_noisy"))
        )
        groups = [(name, arrays[key], colour) for key, (name, colour) in KINDS.items()]
        chart = histograms(groups, "energy, nats up to a constant", "images")
        yield Picture(f"energies_{model.spec_id}", f"{named(model.spec)}. Means: {means}.", chart)
