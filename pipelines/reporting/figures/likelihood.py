"""The likelihood of noisy test images under each energy, and de Bruijn's identity between noise levels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipelines.files.study_files import Model, Result, order
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.style import FAINT, INK, colour, label, legend, marker, plot
from pipelines.reporting.headlines import level
from uvb.measure.entropy import entropy_growth

Row = Mapping[str, Any]
Found = Sequence[tuple[Model, Result]]
EXACT = "training set’s exact density"


def draw(found: Found) -> Figure:
    """-log p(y) over σ less that of the Gaussian, one line a model; bars are one standard error of the paired difference."""
    figure, axes = plot(2.8)
    models = list(dict.fromkeys(model.spec.model for model, _ in found))
    for name in models:
        own = [(m.spec.sigma, r.arrays["model"] - r.arrays["gaussian"]) for m, r in found
               if m.spec.model == name and "model" in r.arrays]  # fmt: skip
        if own:
            _errorbar(axes, own, label(name), colour(name), marker(name))
    exact = {m.spec.sigma: r.arrays["exact"] - r.arrays["gaussian"] for m, r in found}
    _errorbar(axes, sorted(exact.items(), key=lambda item: item[0]), EXACT, INK, "x")
    axes.axhline(0, color=FAINT, linestyle="--", linewidth=1)
    axes.set_xlabel("σ")
    axes.set_ylabel("−log p(y) less a Gaussian’s, nats")
    legend(axes)
    return figure


def draw_identity(rows: Sequence[Row]) -> Figure:
    """Per interval of σ: growth of -E log p(y), less the integral of the loss. Zero: de Bruijn's identity holds."""
    figure, axes = plot(2.4)
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        known = own[0]["model"]
        style: dict[str, Any] = {"color": colour(known), "marker": marker(known)} if known else {"color": INK, "marker": "x"}
        axes.errorbar([r["sigma"] for r in own], [r["measured"] - r["integral"] for r in own], [r["stderr"] for r in own],
                      label=name, capsize=2, **style)  # fmt: skip
    axes.axhline(0, color=FAINT, linestyle="--", linewidth=1)
    axes.set_xlabel("σ, middle of the interval")
    axes.set_ylabel("difference, nats")
    legend(axes)
    return figure


@register("likelihood", title="Likelihood of noisy images", needs="likelihood", order=60)
def pictures(study: Study) -> Iterator[Picture]:
    """A picture a data set and seed, and one of de Bruijn's identity where several noise levels were measured."""
    every = {(m.spec_id): (m, r) for task in ("likelihood", "likelihood_over_sigma") for m, r in study.files.of_models(task)}
    groups: dict[tuple[str, int], list[tuple[Model, Result]]] = {}
    for model, result in every.values():
        groups.setdefault((model.spec.data.name, model.spec.seed), []).append((model, result))
    for (data, seed), found in groups.items():
        found.sort(key=lambda pair: order(pair[0].spec))
        name = f"likelihood_{data}_{seed}"
        yield Picture(name, _caption(data, found), draw(found), f"-log p(y) over sigma on {data}")
        rows = identity_rows(study, found)
        if rows:
            yield Picture(f"de_bruijn_{data}_{seed}", _identity_caption(rows), draw_identity(rows), "de Bruijn's identity")


@dataclass(frozen=True)
class _Point:
    """A density at one noise level: each image's -log p(y), the denoising loss with its error, and the error of log Z."""

    sigma: float
    nll: np.ndarray
    loss: float
    stderr: float
    log_z_stderr: float


def identity_rows(study: Study, found: Found) -> list[Row]:
    """For each density and two neighbouring σ: {name, model, sigma, measured, integral, stderr}, in nats."""
    losses = study.tables["losses"]
    own = losses[(losses["split"] == "test") & (losses["estimator"] == "energy")].set_index("spec_id")
    lines: dict[tuple[str, str], dict[float, _Point]] = {}
    for model, result in found:
        if model.spec_id not in own.index:
            continue
        row, sigma, kind = own.loc[model.spec_id], model.spec.sigma, model.spec.model
        if "model" in result.arrays:
            point = _Point(sigma, result.arrays["model"], row["loss"], row["stderr"], result.values["stderr"])
            lines.setdefault((label(kind), kind), {})[sigma] = point
        if not np.isnan(row["nonparametric"]):
            point = _Point(sigma, result.arrays["exact"], row["nonparametric"], row["stderr"], 0.0)
            lines.setdefault((EXACT, ""), {})[sigma] = point
    rows: list[Row] = []
    dimension = math.prod(found[0][0].spec.data.shape)
    for (name, kind), points in lines.items():
        line = [points[sigma] for sigma in sorted(points)]
        integrals = entropy_growth([point.sigma for point in line], [point.loss for point in line], dimension)
        for (a, b), integral in zip(pairwise(line), integrals, strict=True):
            growth = b.nll - a.nll
            # Errors of the losses count as if they were all the same way, since the levels share their images.
            of_losses = 0.5 * (a.stderr / a.sigma**2 + b.stderr / b.sigma**2) * math.log(b.sigma / a.sigma)
            error = math.hypot(float(growth.std()) / math.sqrt(len(growth)), of_losses, a.log_z_stderr, b.log_z_stderr)
            rows.append({"name": name, "model": kind, "sigma": (a.sigma + b.sigma) / 2, "measured": float(growth.mean()),
                         "integral": integral, "stderr": error})  # fmt: skip
    return rows


def _caption(data: str, found: Found) -> str:
    largest, parts = max(model.spec.sigma for model, _ in found), []
    for model, result in found:
        values, who = result.values, label(model.spec.model)
        if values["message"]:
            parts.append(f"{who} at σ = {level(model.spec.sigma)} has no number: {values['message']}")
        elif model.spec.sigma == largest:
            row = next(row for row in values["rows"] if row["density"] == "model")
            parts.append(f"{who} {row['nll']:.2f} ± {row['stderr']:.2f} nats ({row['bits']:.3f} bits a pixel; "
                         f"{values['excess']:+.2f} ± {values['excess_stderr']:.2f} against the exact density; "
                         f"log Z between {values['lower']:.2f} and {values['upper']:.2f})")  # fmt: skip
    about = "A random energy is held at one ε. Lower is better; zero is the Gaussian with the mean and covariance of Y."
    return f"−log p(y) of noisy test images of {data}, at σ = {level(largest)}: {'; '.join(parts)}. {about}"


def _identity_caption(rows: Sequence[Row]) -> str:
    parts = []
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        apart = sum(row["measured"] - row["integral"] for row in own)
        error = math.sqrt(sum(row["stderr"] ** 2 for row in own))
        verdict = "agrees" if abs(apart) < 3 * error else "does not agree"
        parts.append(f"{name} {verdict} ({sum(r['measured'] for r in own):.2f} against {sum(r['integral'] for r in own):.2f} "
                     f"nats over all levels, error {error:.2f})")  # fmt: skip
    return (
        f"De Bruijn’s identity: −E log p(y) grows with σ by ½∫E‖∇f‖² dσ², which the loss table gives. {'; '.join(parts)}. "
        "Bars are one standard error."
    )


def _errorbar(axes: Any, points: Sequence[tuple[float, np.ndarray]], name: str, shade: str, mark: str) -> None:
    sigmas, values = zip(*points, strict=True)
    errors = [float(v.std()) / math.sqrt(len(v)) for v in values]
    axes.errorbar(sigmas, [float(v.mean()) for v in values], errors, label=name, color=shade, marker=mark, capsize=2)
