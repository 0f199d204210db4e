"""Compare several studies on one page: headlines, figures on common axes, losses side by side, and settings."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipelines.files.study_files import StudyFiles, write
from pipelines.reporting.cells import DASH, Table, first_row, number, printed, text
from pipelines.reporting.facts import flat, run_facts
from pipelines.reporting.figures import Picture
from pipelines.reporting.figures.chart import Ends
from pipelines.reporting.figures.loss_over_sigma import compared
from pipelines.reporting.figures.loss_over_sigma import draw as draw_losses
from pipelines.reporting.figures.paired_difference import draw as draw_pairs
from pipelines.reporting.figures.paired_difference import main_pairs
from pipelines.reporting.figures.style import label
from pipelines.reporting.headlines import all_headlines
from pipelines.reporting.inline import inlined, viewer
from pipelines.reporting.loss_tables import REFERENCES, SPLITS
from pipelines.reporting.numbers import level
from pipelines.reporting.render import render, said
from pipelines.reporting.statistics import interval, main_group, main_models, over_seeds, own_estimator
from pipelines.reporting.tables import make_tables
from pipelines.words import duration


@dataclass(frozen=True)
class Found:
    """A study on the page: its name there, its files, tables and headlines."""

    name: str
    files: StudyFiles
    tables: dict[str, pd.DataFrame]

    @property
    def headlines(self) -> list[tuple[str, str]]:
        return [said(h) for h in all_headlines(self.tables["losses"], self.tables["pairs"], self.files.asked)]

    @property
    def losses(self) -> pd.DataFrame:
        """Test losses of the models that were trained in the most common way (see `main_group`)."""
        losses = over_seeds(own_estimator(main_group(self.tables["losses"], self.files.asked))).assign(study=self.name)
        return losses[losses["split"] == "test"]


def build_comparison(study_dirs: Iterable[Path], out: Path) -> Path:
    """Compare several studies on a page, the file `out`. No other file is written. The studies may be copies by `keep.py`."""
    folders = [StudyFiles(Path(study)) for study in study_dirs]
    names = [files.name for files in folders]
    names = [name if names.count(name) == 1 else f"{name} ({files.root})" for name, files in zip(names, folders, strict=True)]
    studies = [Found(name, files, make_tables(files)) for name, files in zip(names, folders, strict=True)]
    losses = pd.concat([study.losses for study in studies], ignore_index=True)
    figures = [inlined(picture) for picture in (*_pairs(studies), *_losses(losses))]
    page = render(
        "compare.html.j2",
        title="Unnormalized variational Bayes: studies compared",
        lead=", ".join(names),
        studies=studies,
        figures=figures,
        losses=[_compared(str(dataset), group, names) for dataset, group in losses.groupby("dataset")],
        settings=[_settings(studies)],
        viewer=viewer(figures),
    )
    return write(Path(out), page.encode())


def _losses(losses: pd.DataFrame) -> Iterator[Picture]:
    """Test losses of each study, with the same axes for all studies of a data set."""
    for dataset, group in losses.groupby("dataset"):
        loss_ends = [compared(own, "test") for _, own in group.groupby("study")]
        domain = min(low for low, _ in loss_ends), max(high for _, high in loss_ends)
        for study, own in group.groupby("study", sort=False):
            chart = draw_losses(own, "test", domain, _across([group]))
            yield Picture(f"{study}_{dataset}", f"{study}: {dataset}, test split.", chart, "losses")


def _pairs(studies: list[Found]) -> Iterator[Picture]:
    """Paired differences of each study, with the same axes for all studies of a data set."""
    found: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for study in studies:
        for dataset, pairs in main_pairs(study.tables["pairs"], study.tables["losses"], study.files.asked):
            found.setdefault(dataset, []).append((study.name, pairs))
    for dataset, several in found.items():
        groups = [at for _, pairs in several for _, at in pairs.groupby(["first", "sigma"])]
        ends = [end for at in groups for end in interval(at)[1:]]  # low and high, without the mean
        low, high = min(*ends, 0.0), max(*ends, 0.0)
        margin = 0.06 * (high - low)
        for name, pairs in several:
            caption = f"{name}: {dataset}, paired difference of the test losses, 95 % intervals."
            chart = draw_pairs(pairs, (low - margin, high + margin), _across([own for _, own in several]))
            yield Picture(f"{name}_{dataset}_pairs", caption, chart, "paired differences")


def _across(tables: list[pd.DataFrame]) -> Ends | None:
    """The ends of the axis of σ; None if all tables have the same single σ."""
    levels = [float(sigma) for table in tables for sigma in table["sigma"]]
    return (min(levels), max(levels)) if len(set(levels)) > 1 else None


def _compared(dataset: str, losses: pd.DataFrame, names: list[str]) -> Table:
    """Test losses, with a row for each model and sigma, and a column for each study."""
    names = [name for name in names if (losses["study"] == name).any()]
    rows = []
    for model in main_models(losses):
        for sigma, group in losses[losses["model"] == model].groupby("sigma"):
            cells = [text(label(model)), text(level(sigma))]
            own = group.drop_duplicates("study")
            for name in names:
                row = first_row(own[own["study"] == name])
                best = bool(row) and len(own) > 1 and row["loss"] == own["loss"].min()
                cells.append(number(row.get("loss"), row.get("stderr"), best=best))
            references = (number(group[name].max(), quiet=True) for name in SPLITS["test"])
            rows.append([*cells, printed(group["paper_loss"].max()), *references])
    head = ["model", "σ", *names, "paper", *(REFERENCES[name][0] for name in SPLITS["test"])]
    return Table(f"Test loss on {dataset}.", head, rows, notes=[REFERENCES[name][1] for name in SPLITS["test"]])


def _settings(studies: list[Found]) -> Table:
    facts = [dict(run_facts(study.files)) for study in studies]
    for fact, study in zip(facts, studies, strict=True):
        total = study.files.timings.get("total_seconds")
        fact["wall time"] = duration(total) if total is not None else DASH
        fact |= {k: v for k, v in flat(study.files.study.get("provenance", {})) if k in ("git", "device")}
    rows = []
    for key in dict.fromkeys(key for fact in facts for key in fact):
        values = [fact.get(key) for fact in facts]
        rows.append([text(key), *(text(v, best=len(set(values)) > 1) for v in values)])
    head = ["", *(study.name for study in studies)]
    return Table("What was run. Entries that differ are bold.", head, rows, text_columns=len(head), wrap=True)
