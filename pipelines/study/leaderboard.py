"""The ranking of a sweep's trainings: a table, and its best rows as lines."""

from io import BytesIO
from pathlib import Path

import pandas as pd

from pipelines.executor.outcomes import outcome
from pipelines.files.store import Store
from pipelines.files.study_files import StudyFiles, read_json, write
from uvb.measure.losses import own_estimator
from uvb.models.capacity import parameters

SHOWN = 5  # of a model and noise level, on the screen
TOLD = ("activation", "recipe", "batch_size", "schedule", "widths", "seed")  # columns that may tell trainings apart


def leaderboard(folder: Path, space: str) -> None:
    """Write tables/leaderboard.parquet: every training of the sweep, the best of each model and noise level first."""
    files = StudyFiles(folder)
    results = {model.spec_id: result for model, result in files.of_models("losses")}
    wanted = set(files.study.get("specs", []))
    rows = []
    for model in files.models.values():
        spec = model.spec
        if spec.spec_id not in wanted:
            continue
        ended = {"done": "done", "stopped": "stopped early"}.get(outcome(Store(folder), spec.spec_id) or "", "not finished")
        result = results.get(spec.spec_id)
        measured = {r["estimator"]: r for r in (result.values["rows"] if result else []) if r["split"] == "test"}
        own = measured[own_estimator(spec.model, measured)] if measured else {}
        rows.append(
            {
                "space": space, "spec_id": spec.spec_id, "dataset": spec.data.name, "model": spec.model, "sigma": spec.sigma,
                "seed": spec.seed, "activation": spec.activation, "recipe": spec.recipe.name,
                "learning_rate": spec.recipe.learning_rate,
                "batch_size": spec.recipe.batch_size, "schedule": spec.recipe.schedule, "widths": str(spec.widths),
                "parameters": parameters(spec.model, spec.data.shape, spec.widths), "ended": ended,
                "epochs": len(model.curves), "curve_loss": model.curves[-1]["test_loss"] if model.curves else None,
                "test_loss": own.get("loss"), "stderr": own.get("stderr"),
                "error": read_json(folder / "models" / spec.spec_id / "failed.json").get("error"),
                "run_id": files.run_ids.get(spec.spec_id),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    # what was stopped early comes after what was trained to its end
    table["rank"] = table["test_loss"].isna()
    table = table.sort_values(["model", "sigma", "rank", "test_loss", "curve_loss", "spec_id"]).drop(columns="rank")
    write(folder / "tables" / "leaderboard.parquet", table.to_parquet(index=False))


def ranking(study: Store) -> list[str]:
    """The leaderboard in lines, the best of each model and noise level first, each with the settings that differ."""
    table = pd.read_parquet(BytesIO(study.read_bytes("tables/leaderboard.parquet")))
    apart = [name for name in TOLD if table.groupby("model")[name].nunique().max() > 1]
    lines = []
    for (dataset, model, sigma), group in table.groupby(["dataset", "model", "sigma"], sort=False):
        lines.append(f"{model} σ={sigma:g} on {dataset}:")
        for place, row in enumerate(group.head(SHOWN).itertuples(), 1):
            loss = f"{row.test_loss:.3f} ± {row.stderr:.3f}" if pd.notna(row.test_loss) else row.ended
            lines.append(f"  {place}. {loss:<17}" + ", ".join(f"{k.replace('_', ' ')} {getattr(row, k)}" for k in apart))
        if len(group) > SHOWN:
            lines.append(f"  and {len(group) - SHOWN} more in {study.join('tables/leaderboard.parquet')}")
    return lines
