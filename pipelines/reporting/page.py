"""Build the report, one self-contained page, from a study's files."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

from pipelines.errors import log_error
from pipelines.files.study_files import StudyFiles, write
from pipelines.reporting import facts, loss_tables, model_tables, pair_tables
from pipelines.reporting.figures import Study, drawings
from pipelines.reporting.figures.style import THEME
from pipelines.reporting.headlines import all_headlines
from pipelines.reporting.inline import Inline, inlined, store_figures, stored_figures, viewer
from pipelines.reporting.render import render, said
from pipelines.reporting.tables import build_tables, make_tables
from uvb.errors import UserError, with_type
from uvb.experiments import experiment_names, get_experiment

log = logging.getLogger(__name__)
SHOWN = 4  # figures of a drawing that the page shows at first; a click unfolds the others
PARTS = {  # part of the page -> its drawings; all other drawings are in the part "figures"
    "found": ("paired_difference", "loss_over_sigma", "legible"),
    "losses": ("generalization_gap", "training_size", "loss_over_capacity"),
}


@dataclass(frozen=True)
class Section:
    """The figures of one drawing, in one part of the page."""

    name: str
    title: str
    paper: str
    figures: list[Inline]
    part: str
    shown: int = SHOWN


def build_report(study_dir: Path) -> Path:
    """Write `tables/`, `figures/` and `report.html` of the study in `study_dir`, and return the report's path.

    The page leaves out a part that has no results, and names it in one line. In a copy made by `keep.py`, the tables and the
    figures that need arrays stay as they are.

    Raises:
        UserError: the folder is not a study or cannot be written, or one of its files is damaged.
    """
    files = StudyFiles(Path(study_dir))
    tables = make_tables(files) if files.kept else build_tables(files.root)
    sections, missing = draw_all(Study(files, tables))
    models, asked, own = list(files.models.values()), files.asked, files.asked_models
    losses = tables["losses"]
    page = render(
        "report.html.j2",
        title=f"Unnormalized variational Bayes: {files.name}",
        lead=facts.lead([m for m in own if m.done]),
        headlines=[said(h) for h in all_headlines(losses, tables["pairs"], asked)],
        warnings=facts.warnings(files, losses),
        run=facts.run_facts(files),
        unfinished=facts.unfinished(models, asked),
        capacity=model_tables.capacity(tables["capacity"]),
        losses=[*loss_tables.loss_tables(losses, asked), *pair_tables.pair_tables(tables["pairs"], losses, asked)],
        more_losses=loss_tables.other_losses(losses, asked),
        internals=model_tables.internals_tables(tables["internals"], asked),
        sampling=model_tables.sampling_table(tables["sampling"]),
        sections=sections,
        missing=[*missing, *facts.undefined(files)],
        differences=model_tables.difference_tables(own),
        speed=model_tables.speed_table(models),
        **facts.cost(files.timings),
        provenance=facts.provenance(files),
        viewer=viewer(figure for section in sections for figure in section.figures),
    )
    return write(files.root / "report.html", page.encode())


def draw_all(study: Study) -> tuple[list[Section], list[str]]:
    """Draw all figures and write them to `figures/`. Return the sections, and a line for each drawing that lacks figures."""
    sections, missing = [], []
    folder, kept = study.files.root / "figures", study.files.kept
    before = stored_figures(folder) if kept else {}
    whole = all(model.done for model in study.files.asked_models)
    for drawing in drawings():
        name = f"{drawing.title} ({drawing.paper})" if drawing.paper else drawing.title
        figures: list[Inline] = []
        failed = False
        if kept and any(study.of_models(drawing.needs)):
            problem = f"no arrays of “{drawing.needs}”"
        else:
            problem = f"no results of “{drawing.needs}”{_how(drawing.needs, whole)}"
        try:
            with matplotlib.rc_context(THEME):
                figures += map(inlined, drawing.pictures(study))
        except UserError:
            raise
        except Exception as error:  # unexpected results of one experiment must not prevent the report
            failed = True
            which = "some of its results" if figures else "its results"
            problem = f"{which} could not be drawn ({with_type(error)})"
            if not kept:
                log.warning("%s: %s; its traceback is in %s", drawing.name, problem, log_error(error))
        again = {figure.name for figure in figures}
        figures += [old for old in before.get(drawing.name, []) if old.name not in again]
        if figures:
            part = next((part for part, names in PARTS.items() if drawing.name in names), "figures")
            sections.append(Section(drawing.name, drawing.title, drawing.paper, figures, part))
        if not figures or (failed and drawing.name not in before):  # stored figures take the place of those that failed
            missing.append(f"{name}: {problem}.")
    store_figures(folder, {section.name: section.figures for section in sections})
    if "legible" not in {section.name for section in sections}:  # older copies lack it: show a figure of “denoise_rows” instead
        sections = [replace(s, part="found", shown=1) if s.name == "denoise_rows" else s for s in sections]
    return sections, missing


def _how(experiment: str, whole: bool) -> str:
    """How to get an experiment's results; "" if `experiment` is not one. `whole`: every model of the study is trained."""
    if experiment not in experiment_names():
        return ""
    if not whole:
        return " (the study is not finished: run its command again)"
    data = get_experiment(experiment).data
    how = f"only --dataset {data} has them" if data else f"--experiments default {experiment} makes them"
    return f" ({how})"
