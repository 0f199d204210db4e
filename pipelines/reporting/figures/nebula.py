"""Sec. 3.3.1, NEBULA: two steps of size sigma squared, and the attractor by gradient flow."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from pipelines.files.study_files import WALK
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import colour, label, plot, rows_of_images
from pipelines.reporting.figures.walk_jump import trust
from pipelines.reporting.headlines import level


def draw(noisy: np.ndarray, step1: np.ndarray, step2: np.ndarray, attractor: np.ndarray) -> Figure:
    """Rows of images (N, C, H, W)."""
    rows = [("noisy y", noisy), ("one step of σ², x̂(y)", step1), ("two steps, x̂(x̂(y))", step2), ("attractor", attractor)]
    return rows_of_images(rows)


def draw_energy(energy: np.ndarray, model: str) -> Figure:
    """The energy (steps, N) along the flow: each image thin, the mean thick."""
    figure, axes = plot(2.3)
    axes.plot(energy[:, :50], color=colour(model), alpha=0.2, linewidth=0.7)
    axes.plot(np.nanmean(energy, axis=1), color=colour(model), linewidth=2)
    axes.set_xlabel("step of the gradient flow")
    axes.set_ylabel("energy, nats")
    return figure


def draw_classes(classes: np.ndarray) -> Figure:
    """The class (steps, N) of x̂ along the flow, an image a row; the numbers are the classes at its start and its end."""
    figure, axes = plot(0.4 + 0.22 * min(20, classes.shape[1]))
    shown = classes[:, :20]  # (steps, N)
    axes.imshow(shown.T, aspect="auto", cmap="tab10", vmin=0, vmax=9, interpolation="nearest", alpha=0.7)
    for image in range(shown.shape[1]):
        for step, side in ((0, "left"), (len(shown) - 1, "right")):
            axes.text(step, image, f" {shown[step, image]:.0f} ", ha=side, va="center", fontsize=8)
    axes.set_yticks([])
    axes.grid(False)
    axes.set_xlabel("step of the gradient flow")
    return figure


@register("nebula", title="Attractors of the energy", paper="Sec. 3.3.1", needs="nebula", order=70)
def pictures(study: Study) -> Iterator[Picture]:
    """Images and energies for each model."""
    walks = study.files.results(WALK)  # which measure how far the classifier can be believed
    for model, result in study.files.of_models("nebula"):
        spec, arrays, values = model.spec, result.arrays, result.values
        believed = trust(walks[model.spec_id].values) if model.spec_id in walks else ""
        caption = f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}."
        before, after = values.get("labels_before"), values.get("labels_after")
        if before and after:
            moved = sum(a != b for a, b in zip(before, after, strict=True))
            caption += f" From x̂(y) to the attractor {moved} of {len(before)} images changed class.{believed}"
        ended = values.get("converged")
        if ended and not all(ended):
            caption += f" {len(ended) - sum(ended)} of {len(ended)} flows had not come to rest."
        images = draw(*(arrays[name] for name in ("noisy", "step1", "step2", "attractor")))
        yield Picture(f"nebula_{spec.spec_id}", caption, images)
        if "energy" in arrays:
            caption = f"{label(spec.model)} on {spec.data.name}. Energy along the flow; thick: the mean over images."
            yield Picture(f"nebula_energy_{spec.spec_id}", caption, draw_energy(arrays["energy"], spec.model))
        if "classes" in arrays and len(arrays["classes"]) > 1:
            about = f"Class of x̂(y) along the flow, an image a row; numbers: at its start and its end.{believed}"
            caption = f"{label(spec.model)} on {spec.data.name}. {about}"
            yield Picture(f"nebula_classes_{spec.spec_id}", caption, draw_classes(arrays["classes"]))
