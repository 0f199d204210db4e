"""The key, the columns and the types of each table. `write_table` enforces them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.files.study_files import Model, write
from uvb.errors import UserError, first_line
from uvb.models.capacity import parameters as count_parameters

# The columns that are not float64. A column has the same type in all tables.
_TEXT = "spec_id first_id second_id run_id dataset checksum shape model widths recipe activation split estimator quantity"
_WHOLE = "seed batch_size train_images parameters epochs epoch images steps steps_per_jump chains diverged classes_visited"
_KINDS = {pa.string(): f"{_TEXT} variant sampler first second", pa.int64(): f"{_WHOLE} steps_to_all"}
TYPES = {name: kind for kind, names in _KINDS.items() for name in names.split()}
# The columns that describe a model.
DESCRIPTION = "dataset model sigma seed recipe activation batch_size train_images widths parameters epochs"


@dataclass(frozen=True)
class Schema:
    """A table's key, all its columns in order, and the columns that may be null."""

    key: tuple[str, ...]
    names: list[str]
    nullable: frozenset[str]

    @property
    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(name, TYPES.get(name, pa.float64()), name in self.nullable) for name in self.names])


def _schema(key: str, columns: str) -> Schema:
    """A schema from names. A question mark follows the name of a column that may be null."""
    names = [*key.split(), *columns.split()]
    nullable = frozenset(name[:-1] for name in names if name.endswith("?"))
    return Schema(tuple(key.split()), [name.rstrip("?") for name in names], nullable)


SCHEMAS = {
    # Tables 2 and 3. `floor` is null on the test split, `nonparametric` on the training split. `mean_image` and `noisy_image`
    # are the losses of two answers that need no training: the training set's mean image, and y itself.
    "losses": _schema(
        "spec_id split estimator",
        f"{DESCRIPTION} loss stderr? floor? nonparametric? mean_image? noisy_image? paper_loss? run_id?",
    ),
    # Tables 4 and 5. docs/file_formats.md names the quantities.
    "internals": _schema("spec_id quantity", f"{DESCRIPTION} value stderr? paper_value? run_id?"),
    # One row per epoch, counted from 1. `kl` and `recon` are null for a model without a latent. `train_loss` is a mean over the
    # epoch, during which the weights change. `test_loss` and `train_probe` are of the weights at the epoch's end, so
    # `test_loss` minus `train_probe` is the generalization gap.
    "curves": _schema("spec_id epoch", "train_loss? test_loss? kl? recon? images_per_s? seconds? time? train_probe?"),
    # Table 1. `ratio` divides `parameters` by the parameters of the UVB nearest in size, on the same data set.
    "capacity": _schema("dataset model widths", "shape parameters ratio? paper_parameters?"),
    # `difference` is the mean over images of loss(first) - loss(second), on the same images and noise. `low` and `high` are the
    # ends of its 95 % interval.
    "pairs": _schema(
        "first_id second_id split",
        "dataset first second sigma seed recipe activation batch_size train_images epochs difference stderr? low? high? images",
    ),
    # The exact answers for a training set at a sigma. `mean_predictor` is the mean image's loss on the test split.
    "references": _schema(
        "dataset checksum train_images sigma",
        "floor floor_stderr? nonparametric nonparametric_stderr? mean_predictor? mean_image_train?",
    ),
    # Walk-jump chains. `variant` is jump or second_jump, followed by _<sampler> unless the sampler is Langevin's.
    # `classes_visited` and `steps_to_all` are of the first chain, which is never restarted.
    "sampling": _schema(
        "spec_id variant",
        f"{DESCRIPTION} sampler delta steps steps_per_jump chains diverged classes_visited? steps_to_all? iat? ess_per_step? "
        "split_rhat? classifier_accuracy? run_id?",
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
    """Make the table `name` from rows. The schema gives the order and types of its columns, and its key sorts the rows.

    Raises:
        ValueError: a row has other columns, a wrong type, a null that is not allowed, or the key of another row.
    """
    schema = SCHEMAS[name]
    for row in rows:
        if row.keys() != set(schema.names):
            raise ValueError(f"{name}: columns {sorted(set(row) ^ set(schema.names))} are missing or unknown")
    try:
        table = pa.Table.from_pylist(rows, schema=schema.arrow).sort_by([(column, "ascending") for column in schema.key])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{name}: {error}") from None
    for column in schema.names:
        if column not in schema.nullable and table.column(column).null_count:
            raise ValueError(f"{name}: {column} is null, which the schema does not allow")
    found = _to_pandas(table)
    repeated = found.loc[found.duplicated(list(schema.key)), list(schema.key)]
    if len(repeated):
        raise ValueError(f"{name}: the key {tuple(repeated.iloc[0])} appears twice")
    return found


def write_table(path: Path, name: str, table: pd.DataFrame) -> Path:
    """Write `table` as Parquet. The same rows give the same bytes. Raises ValueError if the table breaks its schema."""
    schema = SCHEMAS[name]
    if list(table.columns) != schema.names:
        raise ValueError(f"{name}: columns {list(table.columns)}, not {schema.names}")
    arrow = pa.Table.from_pandas(table, schema=schema.arrow, preserve_index=False).replace_schema_metadata(None)
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    return write(path, buffer.getvalue())


def read_table(path: Path, name: str) -> pd.DataFrame:
    """Read a table that this or an older version wrote. A missing column becomes null if the schema allows that.

    Raises:
        UserError: the file is damaged, or has another schema.
    """
    schema = SCHEMAS[name].arrow
    try:
        arrow = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); restore it, or delete the study and run it again") from error
    for field in schema:
        if field.name not in arrow.column_names and field.nullable:
            arrow = arrow.append_column(field, pa.nulls(len(arrow), field.type))
    if {field.name: field.type for field in arrow.schema} != {field.name: field.type for field in schema}:
        advice = "restore it, or delete the study and run it again"
        raise UserError(f"{path} does not have the columns of the table {name}; {advice}")
    return _to_pandas(arrow.select(schema.names))


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
