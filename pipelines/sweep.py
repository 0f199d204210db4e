"""Train and compare a named space of models, as a study: `python pipelines/sweep.py --space recipe`."""

from functools import partial

from pipelines.cli import command
from pipelines.study.config import SweepConfig


def sweep(config: SweepConfig) -> int:
    """Run the sweep. The last line printed is the report's address."""
    print(f"study {config.name} in {config.storage}, a sweep over {config.space}")
    from pipelines.study.addresses import Addresses

    addresses = Addresses(config)  # asks storage, Ray and MLflow whether they answer, while the next imports take seconds
    from pipelines.files.store import Store
    from pipelines.study.leaderboard import leaderboard, ranking
    from pipelines.study.searching import asha_search
    from pipelines.study.session import run_study
    from pipelines.study.specs import build_recipe, sweep_specs
    from tune_spaces import get_space

    space = get_space(config.space)
    search = asha_search(build_recipe(config).epochs) if space.kind == "search" else None
    report, failures = run_study(
        config,
        sweep_specs,
        search,
        held_out=space.kind != "table",
        finishing=partial(leaderboard, space=config.space),
        addresses=addresses,
    )
    if not config.dry_run:
        print(*ranking(Store(Store(config.storage).join(config.name))), sep="\n")
    for line in failures:
        print(f"failed: {line}")
    print(report)
    return 1 if failures else 0


def main() -> None:
    """Run what the command line asks for."""
    command(SweepConfig, sweep, resumes=True, presets=True)


if __name__ == "__main__":
    main()
