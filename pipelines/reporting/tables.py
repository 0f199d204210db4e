"""Make a study's tables from its files: pure functions return DataFrames, and `build_tables` writes them as Parquet.

`pipelines.reporting.schemas` defines the columns. The same files give the same bytes.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.files.study_files import Model, Result, StudyFiles
from pipelines.reporting.numbers import known
from pipelines.reporting.pairing import pairs
from pipelines.reporting.schemas import SCHEMAS, describe, frame, read_table, write_table
from uvb import paper
from uvb.errors import UserError, one_line
from uvb.exact.baselines import noisy_image_loss
from uvb.models.capacity import default_widths
from uvb.spec import DataRef, RunSpec

Rows = Iterator[dict[str, Any]]


def losses(files: StudyFiles) -> pd.DataFrame:
    """Tables 2 and 3: the denoising loss of Eq. 18 by model, split and estimator, and losses that need no training."""
    exact = {(row.checksum, row.train_images, round(row.sigma, 9)): row for row in references(files).itertuples(index=False)}

    def rows() -> Rows:
        for model, result, about in _measured(files, "losses"):
            spec, comparable = model.spec, _as_the_paper_trains(model.spec)
            reference = exact.get((spec.data.checksum, spec.data.train_images, round(spec.sigma, 9)))
            for row in result.values["rows"]:
                split = row["split"]
                theirs = paper.loss(spec.data.name, spec.model, spec.sigma, split)
                mean = {"train": "mean_image_train", "test": "mean_predictor"}[split]
                yield about | {
                    **{name: row[name] for name in ("split", "estimator", "loss", "stderr")},
                    "floor": reference.floor if reference and split == "train" else None,
                    "nonparametric": reference.nonparametric if reference and split == "test" else None,
                    "mean_image": known(getattr(reference, mean)) if reference else None,
                    "noisy_image": noisy_image_loss(spec.sigma, spec.data.shape),
                    "paper_loss": theirs if comparable and row["estimator"] == "energy" else None,
                }

    return frame("losses", list(rows()))


def internals(files: StudyFiles) -> pd.DataFrame:
    """Tables 4 and 5: KL and reconstruction. Each convention of computing them has a name (docs/file_formats.md)."""

    def rows() -> Rows:
        for model, result, about in _measured(files, "internals"):
            spec, comparable = model.spec, _as_the_paper_trains(model.spec)
            for row in result.values["rows"]:
                theirs = paper.internal(spec.data.name, spec.model, spec.sigma, row["quantity"])
                found = {name: row[name] for name in ("quantity", "value", "stderr")}
                yield about | found | {"paper_value": theirs if comparable else None}

    return frame("internals", list(rows()))


def curves(files: StudyFiles) -> pd.DataFrame:
    """Training curves: one row per epoch, for unfinished models too."""
    names = SCHEMAS["curves"].names[1:]
    found = [(model.spec_id, row) for model in files.models.values() for row in model.curves]
    return frame("curves", [{"spec_id": spec_id, **{name: row.get(name) for name in names}} for spec_id, row in found])


def capacity(files: StudyFiles) -> pd.DataFrame:
    """Table 1: each model's number of parameters, and its ratio to the number of the UVB nearest in size."""
    found: dict[tuple[str, str, str], tuple[RunSpec, int]] = {}
    for model in files.models.values():
        if model.done:
            found[model.spec.data.name, model.spec.model, str(model.spec.widths)] = model.spec, describe(model)["parameters"]
    rows = []
    for (dataset, name, widths), (spec, count) in found.items():
        of_uvb = [own for (data, model, _), (_, own) in found.items() if (data, model) == (dataset, "uvb")]
        rows.append(
            {
                "dataset": dataset,
                "model": name,
                "widths": widths,
                "shape": "×".join(map(str, spec.data.shape)),
                "parameters": count,
                "ratio": min((count / own for own in of_uvb), key=lambda ratio: abs(math.log(ratio)), default=None),
                "paper_parameters": paper.parameters(dataset, name),
            }
        )
    return frame("capacity", rows)


def references(files: StudyFiles) -> pd.DataFrame:
    """The exact floor of the training loss, the non-parametric test loss and the mean image's losses, by sigma."""
    rows = []
    for result in files.results("reference").values():
        data = DataRef(**{**result.values["data"], "shape": tuple(result.values["data"]["shape"])})
        about = {"dataset": data.name, "checksum": data.checksum, "train_images": data.train_images}
        rows.append(about | {name: result.values.get(name) for name in SCHEMAS["references"].names[3:]})
    return frame("references", rows)


def sampling(files: StudyFiles) -> pd.DataFrame:
    """Measures of walk-jump chains (Sec. 3.4): visited classes, mixing, and the classifier's accuracy."""
    rows = []
    for suffix, model, result in files.walks():
        values = result.values
        accuracies = values.get("classifier_accuracies") or {}
        for variant, measured in sorted(values["variants"].items()):
            own = {
                "variant": variant + suffix,
                "diverged": len(values.get("diverged", [])),
                "classifier_accuracy": accuracies.get(variant, values.get("classifier_accuracy")),
            }
            found = {**values, **measured, **_about(files, model), **own}
            rows.append({name: found.get(name) for name in SCHEMAS["sampling"].names})
    return frame("sampling", rows)


TABLES = {make.__name__: make for make in (losses, internals, curves, capacity, pairs, references, sampling)}


def make_tables(files: StudyFiles) -> dict[str, pd.DataFrame]:
    """Every table by name. If `files` are a copy by keep.py, the tables that would be empty are read from the copy.

    Raises:
        UserError: the files have a value that does not fit into a table.
    """
    try:
        made = {name: build(files) for name, build in TABLES.items()}
    except (ValueError, OverflowError) as error:
        line = one_line(error)
        raise UserError(f"{files.root}: its results do not fit into the tables ({line}); run the study again") from error
    if files.kept:  # a copy made by keep.py lacks the losses of single images; an old copy lacks all results
        for name, table in made.items():
            stored = files.root / "tables" / f"{name}.parquet"
            if table.empty and stored.is_file():
                made[name] = read_table(stored, name)
    return made


def build_tables(study: Path) -> dict[str, pd.DataFrame]:
    """Write every table of a study under `tables/` and return the tables by name.

    Raises:
        UserError: `study` is not a study, or `make_tables` refuses its files.
    """
    files = StudyFiles(study)
    built = make_tables(files)
    for name, table in built.items():
        write_table(files.root / "tables" / f"{name}.parquet", name, table)
    return built


def _about(files: StudyFiles, model: Model) -> dict[str, Any]:
    """The columns that every table of measurements has."""
    return {"spec_id": model.spec_id, **describe(model), "run_id": files.run_ids.get(model.spec_id)}


def _measured(files: StudyFiles, task: str) -> Iterator[tuple[Model, Result, dict[str, Any]]]:
    """Each model with its result of a task, and with the columns of `_about`."""
    yield from ((model, result, _about(files, model)) for model, result in files.of_models(task))


def _as_the_paper_trains(spec: RunSpec) -> bool:
    """Whether a model has SiLU and the widths of the paper's model. The paper gives no losses for ReLU (footnote 3).

    The numbers of images and epochs may differ from the paper's. The report's table of training settings shows them.
    """
    try:
        widths = default_widths(spec.model, spec.data.shape)
    except UserError:  # the model's plug-in is gone
        return False
    return spec.activation == paper.SETTINGS.activation and spec.widths == widths
