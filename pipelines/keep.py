"""Keep what a study found, to be committed: numbers, figures and report, without weights: `python pipelines/keep.py --help`."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipelines.cli import command
from uvb.errors import UserError

KEPT = ("tables", "figures", "report.html", "study.json", "timings.json")
RESULTS = "tasks/*/*/result.json"  # every number of each experiment, the arrays left behind


@dataclass(frozen=True)
class Keep:
    """Copy a study's tables, experiments' numbers, figures, report, configuration and timings into results/studies/<study>/.

    python pipelines/keep.py outputs/digits
    """

    study: tyro.conf.Positional[Path]
    """A study's folder, e.g. outputs/digits."""
    out: Path = Path("results/studies")
    """Where the copy goes: a folder of the study's name in here. An older copy is replaced."""


def keep(config: Keep) -> None:
    """Run it; the copy's path is printed."""
    from pipelines.files.store import Store
    from pipelines.files.study_files import StudyFiles

    files = StudyFiles(config.study)  # refuses what is no study
    missing = [name for name in KEPT if not (config.study / name).exists()]
    if missing:
        raise UserError(f"{config.study} has no {', '.join(missing)} yet: let the study end first")
    target = config.out / files.name
    here, there = config.study.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UserError(f"{target} and the study overlap, and an older copy is replaced: choose another --out, e.g. results")
    if target.exists() and ((target / "models").exists() or not (target / "study.json").exists()):
        raise UserError(f"{target} is no copy of a study: remove it, or choose another --out")
    with Store(there.parent).folder(there.name) as copy:  # whole or absent, and the older one stays until then
        for name in KEPT:
            source = config.study / name
            shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy2(source, copy / name)
        for result in sorted(config.study.glob(RESULTS)):
            into = copy / result.relative_to(config.study)
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(result, into)
    print(target)


if __name__ == "__main__":
    command(Keep, keep)
