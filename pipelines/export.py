"""Hand a study to TensorBoard or Weights & Biases: `python pipelines/export.py --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pipelines.cli import command
from pipelines.words import counted


@dataclass(frozen=True)
class Export:
    """Write a study's parameters, curves and losses for TensorBoard or Weights & Biases, with the same names as in MLflow.

    The study may still be running. An export replaces the files of an earlier one.

    TensorBoard:                          python pipelines/export.py outputs/digits

    Weights & Biases, offline:            python pipelines/export.py outputs/digits --to wandb
    """

    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """A study's folder, e.g. outputs/digits, or a copy by keep.py."""
    to: Literal["tensorboard", "wandb"] = "tensorboard"
    """tensorboard: event files. wandb: offline runs, which `wandb sync` uploads; first `pip install wandb`."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where the files go. Default: a folder named after --to, inside the study's folder."""


def export(config: Export) -> None:
    """Export the study. The last line printed is the folder."""
    print(f"exporting {config.study} for {config.to}")
    from pipelines.tracking.sinks import export as write  # this import takes seconds, so print first

    folder = config.out or config.study / config.to
    print(f"{counted(write(config.study, config.to, folder), 'training')} for {config.to} in\n{folder}")


def main() -> None:
    """Run what the command line asks for."""
    command(Export, export)


if __name__ == "__main__":
    main()
