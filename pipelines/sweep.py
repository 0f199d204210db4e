"""Train a named space of models, in the stages of a study: `python pipelines/sweep.py --space recipe`."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.cli import command
from pipelines.study.config import StudyConfig, require

if TYPE_CHECKING:
    from uvb.data import ImageSet
    from uvb.spec import RunSpec

REDUCTION = 3  # ASHA keeps a third at each rung
REPORTS = 20  # how often a training tells the scheduler its loss


@dataclass(frozen=True)
class SweepConfig(StudyConfig):
    """Train every point of a named space, and rank them.

    All points of a table are trained to the end, and ranked on the test set. A choice, such as the recipe, is ranked on a fifth
    of the training images, held out; a search is a choice in which ASHA stops bad trainings early. The same command continues
    where it stopped. Results: the study's report, and tables/leaderboard.parquet.

    Loss against parameters:              python pipelines/sweep.py --space capacity

    The recipe, searched for both alike:  python pipelines/sweep.py --space recipe --models uvb deen

    ReLU against SiLU, three seeds:       python pipelines/sweep.py --space activation --seeds 0 1 2
    """

    space: str = "sigma_grid"
    """The space: sigma_grid, capacity, recipe, recipe_details, activation, sec311, remark4, questions, train_size, or a
    plug-in's."""
    study: str = ""
    """Name of the study, and of its folder under --storage. Default: the data set's name and the space's, digits-capacity."""
    extra_models: tuple[str, ...] = ()
    """Only for full_study.py; a sweep's models are --models."""
    experiments: tuple[str, ...] = ("losses",)
    """Downstream tasks for each trained model: names, or default, or all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.extra_models, "--extra-models is of full_study.py alone; a sweep's models are --models")

    @property
    def name(self) -> str:
        return self.study or f"{super().name}-{self.space}"


def sweep_specs(config: StudyConfig, images: "ImageSet") -> "list[RunSpec]":
    """The trainings of the config's space.

    Raises:
        UserError: there is no such space, or it does not train the models asked for.
    """
    from pipelines.study.specs import build_recipe, data_ref
    from tune_spaces import Base, get_space
    from uvb.models.activations import activation

    assert isinstance(config, SweepConfig)
    activation(config.activation)  # raises for an unknown one
    data = data_ref(config, images, config.batch_size)
    recipe = build_recipe(config)
    base = Base(data, config.models, config.sigmas, config.seeds, recipe, config.activation, config.width)
    specs = list(dict.fromkeys(get_space(config.space).specs(base)))
    trained = list(dict.fromkeys(spec.model for spec in specs))
    require(
        config.models == StudyConfig.models or set(config.models) == set(trained),
        f"--models {' '.join(config.models)}: the space {config.space} trains its own, {' '.join(trained)}; leave it out",
    )
    return specs


def scheduler(epochs: int) -> Any:
    """ASHA over the test loss of the curves, by epoch."""
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr="epoch", max_t=epochs, grace_period=max(1, epochs // REDUCTION**2), reduction_factor=REDUCTION
    )


def sweep(config: SweepConfig) -> int:
    """Run the sweep. The last line printed is the report's address."""
    print(f"study {config.name} in {config.storage}, a sweep over {config.space}")
    from pipelines.files.store import Store  # these imports take seconds, so they follow the first line
    from pipelines.study.leaderboard import leaderboard, ranking
    from pipelines.study.session import run_study
    from pipelines.study.specs import build_recipe
    from pipelines.study.stages import Search
    from tune_spaces import get_space

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
    command(SweepConfig, sweep, resumes=True, presets=True)
