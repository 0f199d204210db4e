"""From a study's files to its tables: pure functions to DataFrames, and `build_tables`, which writes them as Parquet.

`pipelines.reporting.schemas` holds the contract. The same files give the same bytes, but for MLflow's run ids.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.files.study_files import Model, StudyFiles
from pipelines.reporting.pairing import pairs
from pipelines.reporting.schemas import CURVES, describe, frame, read_table, write_table
from uvb import paper
from uvb.errors import UserError
from uvb.exact.baselines import noisy_image_loss
from uvb.models.capacity import default_widths
from uvb.spec import DataRef, RunSpec


def losses(files: StudyFiles) -> pd.DataFrame:
    """Tables 2 and 3: the denoising loss of Eq. 18 by model, split and estimator, beside what needs no training."""
    exact = {(row.checksum, row.train_images, round(row.sigma, 9)): row for row in references(files).itertuples(index=False)}
    rows = []
    for model, result in files.of_models("losses"):
        spec, described, paper_like = model.spec, describe(model), _as_the_paper_trains(model.spec)
        known = exact.get((spec.data.checksum, spec.data.train_images, round(spec.sigma, 9)))
        for row in result.values["rows"]:
            split, plain = row["split"], paper_like and row["estimator"] == "energy"
            mean = {"train": "mean_image_train", "test": "mean_predictor"}[split]
            rows.append(
                {
                    "spec_id": model.spec_id,
                    "split": split,
                    "estimator": row["estimator"],
                    **described,
                    "loss": row["loss"],
                    "stderr": row["stderr"],
                    "floor": known.floor if known and split == "train" else None,
                    "nonparametric": known.nonparametric if known and split == "test" else None,
                    "mean_image": _known(getattr(known, mean)) if known else None,
                    "noisy_image": noisy_image_loss(spec.sigma, spec.data.shape),
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


def references(files: StudyFiles) -> pd.DataFrame:
    """The exact floor of the training loss, the non-parametric test loss and the mean image's losses, by sigma."""
    rows = []
    for result in files.results("reference").values():
        data = DataRef(**{**result.values["data"], "shape": tuple(result.values["data"]["shape"])})
        measured = ("floor", "floor_stderr", "nonparametric", "nonparametric_stderr", "mean_predictor", "mean_image_train")
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


def make_tables(files: StudyFiles) -> dict[str, pd.DataFrame]:
    """Every table by name. Raises UserError where a number in the files is none that a table can hold."""
    try:
        made = {name: build(files) for name, build in TABLES.items()}
    except (ValueError, OverflowError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{files.root}: its results make no table ({line}); run the study again") from error
    stored = files.root / "tables" / "pairs.parquet"
    if made["pairs"].empty and files.kept and stored.is_file():  # the losses by image were not kept
        made["pairs"] = read_table(stored, "pairs")
    return made


def build_tables(study: Path) -> dict[str, pd.DataFrame]:
    """Write every table of a study under `tables/` and return them by name. Raises UserError where `study` is none."""
    files = StudyFiles(study)
    built = make_tables(files)
    for name, table in built.items():
        write_table(files.root / "tables" / f"{name}.parquet", name, table)
    return built


def _finished(files: StudyFiles) -> Iterator[Model]:
    yield from sorted((m for m in files.models.values() if m.done), key=lambda m: m.spec_id)


def _as_the_paper_trains(spec: RunSpec) -> bool:
    """Whether the paper's figure is of this model: of SiLU (footnote 3 gives none for ReLU), and of its own widths.

    How many images and epochs it was trained on stands in tables of their own.
    """
    try:
        widths = default_widths(spec.model, spec.data.shape)
    except UserError:  # tables outlive the plug-in that a model came from
        return False
    return spec.activation == paper.SETTINGS.activation and spec.widths == widths


def _known(value: Any) -> float | None:
    return float(value) if pd.notna(value) else None
