"""Figure 3: a walk-jump chain, its classes, and how it moves between them (Sec. 3.4)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import FAINT, INK, WIDTH, colour, grid, label, plot, show
from pipelines.reporting.headlines import level

UNSURE = 0.5  # a classifier that names fewer right tells little


def draw(jumps: np.ndarray, labels: np.ndarray | None = None, columns: int = 10) -> Figure:
    """Jumps (T, C, H, W) of one chain in reading order, each with its class label (T,) below it."""
    cell, text = WIDTH / columns, 0.15
    lines = -(-len(jumps) // columns)
    line = cell * jumps.shape[2] / jumps.shape[3] + text
    figure = Figure(figsize=(WIDTH, lines * line))
    for row in range(lines):
        images = jumps[row * columns : (row + 1) * columns]
        bottom, height = 1 - (row + 1) / lines, 1 / lines
        axes = figure.add_axes((0, bottom + height * text / line, len(images) / columns, height * (1 - text / line)))
        show(axes, grid(images, columns))
        shown = [] if labels is None else labels[row * columns : row * columns + len(images)].tolist()
        for i, known in enumerate(map(int, shown)):
            x = (i + 0.5) / columns
            figure.text(
                x, bottom + height * 0.03 / line, str(known) if known >= 0 else "×", fontsize=7, ha="center", color=FAINT
            )
    return figure


def draw_transitions(counts: np.ndarray) -> Figure:
    """The matrix of moves (K, K) between the classes of successive jumps; each row sums to 1 in shade."""
    size = len(counts)
    total = counts.sum(1, keepdims=True)
    share = counts / np.where(total > 0, total, 1)  # (K, K)
    figure, axes = plot(3.9, 3.9)
    canvas = np.empty((size, size, 4))
    canvas[..., :3] = to_rgb(colour("uvb"))
    canvas[..., 3] = 0.85 * share / max(share.max(), 1e-9)  # shade by opacity, so it sits on a light or a dark page
    axes.imshow(canvas, interpolation="none")
    if size <= 12:
        for i, j in np.argwhere(counts > 0):
            axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=6.5, color=INK)
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    axes.set_xlabel("class of the next jump")
    axes.set_ylabel("class of a jump")
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def draw_classes(labels: np.ndarray, steps_per_jump: int) -> Figure:
    """The class over time, labels (T, chains); the first chain in front."""
    figure, axes = plot(2.4)
    steps = np.arange(1, len(labels) + 1) * steps_per_jump
    for chain in range(labels.shape[1]):
        alive = labels[:, chain] >= 0
        first = chain == 0
        style: dict[str, Any] = {"color": colour("uvb") if first else FAINT, "alpha": 1.0 if first else 0.35}
        shift = 0.0 if first else 0.09 * ((chain - 1) % 5 - 2)  # chains side by side, not on one another
        axes.plot(steps[alive], labels[alive, chain] + shift, ".", markersize=4 if first else 2.5, **style)
    axes.set_xlabel("Langevin steps")
    axes.set_ylabel("class")
    axes.set_yticks(range(int(labels.max()) + 1))
    return figure


@register("walk_jump", title="Walk-jump sampling", paper="Fig. 3", needs="walk_jump", order=50)
def pictures(study: Study) -> Iterator[Picture]:
    """The walk, its second-jump variant, the transition matrix and the classes over time, for each model sampled."""
    for suffix, model, result in study.files.walks():
        spec, values, arrays = model.spec, result.values, result.arrays
        key = f"{spec.spec_id}{suffix}"
        who = f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}, {values['sampler']}, δ = {values['delta']:g}"
        if values.get("acceptance") is not None:
            who += f", {values['acceptance']:.0%} of its proposals accepted"
        who += f" ({values['message']})" if values.get("message") else ""
        every = values["steps_per_jump"]
        for jumps, labels, kind in (("jumps", "labels", "x̂(y)"), ("jumps2", "labels2", "x̂(x̂(y))")):
            if jumps in arrays:
                first = arrays[labels][:, 0] if labels in arrays else None
                caption = (
                    f"{who}. One chain from Unif[0, 1]ᵈ without warm-up or restart, read left to right: "
                    f"{kind} after every {every} steps{'' if first is None else ', the classifier’s label below'}."
                )
                yield Picture(f"{jumps}_{key}", caption, draw(arrays[jumps][:100], first))
        if "labels" in arrays:
            others = f"the chain above in front, {values['chains'] - 1} others behind it"
            caption = f"{who}. Class of each jump over time: {others}.{trust(values)}"
            yield Picture(f"classes_{key}", caption, draw_classes(arrays["labels"], every))
        transition = values["variants"].get("jump", {}).get("transition")
        if transition:
            caption = (
                f"{who}. Moves between the classes of successive jumps, in percent of each row, all chains.{trust(values)}"
            )
            yield Picture(f"transitions_{key}", caption, draw_transitions(np.nan_to_num(np.array(transition, float))))


def trust(values: Mapping[str, Any]) -> str:
    """How far the classes of jumps can be believed: a sentence, or nothing where it is not known."""
    accuracy = values.get("classifier_accuracy")
    if accuracy is None:
        return ""
    verdict = ", so these classes say little" if accuracy < UNSURE else ""
    clean = (values.get("classifier_accuracies") or {}).get("clean")
    of_clean = f" ({clean:.0%} of the clean images)" if clean is not None else ""
    return f" The classifier names {accuracy:.0%} of x̂(y) of test images right{of_clean}{verdict}."
