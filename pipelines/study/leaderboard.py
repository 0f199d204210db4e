"""Rank a sweep's trainings of each model and noise level by their loss, and show the settings in which trainings differ."""

import dataclasses
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.executor.outcomes import outcome
from pipelines.files.formats import read_object
from pipelines.files.store import Store
from pipelines.files.study_files import Model, Result, StudyFiles, write
from uvb.measure.losses import own_estimator
from uvb.models.capacity import parameters
from uvb.spec import RunSpec

SHOWN = 5  # how many trainings of each model and noise level the screen shows
# the columns of every leaderboard; the other columns are the settings in which trainings differ
GIVEN = ("space", "spec_id", "dataset", "model", "sigma", "parameters", "ended", "epochs", "curve_loss", "test_loss", "stderr",
         "error", "run_id")  # fmt: skip


def leaderboard(folder: Path, space: str) -> None:
    """Write tables/leaderboard.parquet: every training of the last command, the best first."""
    files = StudyFiles(folder)
    results = {model.spec_id: result for model, result in files.of_models("losses")}
    wanted = [model for model in files.models.values() if model.spec_id in files.asked]
    told = varied([model.spec for model in wanted])
    rows = [{"space": space, **_row(files, model, results.get(model.spec_id)), **told[model.spec_id]} for model in wanted]
    table = pd.DataFrame(rows, columns=[*GIVEN, *(next(iter(told.values())) if told else ())])
    table["unmeasured"] = table["test_loss"].isna()  # these trainings come last
    table = table.sort_values(["model", "sigma", "unmeasured", "test_loss", "curve_loss", "spec_id"]).drop(columns="unmeasured")
    write(folder / "tables" / "leaderboard.parquet", table.to_parquet(index=False))


def _row(files: StudyFiles, model: Model, result: Result | None) -> dict[str, Any]:
    """A training's row: its settings, how it ended, and the test loss that ranks it."""
    spec, folder = model.spec, files.root
    ended = {"done": "done", "stopped": "stopped early"}.get(outcome(Store(folder), spec.spec_id) or "", "not finished")
    measured = {r["estimator"]: r for r in (result.values["rows"] if result else []) if r["split"] == "test"}
    own = measured[own_estimator(spec.model, measured)] if measured else {}
    return {
        "spec_id": spec.spec_id,
        "dataset": spec.data.name,
        "model": spec.model,
        "sigma": spec.sigma,
        "parameters": parameters(spec.model, spec.data.shape, spec.widths),
        "ended": ended,
        "epochs": len(model.curves),
        "curve_loss": model.curves[-1]["test_loss"] if model.curves else None,
        "test_loss": own.get("loss"),
        "stderr": own.get("stderr"),
        "error": read_object(folder / "models" / spec.spec_id / "failed.json").get("error"),
        "run_id": files.run_ids.get(spec.spec_id),
    }


def varied(specs: Sequence[RunSpec]) -> dict[str, dict[str, Any]]:
    """spec_id -> the settings in which trainings of one model differ, by name, such as ``learning_rate``.

    Settings that have a column in `GIVEN` or follow from the model are left out. The recipe's epochs stay, as `recipe_epochs`,
    since `epochs` counts those trained. The recipe's name is left out too, since it only repeats the changed settings.
    """
    flat = {spec.spec_id: {**_flat(dataclasses.asdict(spec)), "widths": str(spec.widths)} for spec in specs}
    names: dict[str, None] = {}
    for model in dict.fromkeys(spec.model for spec in specs):
        own = [flat[spec.spec_id] for spec in specs if spec.model == model]
        for name in own[0]:
            if len({str(values.get(name)) for values in own}) > 1:
                names[name] = None
    left_out = {"sigma", "model", "objective", "recipe.name", "data.checksum", "data.name"}
    chosen = [name for name in names if name not in left_out and not name.startswith("widths.")]
    short = {name: name.rpartition(".")[2] for name in chosen}
    short |= {name: name.replace(".", "_") for name, last in short.items() if last in GIVEN}  # e.g. recipe_epochs
    return {spec_id: {short[name]: values.get(name) for name in chosen} for spec_id, values in flat.items()}


def _flat(blob: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in blob.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found


def ranking(study: Store) -> list[str]:
    """The leaderboard as lines: the best trainings of each model and noise level, with the settings in which they differ."""
    table = pd.read_parquet(BytesIO(study.read_bytes("tables/leaderboard.parquet")))
    apart = [name for name in table.columns if name not in GIVEN]
    lines = []
    for (dataset, model, sigma), group in table.groupby(["dataset", "model", "sigma"], sort=False):
        lines.append(f"{model} σ={sigma:g} on {dataset}:")
        for place, row in enumerate(group.head(SHOWN).to_dict("records"), 1):
            loss = f"{row['test_loss']:.3f} ± {row['stderr']:.3f}" if pd.notna(row["test_loss"]) else row["ended"]
            lines.append(f"  {place}. {loss:<17}" + ", ".join(f"{k.replace('_', ' ')} {_said(row[k])}" for k in apart))
        if len(group) > SHOWN:
            lines.append(f"  and {len(group) - SHOWN} more in {study.join('tables/leaderboard.parquet')}")
    return lines


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
