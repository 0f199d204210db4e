"""From a study's files to its tables: pure functions to DataFrames, and `build_tables`, which writes them as Parquet.

`pipelines.reporting.schemas` holds the contract. The same files give the same bytes, but for MLflow's run ids.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipelines.files.study_files import Model, Result, StudyFiles
from pipelines.reporting.schemas import CURVES, frame, write_table
from uvb import paper
from uvb.errors import UserError
from uvb.measure.losses import own_estimator
from uvb.models.capacity import default_widths
from uvb.models.capacity import parameters as count_parameters
from uvb.spec import DataRef, RunSpec

Z95 = 1.959963984540054  # the normal's 97.5 % quantile
CLOSE = (
    1.25  # ratio of parameters below which models are compared: the paper's pairs differ by up to 12 %, a sweep's by factors
)


def losses(files: StudyFiles) -> pd.DataFrame:
    """Tables 2 and 3: the denoising loss of Eq. 18 by model, split and estimator, beside the exact references."""
    exact = {(row.checksum, row.train_images, round(row.sigma, 9)): row for row in references(files).itertuples(index=False)}
    rows = []
    for model, result in files.of_models("losses"):
        spec = model.spec
        known = exact.get((spec.data.checksum, spec.data.train_images, round(spec.sigma, 9)))
        for row in result.values["rows"]:
            split, plain = row["split"], _as_the_paper_trains(spec) and row["estimator"] == "energy"
            rows.append(
                {
                    "spec_id": model.spec_id,
                    "split": split,
                    "estimator": row["estimator"],
                    **describe(model),
                    "loss": row["loss"],
                    "stderr": row["stderr"],
                    "floor": known.floor if known and split == "train" else None,
                    "nonparametric": known.nonparametric if known and split == "test" else None,
                    "paper_loss": paper.loss(spec.data.name, spec.model, spec.sigma, split) if plain else None,
                    "run_id": files.run_ids.get(model.spec_id),
                }
            )
    return frame("losses", rows)


def internals(files: StudyFiles) -> pd.DataFrame:
    """Tables 4 and 5: KL and reconstruction, each convention under its own name."""
    rows = []
    for model, result in files.of_models("internals"):
        spec = model.spec
        for row in result.values["rows"]:
            known = paper.internal(spec.data.name, spec.model, spec.sigma, row["quantity"])
            rows.append(
                {
                    "spec_id": model.spec_id,
                    "quantity": row["quantity"],
                    **describe(model),
                    "value": row["value"],
                    "stderr": row["stderr"],
                    "paper_value": known if _as_the_paper_trains(spec) else None,
                    "run_id": files.run_ids.get(model.spec_id),
                }
            )
    return frame("internals", rows)


def curves(files: StudyFiles) -> pd.DataFrame:
    """Training curves: one row an epoch, of unfinished models too."""
    rows = [
        {"spec_id": model.spec_id, "epoch": row["epoch"], **{name: row.get(name) for name in CURVES}}
        for model in files.models.values()
        for row in model.curves
    ]
    return frame("curves", rows)


def capacity(files: StudyFiles) -> pd.DataFrame:
    """Table 1: how many parameters each model has, and its ratio to UVB's, of several the nearest in size."""
    found: dict[tuple[str, str, str], tuple[RunSpec, int]] = {}
    for model in _finished(files):
        spec = model.spec
        found[spec.data.name, spec.model, str(spec.widths)] = (spec, describe(model)["parameters"])
    rows = []
    for (dataset, name, widths), (spec, count) in found.items():
        uvb = [n for (d, m, _), (_, n) in found.items() if (d, m) == (dataset, "uvb")]
        rows.append(
            {
                "dataset": dataset,
                "model": name,
                "widths": widths,
                "shape": "×".join(map(str, spec.data.shape)),
                "parameters": count,
                "ratio": min((count / n for n in uvb), key=lambda ratio: abs(math.log(ratio)), default=None),
                "paper_parameters": paper.parameters(dataset, name),
            }
        )
    return frame("capacity", rows)


def pairs(files: StudyFiles) -> pd.DataFrame:
    """Each model's loss less that of UVB, and of DEEN, trained and measured alike and as large (Sec. 3.2).

    Same images, same noise. UVB and DEEN themselves make one pair, UVB - DEEN; where several sizes of the second are near the
    first's, it is the nearest. The standard error is over images, of the difference of their mean losses, so draws of one
    image count as one.
    """
    rows = []
    for (a, result_a), (b, result_b) in _partners(list(files.of_models("losses"))):
        for split in ("train", "test"):
            one, two = _per_image(a, result_a, split), _per_image(b, result_b, split)
            if one is None or two is None or one.shape != two.shape:
                continue
            difference = one.astype(np.float64) - two.astype(np.float64)  # (N,)
            mean, images = float(difference.mean()), len(difference)
            stderr = float(difference.std(ddof=1)) / math.sqrt(images) if images > 1 else math.nan
            described = describe(a)
            rows.append(
                {
                    "first_id": a.spec_id,
                    "second_id": b.spec_id,
                    "split": split,
                    "first": a.spec.model,
                    "second": b.spec.model,
                    **{k: v for k, v in described.items() if k not in ("model", "widths", "parameters")},
                    "difference": mean,
                    "stderr": stderr,
                    "low": mean - Z95 * stderr,
                    "high": mean + Z95 * stderr,
                    "images": images,
                }
            )
    return frame("pairs", rows)


def references(files: StudyFiles) -> pd.DataFrame:
    """The exact floor of the training loss, the non-parametric test loss and the mean predictor, by sigma."""
    rows = []
    for result in files.results("reference").values():
        data = DataRef(**{**result.values["data"], "shape": tuple(result.values["data"]["shape"])})
        measured = ("floor", "floor_stderr", "nonparametric", "nonparametric_stderr", "mean_predictor")
        rows.append(
            {
                "dataset": data.name,
                "checksum": data.checksum,
                "train_images": data.train_images,
                "sigma": result.values["sigma"],
                **{name: result.values.get(name) for name in measured},
            }
        )
    return frame("references", rows)


def sampling(files: StudyFiles) -> pd.DataFrame:
    """Walk-jump chains, measured (Sec. 3.4): coverage, mixing, and how far the classifier can be trusted."""
    rows = []
    for suffix, model, result in files.walks():
        values = result.values
        for variant, measured in sorted(values["variants"].items()):
            rows.append(
                {
                    "spec_id": model.spec_id,
                    "variant": variant + suffix,
                    **describe(model),
                    **{name: values[name] for name in ("sampler", "delta", "steps", "steps_per_jump", "chains")},
                    "diverged": len(values.get("diverged", [])),
                    "classifier_accuracy": (values.get("classifier_accuracies") or {}).get(
                        variant, values.get("classifier_accuracy")
                    ),
                    **{
                        name: measured.get(name)
                        for name in ("classes_visited", "steps_to_all", "iat", "ess_per_step", "split_rhat")
                    },
                    "run_id": files.run_ids.get(model.spec_id),
                }
            )
    return frame("sampling", rows)


TABLES: dict[str, Callable[[StudyFiles], pd.DataFrame]] = {
    "losses": losses,
    "internals": internals,
    "curves": curves,
    "capacity": capacity,
    "pairs": pairs,
    "references": references,
    "sampling": sampling,
}


def build_tables(study: Path) -> dict[str, pd.DataFrame]:
    """Write every table of a study under `tables/` and return them by name. Raises UserError where `study` is none."""
    files = StudyFiles(study)
    built = {name: build(files) for name, build in TABLES.items()}
    for name, table in built.items():
        write_table(files.root / "tables" / f"{name}.parquet", name, table)
    return built


def describe(model: Model) -> dict[str, Any]:
    """The descriptive columns of a model."""
    spec, done = model.spec, model.done or {}
    return {
        "dataset": spec.data.name,
        "model": spec.model,
        "sigma": spec.sigma,
        "seed": spec.seed,
        "recipe": spec.recipe.name,
        "activation": spec.activation,
        "batch_size": spec.recipe.batch_size,
        "train_images": spec.data.train_images,
        "widths": str(spec.widths),
        "parameters": done.get("parameters") or count_parameters(spec.model, spec.data.shape, spec.widths),
        "epochs": spec.recipe.epochs,
    }


def _finished(files: StudyFiles) -> Iterator[Model]:
    yield from sorted((m for m in files.models.values() if m.done), key=lambda m: m.spec_id)


def _per_image(model: Model, result: Result, split: str) -> np.ndarray | None:
    """Losses by image (N,) of the estimator a model is judged by."""
    offered = [name.removeprefix(f"{split}/") for name in result.arrays if name.startswith(f"{split}/")]
    return result.arrays[f"{split}/{own_estimator(model.spec.model, offered)}"] if offered else None


def _condition(spec: RunSpec) -> str:
    """Everything but the model: what two compared models must share."""
    blob = spec.to_json()
    return json.dumps([blob[k] for k in ("data", "sigma", "recipe", "activation", "seed")], sort_keys=True)


def _compared(first: str, second: str) -> bool:
    """Whether a table has first - second: any model less UVB or DEEN, and of these two UVB - DEEN alone."""
    two = ("uvb", "deen")
    return (first, second) == two if first in two else second in two


def _partners(results: list[tuple[Model, Result]]) -> Iterator[tuple[tuple[Model, Result], tuple[Model, Result]]]:
    """What is compared with what: of each other model the one nearest in size, of those trained and measured alike."""
    for first in results:
        nearest: dict[str, tuple[float, tuple[Model, Result]]] = {}
        for second in results:
            a, b = first[0].spec, second[0].spec
            if not _compared(a.model, b.model) or _condition(a) != _condition(b):
                continue
            if first[1].values.get("settings") != second[1].values.get("settings"):
                continue  # other images, draws or rounding
            apart = abs(math.log(describe(first[0])["parameters"] / describe(second[0])["parameters"]))
            if apart < math.log(CLOSE) and apart < nearest.get(b.model, (math.inf,))[0]:
                nearest[b.model] = apart, second
        for _, second in nearest.values():
            yield first, second


def _as_the_paper_trains(spec: RunSpec) -> bool:
    """Whether the paper's figure is of this model: of SiLU (footnote 3 gives none for ReLU), and of its own widths.

    How many images and epochs it was trained on stands in tables of their own.
    """
    try:
        widths = default_widths(spec.model, spec.data.shape)
    except UserError:  # tables outlive the plug-in that a model came from
        return False
    return spec.activation == paper.SETTINGS.activation and spec.widths == widths
