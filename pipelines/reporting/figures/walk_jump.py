"""Figure 3: a walk-jump chain, its classes, and its moves between classes (Sec. 3.4)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.reporting.figures import Picture, Study, named, register
from pipelines.reporting.figures.chart import WIDTH, Chart, heat
from pipelines.reporting.figures.film import film
from pipelines.reporting.figures.images import grid_of_images
from pipelines.reporting.figures.style import css

UNSURE = 0.5  # below this accuracy, a classifier's classes say little
SHOWN_JUMPS = 100  # jumps of a chain in a picture
SHOWN_CLASSES = 40  # classes in a matrix of moves, the most frequent ones
BEHIND = 7  # other chains drawn behind the first
SHOWN_TIMES = 200  # at most this many jumps of a chain in the chart over time; a longer chain shows every second, third, ...


def draw_transitions(counts: np.ndarray, classes: Sequence[int] | None = None) -> Chart:
    """The moves (K, K) between the classes of successive jumps, as shares of each row, for the most frequent classes.

    Args:
        classes: the class of each row and column; by default 0 to K - 1.
    """
    names = range(len(counts)) if classes is None else classes
    chosen = np.sort(np.argsort(-(counts.sum(0) + counts.sum(1)), kind="stable")[:SHOWN_CLASSES])
    shown = counts[np.ix_(chosen, chosen)]
    total = counts[chosen].sum(1, keepdims=True)
    share = shown / np.where(total > 0, total, 1)  # (k, k)
    return heat(share, [str(names[c]) for c in chosen], "class of the next jump", "class of a jump")


def draw_classes(labels: np.ndarray, steps_per_jump: int) -> Chart:
    """The classes `labels` (T, chains) over time: the first chain in front, a few others behind it."""
    names = ["the first chain", "other chains"]
    every = -(-len(labels) // SHOWN_TIMES)  # rounded up
    rows = [
        {
            "step": (t + 1) * steps_per_jump,
            "class": int(labels[t, chain]),
            "chain": names[0] if chain == 0 else names[1],
            "shift": (chain + 1) % 5,  # so that chains in the same class do not cover each other
        }
        for chain in reversed(range(min(labels.shape[1], BEHIND + 1)))  # what is drawn last is in front
        for t in range(0, len(labels), every)
        if labels[t, chain] >= 0
    ]
    axis, scale = {"tickMinStep": 1, "format": "d"}, {"domain": names, "range": [css("uvb"), css("faint")]}
    encoding = {
        "x": {"field": "step", "type": "quantitative", "title": "steps of the walk"},
        "y": {"field": "class", "type": "quantitative", "axis": axis, "scale": {"padding": 8, "zero": False}},
        "yOffset": {"field": "shift", "type": "quantitative", "scale": {"domain": [0, 4], "range": [-3, 3]}},
        "color": {"field": "chain", "type": "nominal", "title": None, "sort": None, "scale": scale},
        "size": {"condition": {"test": f"datum.chain == '{names[0]}'", "value": 18}, "value": 6},
        "tooltip": [{"field": "chain", "title": " "}, {"field": "step"}, {"field": "class"}],
    }
    mark = {"type": "circle", "opacity": 0.8}
    return Chart({"width": WIDTH, "height": 150, "data": {"values": rows}, "mark": mark, "encoding": encoding})


@register("walk_jump", title="Walk-jump sampling", paper="Fig. 3", needs="walk_jump", order=50)
def pictures(study: Study) -> Iterator[Picture]:
    """For each walk: a film of its jumps, the jumps in a grid, their classes over time, and the moves between classes."""
    for suffix, model, result in study.files.walks():
        values, arrays = result.values, result.arrays
        key, every = f"{model.spec_id}{suffix}", values["steps_per_jump"]
        who = f"{named(model.spec)}, {values['sampler']}, δ = {values['delta']:g}"
        if values.get("acceptance") is not None:
            who += f", {values['acceptance']:.0%} of its proposals accepted"
        who += f" ({values['message']})" if values.get("message") else ""
        first = arrays["labels"][:SHOWN_JUMPS, 0] if "labels" in arrays else None
        if "jumps" in arrays and len(shown := arrays["jumps"][:SHOWN_JUMPS]) > 1:
            energy = arrays["energy"][: len(shown), 0] if "energy" in arrays else None
            caption = f"{who}. One chain from Unif[0, 1]ᵈ, without warm-up or restart. Point at the animation to stop it."
            yield Picture(f"film_{key}", caption, film(shown, energy, first), "a walk-jump chain, jump by jump")
        if "labels" in arrays:
            others = f"the first chain in front, {min(BEHIND, values['chains'] - 1)} others behind it"
            caption = f"{who}. Class of each jump over time: {others}.{trust(values)}"
            yield Picture(f"classes_{key}", caption, draw_classes(arrays["labels"], every), "classes over time")
        for jumps, labels, kind in (("jumps", "labels", "x̂(y)"), ("jumps2", "labels2", "x̂(x̂(y))")):
            if jumps in arrays:
                names = [str(int(k)) if k >= 0 else "×" for k in arrays[labels][:SHOWN_JUMPS, 0]] if labels in arrays else []
                below = ", the classifier’s label below" if names else ""
                caption = f"{who}. The first chain, read left to right: {kind} after every {every} steps{below}."
                yield Picture(f"{jumps}_{key}", caption, grid_of_images(arrays[jumps][:SHOWN_JUMPS], names), "jumps of a chain")
        if moves := _moves(values["variants"].get("jump", {})):
            caption = f"{who}. Moves between the classes of successive jumps, in percent of each row, all chains."
            caption += " A cell is empty if there was no such move."
            if len(moves[1]) > SHOWN_CLASSES:
                caption += f" Only the {SHOWN_CLASSES} most frequent classes are shown."
            yield Picture(f"transitions_{key}", f"{caption}{trust(values)}", draw_transitions(*moves), "moves between classes")


def _moves(variant: Mapping[str, Any]) -> tuple[np.ndarray, list[int]] | None:
    """The counts (K, K) of moves between K classes, and these classes.

    If there are many classes, `variant` lists only the moves that happened, and K counts only the classes of these moves.
    None: `variant` has no moves.
    """
    if variant.get("transition"):
        counts = np.nan_to_num(np.array(variant["transition"], float))
        return counts, list(range(len(counts)))
    if not variant.get("moves"):
        return None
    first, second, count = np.array(variant["moves"]).T
    classes, places = np.unique([first, second], return_inverse=True)
    rows, columns = places.reshape(2, -1)
    counts = np.zeros((len(classes), len(classes)))
    counts[rows, columns] = count
    return counts, classes.tolist()


def trust(values: Mapping[str, Any]) -> str:
    """A sentence on how often the classifier is right; "" if this is not known."""
    accuracy = values.get("classifier_accuracy")
    if accuracy is None:
        return ""
    verdict = ", so these classes say little" if accuracy < UNSURE else ""
    clean = (values.get("classifier_accuracies") or {}).get("clean")
    of_clean = f" ({clean:.0%} of the clean images)" if clean is not None else ""
    return f" The classifier is right on {accuracy:.0%} of the denoised test images x̂(y){of_clean}{verdict}."
