"""The likelihood of noisy test images under each energy, and de Bruijn's identity between noise levels."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from pipelines.reporting.figures import Found, Picture, Study, register
from pipelines.reporting.figures.chart import Chart, Series, around, lines, of_model
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level
from uvb.measure.entropy import entropy_growth

Row = Mapping[str, Any]
EXACT = "training set’s exact density"


def draw(found: Found) -> Chart:
    """-log p(y) minus the Gaussian's -log p(y) over σ, one line per model. Bars are one standard error of this difference."""
    by_density: dict[str, dict[float, np.ndarray]] = {}
    for model, result in found:
        for name, key in ((model.spec.model, "model"), (EXACT, "exact")):
            if key in result.arrays:
                by_density.setdefault(name, {})[model.spec.sigma] = result.arrays[key] - result.arrays["gaussian"]  # (N,)
    series = []
    for name, points in sorted(by_density.items(), key=lambda density: density[0] == EXACT):  # the exact density comes last
        sigmas = sorted(points)
        means = [float(points[sigma].mean()) for sigma in sigmas]
        errors = [float(points[sigma].std()) / math.sqrt(len(points[sigma])) for sigma in sigmas]
        series.append(_line(name, sigmas, means, errors))
    return lines(series, "σ", "−log p(y) minus a Gaussian’s, nats", zero=True)


def draw_identity(rows: Sequence[Row]) -> Chart:
    """The growth of -E log p(y) over each interval of σ, minus the integral of the loss: zero if the identity holds."""
    series = []
    for name, own in _by_density(rows).items():
        apart = [row["measured"] - row["integral"] for row in own]
        series.append(_line(name, [row["sigma"] for row in own], apart, [row["stderr"] for row in own]))
    return lines(series, "σ, middle of the interval", "difference, nats", zero=True, height=150)


def _line(density: str, x: list[float], y: list[float], error: list[float]) -> Series:
    return around(EXACT, x, y, error, marker="x") if density == EXACT else of_model(density, x, y, error)


@register("likelihood", title="Likelihood of noisy images", needs="likelihood", order=60)
def pictures(study: Study) -> Iterator[Picture]:
    """For each data set and seed a picture of the likelihood, and one of de Bruijn's identity if several σ were measured."""
    for data, seed, found in study.by_data("likelihood", "likelihood_over_sigma"):
        if not any(result.arrays for _, result in found):
            continue  # a copy made by keep.py has no arrays, so the copy's figure stays as it is
        yield Picture(f"likelihood_{data}_{seed}", _caption(data, found), draw(found), f"-log p(y) over sigma on {data}")
        between, over_all = identity_rows(study.tables["losses"], study.tables["references"], found)
        if between:
            caption = _identity_caption(over_all)
            yield Picture(f"de_bruijn_{data}_{seed}", caption, draw_identity(between), "de Bruijn's identity")


@dataclass(frozen=True)
class _Point:
    """A density at one noise level: each image's -log p(y), the denoising loss with its error, and the error of log Z."""

    sigma: float
    nll: np.ndarray
    loss: float
    stderr: float
    log_z_stderr: float


def identity_rows(losses: pd.DataFrame, references: pd.DataFrame, found: Found) -> tuple[list[Row], list[Row]]:
    """For each density: a row for each two neighbouring σ, and one from the lowest to the highest σ. Numbers are in nats."""
    own = losses[(losses["split"] == "test") & (losses["estimator"] == "energy")].set_index("spec_id")
    exact = {(row.checksum, row.train_images, round(row.sigma, 9)): row for row in references.itertuples()}
    densities: dict[str, dict[float, _Point]] = {}
    for model, result in found:
        if model.spec_id not in own.index:
            continue
        row, sigma, kind = own.loc[model.spec_id], model.spec.sigma, model.spec.model
        if "model" in result.arrays:
            point = _Point(sigma, result.arrays["model"], row["loss"], row["stderr"], result.values["stderr"])
            densities.setdefault(kind, {})[sigma] = point
        reference = exact.get((model.spec.data.checksum, model.spec.data.train_images, round(sigma, 9)))
        if reference and "exact" in result.arrays:
            point = _Point(sigma, result.arrays["exact"], reference.nonparametric, reference.nonparametric_stderr, 0.0)
            densities.setdefault(EXACT, {})[sigma] = point
    dimension = math.prod(found[0][0].spec.data.shape)
    between: list[Row] = []
    over_all: list[Row] = []
    for density, points in densities.items():
        line = [points[sigma] for sigma in sorted(points)]
        integrals = entropy_growth([point.sigma for point in line], [point.loss for point in line], dimension)
        between += [_identity_row(density, pair, integral) for pair, integral in zip(pairwise(line), integrals, strict=True)]
        if integrals:
            over_all.append(_identity_row(density, line, sum(integrals)))
    return between, over_all


def _identity_row(density: str, line: Sequence[_Point], integral: float) -> Row:
    """The growth of -E log p(y) from the first to the last σ of `line`, the integral, and the error of their difference."""
    first, last = line[0], line[-1]
    growth = last.nll - first.nll
    # The integral's error, by the trapezoid rule over log σ. All levels share their images, so add the errors, not the squares.
    of_losses = sum(
        0.5 * (a.stderr / a.sigma**2 + b.stderr / b.sigma**2) * math.log(b.sigma / a.sigma) for a, b in pairwise(line)
    )
    of_growth = float(growth.std()) / math.sqrt(len(growth))
    return {
        "density": density,
        "sigma": (first.sigma + last.sigma) / 2,
        "measured": float(growth.mean()),
        "integral": integral,
        "stderr": math.hypot(of_growth, of_losses, first.log_z_stderr, last.log_z_stderr),
    }


def _by_density(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {name: [row for row in rows if row["density"] == name] for name in dict.fromkeys(row["density"] for row in rows)}


def _caption(data: str, found: Found) -> str:
    largest, parts = max(model.spec.sigma for model, _ in found), []
    for model, result in found:
        values, who = result.values, label(model.spec.model)
        if values["message"]:
            parts.append(f"{who} at σ = {level(model.spec.sigma)} has no number: {values['message']}")
        elif model.spec.sigma == largest:
            row = next(row for row in values["rows"] if row["density"] == "model")
            parts.append(f"{who} {row['nll']:.2f}{_error(row['stderr'])} nats ({row['bits']:.3f} bits per pixel; "
                         f"{values['excess']:+.2f}{_error(values['excess_stderr'])} against the exact density; "
                         f"log Z between {values['lower']:.2f} and {values['upper']:.2f})")  # fmt: skip
    about = (
        "A random energy is taken at one fixed ε. Lower is better. The figure shows −log p(y) minus that of a Gaussian "
        "with the mean and covariance of Y. Chance can put log Z outside its bounds, which hold on average. The upper "
        "bound assumes that the reverse chains have reached the energy’s own density. The chains begin at noisy training "
        "images, so they miss a mode without training images."
    )
    return f"−log p(y) of noisy test images of {data}, at σ = {level(largest)}: {'; '.join(parts)}. {about}"


def _error(stderr: float) -> str:
    return f" ± {stderr:.2f}" if math.isfinite(stderr) else " (one image, so no error)"


def _identity_caption(over_all: Sequence[Row]) -> str:
    parts = []
    for row in over_all:
        apart = f"difference {row['measured'] - row['integral']:+.2f} ± {row['stderr']:.2f}"
        said = f"growth {row['measured']:.2f} nats over all levels, {row['integral']:.2f} by the losses, {apart}"
        parts.append(f"{label(row['density'])}: {said}")
    return (
        f"De Bruijn’s identity: as σ grows, −E log p(y) grows by ½∫(d/s − loss/s²) ds with s = σ². {'; '.join(parts)}. "
        "Bars and ± are one standard error."
    )
