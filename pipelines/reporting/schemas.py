"""The tables' contract: each table's key, columns and types, written once. `write_table` enforces it."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.files.study_files import Model, write
from uvb.models.capacity import parameters as count_parameters

_TEXT, _REAL, _WHOLE = pa.string(), pa.float64(), pa.int64()

# What describes a model, in every table of models.
DESCRIPTION = (
    ("dataset", _TEXT),
    ("model", _TEXT),
    ("sigma", _REAL),
    ("seed", _WHOLE),
    ("recipe", _TEXT),
    ("activation", _TEXT),
    ("batch_size", _WHOLE),
    ("train_images", _WHOLE),
    ("widths", _TEXT),
    ("parameters", _WHOLE),
    ("epochs", _WHOLE),
)
CURVES = ("train_loss", "test_loss", "kl", "recon", "images_per_s", "seconds", "time", "train_probe")


@dataclass(frozen=True)
class Schema:
    """A table's key, its columns in order, and those of them that may be null."""

    key: tuple[str, ...]
    columns: tuple[tuple[str, pa.DataType], ...]
    nullable: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(name, kind, name in self.nullable) for name, kind in self.columns])


def _schema(key: list[tuple[str, pa.DataType]], columns: list[tuple[str, pa.DataType]], *nullable: str) -> Schema:
    return Schema(tuple(name for name, _ in key), (*key, *columns), frozenset(nullable))


SCHEMAS: dict[str, Schema] = {
    # Tables 2 and 3. `floor` is null on the test split, `nonparametric` on the training split. `mean_image` and `noisy_image`
    # are the losses of two answers that need no training: the training set's mean image, and y itself.
    "losses": _schema(
        [("spec_id", _TEXT), ("split", _TEXT), ("estimator", _TEXT)],
        [
            *DESCRIPTION,
            *((name, _REAL) for name in ("loss", "stderr", "floor", "nonparametric")),
            *((name, _REAL) for name in ("mean_image", "noisy_image", "paper_loss")),
            ("run_id", _TEXT),
        ],
        "floor",
        "nonparametric",
        "mean_image",
        "noisy_image",
        "paper_loss",
        "run_id",
    ),
    # Tables 4 and 5; `pipelines.files.study_files` names the quantities.
    "internals": _schema(
        [("spec_id", _TEXT), ("quantity", _TEXT)],
        [*DESCRIPTION, *((name, _REAL) for name in ("value", "stderr", "paper_value")), ("run_id", _TEXT)],
        "paper_value",
        "run_id",
    ),
    # One row an epoch, counted from 1; `kl` and `recon` are null for a model without a latent. `test_loss` less `train_probe`
    # is the gap: `train_loss` is the mean over the epoch instead, while the weights changed.
    "curves": _schema(
        [("spec_id", _TEXT), ("epoch", _WHOLE)],
        [(name, _REAL) for name in CURVES],
        *CURVES,
    ),
    # Table 1. `ratio` is to UVB's count on the same images.
    "capacity": _schema(
        [("dataset", _TEXT), ("model", _TEXT), ("widths", _TEXT)],
        [("shape", _TEXT), ("parameters", _WHOLE), ("ratio", _REAL), ("paper_parameters", _REAL)],
        "ratio",
        "paper_parameters",
    ),
    # `difference` is the mean over images of loss(first) - loss(second), same images and noise; low, high: 95 %.
    "pairs": _schema(
        [("first_id", _TEXT), ("second_id", _TEXT), ("split", _TEXT)],
        [
            ("dataset", _TEXT),
            ("first", _TEXT),
            ("second", _TEXT),
            ("sigma", _REAL),
            ("seed", _WHOLE),
            ("recipe", _TEXT),
            ("activation", _TEXT),
            ("batch_size", _WHOLE),
            ("train_images", _WHOLE),
            ("epochs", _WHOLE),
            *((name, _REAL) for name in ("difference", "stderr", "low", "high")),
            ("images", _WHOLE),
        ],
    ),
    # The exact answers for a training set at a sigma. `mean_predictor` is the mean image's loss on the test split.
    "references": _schema(
        [("dataset", _TEXT), ("checksum", _TEXT), ("train_images", _WHOLE), ("sigma", _REAL)],
        [
            *((name, _REAL) for name in ("floor", "floor_stderr", "nonparametric", "nonparametric_stderr")),
            *((name, _REAL) for name in ("mean_predictor", "mean_image_train")),
        ],
        "floor_stderr",
        "nonparametric_stderr",
        "mean_predictor",
        "mean_image_train",
    ),
    # Walk-jump chains. `variant` is jump or second_jump, followed by _<sampler> where it is not Langevin's.
    # `classes_visited` and `steps_to_all` are of the first chain, which is never restarted.
    "sampling": _schema(
        [("spec_id", _TEXT), ("variant", _TEXT)],
        [
            *DESCRIPTION,
            ("sampler", _TEXT),
            ("delta", _REAL),
            *((name, _WHOLE) for name in ("steps", "steps_per_jump", "chains", "diverged")),
            ("classes_visited", _WHOLE),
            ("steps_to_all", _WHOLE),
            *((name, _REAL) for name in ("iat", "ess_per_step", "split_rhat", "classifier_accuracy")),
            ("run_id", _TEXT),
        ],
        "classes_visited",
        "steps_to_all",
        "iat",
        "ess_per_step",
        "split_rhat",
        "classifier_accuracy",
        "run_id",
    ),
}


def describe(model: Model) -> dict[str, Any]:
    """The columns of `DESCRIPTION` for a model."""
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


def frame(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as the table `name`: its columns in order, its types, sorted by its key.

    Raises ValueError where a row has other columns, the wrong type, a null that is not allowed, or a key seen before.
    """
    schema = SCHEMAS[name]
    for row in rows:
        if set(row) != set(schema.names):
            raise ValueError(f"{name}: columns {sorted(set(row) ^ set(schema.names))} are missing or unknown")
    rows = sorted(rows, key=lambda row: tuple(row[column] for column in schema.key))
    keys = [tuple(row[column] for column in schema.key) for row in rows]
    repeated = next((a for a, b in zip(keys, keys[1:], strict=False) if a == b), None)
    if repeated:
        raise ValueError(f"{name}: the key {repeated} appears twice")
    try:
        table = pa.Table.from_pylist(rows, schema=schema.arrow)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{name}: {error}") from None
    for column in schema.names:
        if column not in schema.nullable and table.column(column).null_count:
            raise ValueError(f"{name}: {column} is null, which the schema does not allow")
    return table.to_pandas(types_mapper={_WHOLE: pd.Int64Dtype()}.get)


def write_table(path: Path, name: str, table: pd.DataFrame) -> Path:
    """Write `table` as Parquet; the same rows give the same bytes. Raises ValueError where it breaks its schema."""
    schema = SCHEMAS[name]
    if list(table.columns) != schema.names:
        raise ValueError(f"{name}: columns {list(table.columns)}, not {schema.names}")
    arrow = pa.Table.from_pandas(table, schema=schema.arrow, preserve_index=False).replace_schema_metadata(None)
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    return write(path, buffer.getvalue())


def read_table(path: Path, name: str) -> pd.DataFrame:
    """The inverse of `write_table`. Columns that an older version lacked, and that may be null, are null.

    Raises:
        ValueError: the file has another schema.
    """
    arrow, schema = pq.read_table(path), SCHEMAS[name].arrow
    for place, field in enumerate(schema):
        if field.name not in arrow.column_names and field.nullable:
            arrow = arrow.add_column(place, field, pa.nulls(len(arrow), field.type))
    if not arrow.schema.equals(schema):
        raise ValueError(f"{path} does not have the schema of {name}")
    return arrow.to_pandas(types_mapper={_WHOLE: pd.Int64Dtype()}.get)
