"""A named space of trainings: `python pipelines/sweep.py --space recipe`. The stages are those of a study."""

from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from ray.tune.schedulers import ASHAScheduler

from pipelines.cli import command
from pipelines.executor.outcomes import outcome
from pipelines.files.store import Store
from pipelines.files.study_files import StudyFiles, read_json, write
from pipelines.study.config import StudyConfig, build_recipe, data_ref, require
from pipelines.study.session import Search, run_study
from tune_spaces import Base, get_space
from uvb.data import ImageSet
from uvb.measure.losses import own_estimator
from uvb.models.activations import activation
from uvb.models.capacity import parameters
from uvb.spec import RunSpec

REDUCTION = 3  # ASHA keeps a third at each rung
SHOWN = 5  # of a model and noise level, on the screen
REPORTS = 20  # a training tells the scheduler its loss so often


@dataclass(frozen=True)
class SweepConfig(StudyConfig):
    """Train every point of a named space, and rank them.

    A space that is a table is trained in full and ranked on the test set. One there to choose by, such as the recipe, is
    ranked on a fifth of the training images, held out; a search among these is thinned out by ASHA while it trains. Running
    the same command again goes on where it stopped. Results: the study's report, and tables/leaderboard.parquet.

    Loss against parameters:              python pipelines/sweep.py --space capacity

    The recipe, searched for both alike:  python pipelines/sweep.py --space recipe --models uvb deen

    ReLU against SiLU, three seeds:       python pipelines/sweep.py --space activation --seeds 0 1 2
    """

    space: str = "sigma_grid"
    """The space: sigma_grid, capacity, recipe, recipe_details, recipe_clip, recipe_clip_alone, recipe_optimizer, recipe_beta2,
    recipe_beta2_alone, activation, sec311, remark4, questions, train_size, or a plug-in's."""
    study: str = ""
    """Name of the study, and of its folder under --storage. Default: the data set's name and the space's, digits-capacity."""
    extra_models: tuple[str, ...] = ()
    """Of full_study.py alone: a sweep's models are --models."""
    experiments: tuple[str, ...] = ("losses",)
    """Downstream tasks a trained model: names, or default, or all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.extra_models, "--extra-models is of full_study.py alone; a sweep's models are --models")

    @property
    def name(self) -> str:
        return self.study or f"{super().name}-{self.space}"


def sweep_specs(config: StudyConfig, images: ImageSet) -> list[RunSpec]:
    """The trainings of the config's space."""
    assert isinstance(config, SweepConfig)
    activation(config.activation)  # raises for an unknown one
    base = Base(
        data_ref(config, images),
        config.models,
        config.sigmas,
        config.seeds,
        build_recipe(config),
        config.activation,
        config.width,
    )
    specs = list(dict.fromkeys(get_space(config.space).specs(base)))
    trained = list(dict.fromkeys(spec.model for spec in specs))
    require(
        config.models == StudyConfig.models or set(config.models) == set(trained),
        f"--models {' '.join(config.models)}: the space {config.space} trains its own, {' '.join(trained)}; leave it out",
    )
    return specs


def scheduler(epochs: int) -> Any:
    """ASHA over the test loss of the curves, by epoch."""
    return ASHAScheduler(
        time_attr="epoch", max_t=epochs, grace_period=max(1, epochs // REDUCTION**2), reduction_factor=REDUCTION
    )


def leaderboard(folder: Path, space: str) -> None:
    """tables/leaderboard.parquet: every training of the sweep, the best of each model and noise level first."""
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
    """The leaderboard in lines, the best of each model and noise level first, each told by what differs between them."""
    table = pd.read_parquet(BytesIO(study.read_bytes("tables/leaderboard.parquet")))
    apart = [
        k
        for k in ("activation", "recipe", "batch_size", "schedule", "widths", "seed")
        if table.groupby("model")[k].nunique().max() > 1
    ]
    lines = []
    for (dataset, model, sigma), group in table.groupby(["dataset", "model", "sigma"], sort=False):
        lines.append(f"{model} σ={sigma:g} on {dataset}:")
        for place, row in enumerate(group.head(SHOWN).itertuples(), 1):
            loss = f"{row.test_loss:.3f} ± {row.stderr:.3f}" if pd.notna(row.test_loss) else row.ended
            lines.append(f"  {place}. {loss:<17}" + ", ".join(f"{k.replace('_', ' ')} {getattr(row, k)}" for k in apart))
        if len(group) > SHOWN:
            lines.append(f"  and {len(group) - SHOWN} more in {study.join('tables/leaderboard.parquet')}")
    return lines


def sweep(config: SweepConfig) -> int:
    """Run the sweep; the last line printed is the report's address."""
    space = get_space(config.space)
    search = None
    if space.kind == "search":
        epochs = build_recipe(config).epochs
        search = Search(partial(scheduler, epochs), report_epochs=max(1, epochs // REPORTS))
    report, failures = run_study(
        config, sweep_specs, search, held_out=space.kind != "table", finishing=partial(leaderboard, space=config.space)
    )
    if not config.dry_run:
        print(*ranking(Store(Store(config.storage).join(config.name))), sep="\n")
    for line in failures:
        print(f"failed: {line}")
    print(report)
    return 1 if failures else 0


if __name__ == "__main__":
    command(SweepConfig, sweep, resumes=True)
