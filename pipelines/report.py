"""Rebuild a study's report, or compare studies: `python pipelines/report.py --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.cli import command
from uvb.errors import UserError


@dataclass(frozen=True)
class Args:
    """Rebuild a study's report from its stored results, or compare several studies.

    One study again:                      python pipelines/report.py outputs/digits

    Two studies on one page:              python pipelines/report.py results/studies/digits results/studies/digits-four-seeds

    The same numbers, to the last bit?    python pipelines/report.py outputs/a outputs/b --same
    """

    studies: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="STUDY [STUDY ...]")]
    """Study folders as full_study.py writes them, e.g. outputs/digits, or copies by keep.py. The report of one study is
    written into the study's folder. Several studies are compared on one page."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where to write the comparison of several studies. Default: compare.html."""
    same: bool = False
    """Check whether the tables of two studies are the same to the last bit, apart from times and run ids. The exit code is 1
    if they differ."""


def build(args: Args) -> Path:
    """Build the page that `args` asks for and return its path."""
    if not args.studies:
        raise UserError("no study given: name one or more study folders, e.g. outputs/digits")
    print("reading", *args.studies)
    from pipelines.reporting.compare import build_comparison  # this import takes seconds, so it follows the first line
    from pipelines.reporting.page import build_report

    if len(args.studies) > 1:
        return build_comparison(args.studies, args.out or Path("compare.html"))
    if args.out is not None:
        raise UserError("--out is for comparing several studies; the report of one study goes into its own folder")
    return build_report(args.studies[0])


def report(args: Args) -> int:
    """Run the command. The last line printed is the page's path, or says whether two studies are the same."""
    if not args.same:
        print(build(args))
        return 0
    from pipelines.reporting.same import added, differences

    if len(args.studies) != 2:
        raise UserError(f"--same compares two studies; {len(args.studies)} are given")
    found, more = differences(*args.studies), added(*args.studies)
    if more:
        print(f"not compared, since only one of the studies has it: {', '.join(more)}")
    print(*found, "not the same" if found else "the same to the last bit", sep="\n")
    return 1 if found else 0


def main() -> None:
    """Run what the command line asks for."""
    command(Args, report)


if __name__ == "__main__":
    main()
