"""Several studies on one page: headlines, figures on common axes, losses side by side, and settings."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from pipelines.files.study_files import StudyFiles, write
from pipelines.reporting.cells import DASH, Table, number, printed, text
from pipelines.reporting.facts import flat, run_facts
from pipelines.reporting.figures import Picture
from pipelines.reporting.figures.loss_over_sigma import compared
from pipelines.reporting.figures.loss_over_sigma import draw as draw_losses
from pipelines.reporting.figures.paired_difference import draw as draw_pairs
from pipelines.reporting.figures.paired_difference import main_pairs
from pipelines.reporting.figures.style import label
from pipelines.reporting.headlines import headlines
from pipelines.reporting.inline import inlined, viewer
from pipelines.reporting.numbers import level
from pipelines.reporting.render import render, said
from pipelines.reporting.statistics import interval, main_group, main_models, over_seeds, own_estimator
from pipelines.reporting.tables import make_tables
from pipelines.words import duration

Tables = dict[str, pd.DataFrame]


def build_comparison(study_dirs: Iterable[Path], out: Path) -> Path:
    """Write a page on several studies, or on copies of them that `keep.py` made, to `out`. Writes nothing else."""
    studies = [StudyFiles(Path(d)) for d in study_dirs]
    names = _distinct(studies)
    tables = {n: make_tables(f) for n, f in zip(names, studies, strict=True)}
    parts = [
        over_seeds(own_estimator(main_group(tables[name]["losses"], files.asked))).assign(study=name)
        for name, files in zip(names, studies, strict=True)
        if len(tables[name]["losses"])
    ]
    losses = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"split": [], "dataset": [], "study": []})
    test = losses[losses["split"] == "test"]
    pictures = [*_pairs(studies, names, tables), *_losses(test)]
    figures = [inlined(picture) for picture in pictures]
    page = render(
        "compare.html.j2",
        title="Unnormalized variational Bayes: studies compared",
        lead=", ".join(names),
        headlines=[
            (n, [said(h) for h in headlines(tables[n]["losses"], tables[n]["pairs"], f.asked)])
            for n, f in zip(names, studies, strict=True)
        ],
        figures=figures,
        losses=[_compared(str(d), g, names) for d, g in test.groupby("dataset")],
        settings=[_settings(studies, names)],
        viewer=viewer(figures),
    )
    return write(Path(out), page.encode())


def _losses(test: pd.DataFrame) -> Iterator[Picture]:
    """Test losses of each study, with one vertical axis for all studies of a data set."""
    for dataset, group in test.groupby("dataset"):
        ends = [compared(own, "test") for _, own in group.groupby("study")]
        domain = min(low for low, _ in ends), max(high for _, high in ends)
        for study, own in group.groupby("study", sort=False):
            yield Picture(f"{study}_{dataset}", f"{study}: {dataset}, test split.", draw_losses(own, "test", domain), "losses")


def _pairs(studies: list[StudyFiles], names: list[str], tables: dict[str, Tables]) -> Iterator[Picture]:
    """Paired differences of each study, with one vertical axis for all studies of a data set."""
    found: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for name, files in zip(names, studies, strict=True):
        for dataset, pairs in main_pairs(tables[name]["pairs"], tables[name]["losses"], files.asked):
            found.setdefault(dataset, []).append((name, pairs))
    for dataset, several in found.items():
        ends = [end for _, pairs in several for _, at in pairs.groupby(["first", "sigma"]) for end in interval(at)[1:]]
        room = 0.06 * (max(*ends, 0.0) - min(*ends, 0.0))
        domain = min(*ends, 0.0) - room, max(*ends, 0.0) + room
        for name, pairs in several:
            caption = f"{name}: {dataset}, paired difference of the test losses, 95 % intervals."
            yield Picture(f"{name}_{dataset}_pairs", caption, draw_pairs(pairs, domain), "paired differences")


def _compared(dataset: str, losses: pd.DataFrame, names: list[str]) -> Table:
    """Test losses: model and sigma down, studies across."""
    names = [name for name in names if (losses["study"] == name).any()]
    rank = {model: i for i, model in enumerate(main_models(losses))}
    rows = []
    for (model, sigma), group in sorted(losses.groupby(["model", "sigma"]), key=lambda g: (rank[g[0][0]], g[0][1])):
        cells = [text(label(model)), text(level(sigma))]
        own = group.drop_duplicates("study").set_index("study")
        for name in names:
            row = own.loc[name] if name in own.index else None
            best = row is not None and len(own) > 1 and row["loss"] == own["loss"].min()
            cells.append(number(row["loss"], row["stderr"], best=best) if row is not None else text(None))
        cells.append(printed(group["paper_loss"].max()))
        rows.append(cells)
    return Table(f"Test loss on {dataset}.", ["model", "σ", *names, "paper"], rows, text_columns=1)


def _settings(studies: list[StudyFiles], names: list[str]) -> Table:
    facts = [dict(run_facts(files)) for files in studies]
    for fact, files in zip(facts, studies, strict=True):
        total = files.timings.get("total_seconds")
        fact["wall time"] = duration(total) if total is not None else DASH
        fact |= {k: v for k, v in flat(files.study.get("provenance", {})) if k in ("git", "device")}
    keys = list(dict.fromkeys(key for fact in facts for key in fact))
    rows = []
    for key in keys:
        values = [fact.get(key) for fact in facts]
        rows.append([text(key), *(text(v, best=len(set(values)) > 1) for v in values)])
    return Table("What was run; bold where the studies differ.", ["", *names], rows, text_columns=1 + len(names), wrap=True)


def _distinct(studies: list[StudyFiles]) -> list[str]:
    """Each study's name, with its folder where two share one."""
    names = [files.name for files in studies]
    return [n if names.count(n) == 1 else f"{n} ({f.root})" for n, f in zip(names, studies, strict=True)]
