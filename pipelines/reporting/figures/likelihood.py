"""The likelihood of noisy test images under each energy, and de Bruijn's identity between noise levels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from pipelines.files.study_files import Model, Result, order
from pipelines.reporting.figures import Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, lines
from pipelines.reporting.figures.style import label, marker, shade
from pipelines.reporting.numbers import level
from uvb.measure.entropy import entropy_growth

Row = Mapping[str, Any]
Found = Sequence[tuple[Model, Result]]
EXACT = "training set’s exact density"


def draw(found: Found) -> Chart:
    """-log p(y) over σ less that of the Gaussian, one line a model; bars are one standard error of the paired difference."""
    series = []
    for name in dict.fromkeys(model.spec.model for model, _ in found):
        own = {m.spec.sigma: r.arrays["model"] - r.arrays["gaussian"] for m, r in found
               if m.spec.model == name and "model" in r.arrays}  # fmt: skip
        series.append(_series(label(name), own, colour=shade(name), marker=marker(name)))
    exact = {m.spec.sigma: r.arrays["exact"] - r.arrays["gaussian"] for m, r in found}
    series.append(_series(EXACT, exact, marker="x"))
    return lines(series, "σ", "−log p(y) less a Gaussian’s, nats", zero=True)


def draw_identity(rows: Sequence[Row]) -> Chart:
    """Per interval of σ: growth of -E log p(y), less the integral of the loss. Zero: de Bruijn's identity holds."""
    series = []
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name]
        kind = own[0]["model"]
        apart = [row["measured"] - row["integral"] for row in own]
        low, high = ([v + sign * row["stderr"] for v, row in zip(apart, own, strict=True)] for sign in (-1, 1))
        look: dict[str, Any] = {"colour": shade(kind), "marker": marker(kind)} if kind else {"marker": "x"}
        series.append(Series(name, [row["sigma"] for row in own], apart, low, high, **look))
    return lines(series, "σ, middle of the interval", "difference, nats", zero=True, height=150)


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
    by_density: dict[tuple[str, str], dict[float, _Point]] = {}
    for model, result in found:
        if model.spec_id not in own.index:
            continue
        row, sigma, kind = own.loc[model.spec_id], model.spec.sigma, model.spec.model
        if "model" in result.arrays:
            point = _Point(sigma, result.arrays["model"], row["loss"], row["stderr"], result.values["stderr"])
            by_density.setdefault((label(kind), kind), {})[sigma] = point
        if not np.isnan(row["nonparametric"]):
            point = _Point(sigma, result.arrays["exact"], row["nonparametric"], row["stderr"], 0.0)
            by_density.setdefault((EXACT, ""), {})[sigma] = point
    rows: list[Row] = []
    dimension = math.prod(found[0][0].spec.data.shape)
    for (name, kind), points in by_density.items():
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


def _series(name: str, points: Mapping[float, np.ndarray], **look: Any) -> Series:
    """A line through the means of each point's values (N,), with one standard error."""
    sigmas = sorted(points)
    means = [float(points[sigma].mean()) for sigma in sigmas]
    errors = [float(points[sigma].std()) / math.sqrt(len(points[sigma])) for sigma in sigmas]
    low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
    return Series(name, sigmas, means, low, high, **look)
