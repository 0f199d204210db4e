"""Rebuild a study's report, or compare studies: `python pipelines/report.py --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.cli import command
from uvb.errors import UserError


@dataclass(frozen=True)
class Args:
    """Rebuild a study's report from its stored results, or compare several studies on one page.

    One study again:  python pipelines/report.py outputs/digits

    Two compared:     python pipelines/report.py outputs/a outputs/b --out compare.html
    """

    studies: tyro.conf.Positional[tuple[Path, ...]]
    """Study folders, as full_study.py writes them, e.g. outputs/digits. One: its tables, figures and report.html are
    written into it again. Several: they are compared, and --out is needed."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the comparison of several studies is written, e.g. compare.html."""


def main(args: Args) -> Path:
    """Build what `args` asks for and return the page's path."""
    if not args.studies:
        raise UserError("no study given: name one or more study folders, e.g. outputs/digits")
    print("reading", *args.studies)
    from pipelines.reporting.compare import build_comparison  # these take seconds, so they come after the first line
    from pipelines.reporting.page import build_report

    if len(args.studies) == 1:
        if args.out is not None:
            raise UserError("--out is for comparing several studies; the report of one is written into its own folder")
        return build_report(args.studies[0])
    if args.out is None:
        raise UserError("several studies are compared on one page: say where with --out, e.g. --out compare.html")
    return build_comparison(args.studies, args.out)


def report(args: Args) -> None:
    """Run it; the page's path is printed."""
    print(main(args))


if __name__ == "__main__":
    command(Args, report)
