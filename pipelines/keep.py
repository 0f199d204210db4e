"""Copy a study's results without its weights, so that they can be committed: `python pipelines/keep.py --help`."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.cli import command
from uvb.errors import UserError

KEPT = ("tables", "figures", "report.html", "study.json", "timings.json")
# the numbers of each experiment, and the JSON files of each model
NUMBERS = ("tasks/settings.json", "tasks/*/*/result.json", "models/*/*.json")


@dataclass(frozen=True)
class Keep:
    """Copy a study's tables, experiments' numbers, figures, report, configuration and timings into results/studies/<study>/.

    python pipelines/keep.py outputs/digits
    """

    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """A study's folder, e.g. outputs/digits."""
    out: Path = Path("results/studies")
    """The folder that gets the copy. The copy has the study's name and replaces an older copy, whose README.md stays."""


def keep(config: Keep) -> None:
    """Copy the study, and print the copy's path."""
    from pipelines.files.store import Store
    from pipelines.files.study_files import StudyFiles

    files = StudyFiles(config.study)  # raises if this is not a study
    missing = [name for name in KEPT if not (config.study / name).exists()]
    if missing:
        raise UserError(f"{config.study} has no {', '.join(missing)} yet: let the study end first")
    target = config.out / files.name
    here, there = config.study.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UserError(f"{target} and the study overlap, so a copy would damage the study: choose another --out, e.g. results")
    if target.exists() and not _is_copy(target):
        raise UserError(f"{target} is not a copy of a study: remove it, or choose another --out")
    with Store(there.parent).folder(there.name) as copy:  # the older copy stays until the new one is whole
        for name in KEPT:
            source = config.study / name
            shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy2(source, copy / name)
        for file in sorted(path for pattern in NUMBERS for path in config.study.glob(pattern)):
            into = copy / file.relative_to(config.study)
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, into)
        if (target / "README.md").exists():
            shutil.copy2(target / "README.md", copy / "README.md")
    print(target)


def _is_copy(folder: Path) -> bool:
    """Whether `folder` is an older copy, so that it may be replaced. A copy has no images, weights or arrays."""
    left_out = ("data/*", "models/*/model", "tasks/*/*/arrays.safetensors")
    return (folder / "study.json").exists() and not any(list(folder.glob(pattern)) for pattern in left_out)


def main() -> None:
    """Run what the command line asks for."""
    command(Keep, keep)


if __name__ == "__main__":
    main()
