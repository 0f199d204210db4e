"""One self-contained page from a study's files: tables, figures and text, rebuilt from what is stored."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from pipelines.files.study_files import Model, StudyFiles, order, write
from pipelines.reporting import cells as layout
from pipelines.reporting.figures import Drawing, Picture, Study, drawings
from pipelines.reporting.figures.loss_over_sigma import draw as draw_losses
from pipelines.reporting.figures.style import file_name, label, standalone, theme, to_svg, variables
from pipelines.reporting.headlines import (
    counted,
    headlines,
    level,
    lone_headlines,
    main_group,
    main_models,
    over_seeds,
    own_estimator,
)
from pipelines.reporting.tables import TABLES, build_tables
from pipelines.study.progress import name_of
from uvb.errors import UserError
from uvb.experiments import experiment_names, get_experiment
from uvb.plan import Plan

log = logging.getLogger(__name__)
_IN_LOSSES = {"loss_over_sigma", "generalization_gap", "training_size", "loss_over_capacity"}  # drawn beside the loss tables
SHOWN = 4  # figures of one kind that are shown at once; the rest folds away
FOOT = "Saremi, “Unnormalized Variational Bayes”, 2020, is the paper that tables, figures, sections and equations refer to."


@dataclass(frozen=True)
class Inline:
    """A figure in the page."""

    name: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """The figures of one drawing."""

    name: str
    title: str
    paper: str
    part: str
    figures: list[Inline]
    shown: int = SHOWN


def build_report(study_dir: Path) -> Path:
    """Write `tables/`, `figures/` and `report.html` of the study in `study_dir`, and return the report's path.

    What has no results is left out and named in one line. Raises UserError where the folder is no study or cannot be
    written.
    """
    files = StudyFiles(Path(study_dir))
    study = Study(files, build_tables(files.root))
    sections, missing = draw_all(study)
    tables, models, asked = study.tables, list(files.models.values()), files.asked
    own = files.asked_models
    page = _render(
        "report.html.j2",
        title=f"Unnormalized variational Bayes: {files.name}",
        lead=_lead([m for m in own if m.done]),
        headlines=headlines(tables["losses"], tables["pairs"], asked),
        lone_headlines=lone_headlines(tables["losses"], asked),
        run=_run_facts(files),
        unfinished=_unfinished(models, asked),
        capacity=layout.capacity(tables["capacity"]),
        losses=[*layout.loss_tables(tables["losses"], asked), *layout.pair_tables(tables["pairs"], tables["losses"], asked)],
        more_losses=layout.other_losses(tables["losses"], asked),
        internals=layout.internals_tables(tables["internals"], asked),
        sampling=layout.sampling_table(tables["sampling"]),
        sections=sections,
        missing=missing,
        differences=layout.difference_tables(own),
        speed=layout.speed_table(models),
        **_cost(files.timings),
        provenance=flat(files.study.get("provenance", {})),
    )
    return write(files.root / "report.html", page.encode())


def _unfinished(models: list[Model], asked: Collection[str]) -> str:
    """Which models are not trained to their end: by name those of the last command, an earlier one's by their number."""
    left = [m for m in models if not m.done]
    own = [name_of(m.spec) for m in sorted(left, key=lambda m: order(m.spec)) if m.spec_id in asked or not asked]
    earlier = len(left) - len(own)
    parts = [", ".join(own)] if own else []
    parts += [f"{counted(earlier, 'model')} of earlier commands"] if earlier else []
    return f"Not trained to the end, and left out of the tables: {'; '.join(parts)}." if parts else ""


def draw_all(study: Study) -> tuple[list[Section], list[str]]:
    """Every registered drawing: its figures, also written to `figures/`, and a line for each that could not be drawn."""
    sections, missing = [], []
    for old in (study.files.root / "figures").glob("*.svg"):  # of what is no longer drawn, else
        old.unlink()
    for drawing in drawings():
        name = f"{drawing.title}{f' ({drawing.paper})' if drawing.paper else ''}"
        try:
            figures = [_inline(study, picture) for picture in _pictures(drawing, study)]
        except UserError:
            raise
        except Exception as error:  # one experiment's odd results must not cost the reader the whole report
            log.warning("%s could not be drawn", drawing.name, exc_info=True)
            missing.append(f"{name}: its results could not be drawn ({type(error).__name__}: {error}).")
            continue
        if figures:
            part = "losses" if drawing.name in _IN_LOSSES else "figures"
            sections.append(Section(drawing.name, drawing.title, drawing.paper, part, figures))
        else:
            missing.append(f"{name}: there are no results of “{drawing.needs}” to draw{_how(drawing.needs)}.")
    return sections, missing


def _how(experiment: str) -> str:
    """How to get an experiment's results, where they are a command away."""
    if experiment not in experiment_names():
        return ""
    data = get_experiment(experiment).data
    return (
        f" (of --dataset {data} alone)" if data else f" (the same command with --experiments default {experiment} makes them)"
    )


def _pictures(drawing: Drawing, study: Study) -> Iterable[Picture]:
    with theme():
        yield from drawing.pictures(study)


def _inline(study: Study, picture: Picture) -> Inline:
    name = file_name(picture.name)
    svg = to_svg(picture.figure, name, picture.alt or picture.caption)
    write(study.files.root / "figures" / f"{name}.svg", standalone(svg).encode())
    return Inline(name, picture.caption, Markup(svg))


def build_comparison(study_dirs: Iterable[Path], out: Path) -> Path:
    """Several studies on one page: headlines, losses side by side, and settings. Writes `out` only."""
    studies = [StudyFiles(Path(d)) for d in study_dirs]
    names = _distinct(studies)
    tables = {n: {k: build(f) for k, build in TABLES.items()} for n, f in zip(names, studies, strict=True)}
    joined = []
    for name, files in zip(names, studies, strict=True):
        losses = tables[name]["losses"]
        if len(losses):
            joined.append(over_seeds(own_estimator(main_group(losses, files.asked))).assign(study=name))
    figures, loss_tables = [], []
    if joined:
        everything = pd.concat(joined, ignore_index=True)
        with theme():
            for (dataset, study), group in everything[everything["split"] == "test"].groupby(["dataset", "study"]):
                figure = file_name(f"{study}_{dataset}")
                svg = to_svg(draw_losses(group, "test"), figure, f"test loss over sigma, {study}")
                figures.append(Inline(figure, f"{study}: {dataset}, test split.", Markup(svg)))
        loss_tables = [_compared(str(d), g, names) for d, g in everything[everything["split"] == "test"].groupby("dataset")]
    page = _render(
        "compare.html.j2",
        title="Unnormalized variational Bayes: studies compared",
        lead=", ".join(names),
        headlines=[
            (n, headlines(tables[n]["losses"], tables[n]["pairs"], f.asked)) for n, f in zip(names, studies, strict=True)
        ],
        figures=figures,
        losses=loss_tables,
        settings=[_settings(studies, names)],
    )
    return write(Path(out), page.encode())


def _compared(dataset: str, losses: pd.DataFrame, names: list[str]) -> layout.Table:
    """Test losses: model and sigma down, studies across."""
    names = [name for name in names if (losses["study"] == name).any()]
    rank = {model: i for i, model in enumerate(main_models(losses))}
    rows = []
    for (model, sigma), group in sorted(losses.groupby(["model", "sigma"]), key=lambda g: (rank[g[0][0]], g[0][1])):
        cells = [layout.text(label(model)), layout.text(level(sigma))]
        own = group.drop_duplicates("study").set_index("study")
        for name in names:
            row = own.loc[name] if name in own.index else None
            best = row is not None and len(own) > 1 and row["loss"] == own["loss"].min()
            cells.append(layout.number(row["loss"], row["stderr"], best=best) if row is not None else layout.text(None))
        cells.append(layout.printed(group["paper_loss"].max()))
        rows.append(cells)
    return layout.Table(f"Test loss on {dataset}.", ["model", "σ", *names, "paper"], rows, text_columns=1)


def _settings(studies: list[StudyFiles], names: list[str]) -> layout.Table:
    facts = [dict(_run_facts(files)) for files in studies]
    for fact, files in zip(facts, studies, strict=True):
        total = files.timings.get("total_seconds")
        fact["wall time"] = layout.duration(total) if total is not None else layout.DASH
        fact |= {k: v for k, v in flat(files.study.get("provenance", {})) if k in ("git", "device")}
    keys = list(dict.fromkeys(key for fact in facts for key in fact))
    rows = []
    for key in keys:
        values = [fact.get(key) for fact in facts]
        rows.append([layout.text(key), *(layout.text(v, best=len(set(values)) > 1) for v in values)])
    return layout.Table(
        "What was run; bold where the studies differ.", ["", *names], rows, text_columns=1 + len(names), wrap=True
    )


def _distinct(studies: list[StudyFiles]) -> list[str]:
    """Each study's name, with its folder where two share one."""
    names = [files.name for files in studies]
    return [n if names.count(n) == 1 else f"{n} ({f.root})" for n, f in zip(names, studies, strict=True)]


def _lead(models: list[Any]) -> str:
    data = sorted({m.spec.data.name for m in models})
    kinds = {m.spec.model for m in models}
    return f"{counted(len(models), 'trained model')} of {counted(len(kinds), 'kind')} on {', '.join(data) or 'no data'}"


def _run_facts(files: StudyFiles) -> list[tuple[str, str]]:
    """What was trained, how, and which tasks have results."""
    models = files.asked_models
    specs, others = [m.spec for m in models], len(files.models) - len(models)
    data = {f"{s.data.name}, {'×'.join(map(str, s.data.shape))}, {s.data.train_images:,} training images" for s in specs}
    recipes = {
        f"{r.name}: {counted(r.epochs, 'epoch')}, batch {r.batch_size}, {layout.optimizer(r)} {r.learning_rate:g} {r.schedule}"
        for r in (s.recipe for s in specs)
    }
    plans = {str(Plan.from_json(m.plan)) for m in models if m.plan}
    tasks_root = files.root / "tasks"
    tasks = sorted(p.name for p in tasks_root.iterdir() if p.is_dir()) if tasks_root.is_dir() else []
    facts = {
        "data": data,
        "models": {label(s.model) for s in specs},
        "noise levels σ": {level(s.sigma) for s in specs},
        "also in the folder": {f"{counted(others, 'model')} of earlier commands"} if others else set(),
        "left out": _left_out(files),
        "recipe": recipes,
        "activation": {s.activation for s in specs},
        "seeds": {str(s.seed) for s in specs},
        "plan": plans,
        "tasks with results": {f"{name} ({len(files.results(name))})" for name in tasks},
    }
    separators = {"data": "; ", "models": "; ", "recipe": "; ", "plan": "; "}
    return [(name, separators.get(name, ", ").join(sorted(values))) for name, values in facts.items() if values]


def _left_out(files: StudyFiles) -> set[str]:
    """What lies in the folder and is in no table."""
    images, losses = len(files.superseded), files.left_out("losses")
    found = {f"{counted(images, 'model')} of images that have changed since": images,
             f"the losses of {counted(losses, 'model')}, measured with other settings or of other weights": losses}  # fmt: skip
    return {line for line, count in found.items() if count}


def _cost(timings: Mapping[str, Any]) -> dict[str, Any]:
    """The stages' bars, and a sentence on the whole."""
    stages = timings.get("stages", [])
    total = timings.get("total_seconds") or sum(s["seconds"] for s in stages)
    if not stages or not total:
        return {"stages": [], "cost": ""}
    longest = max(s["seconds"] for s in stages) or 1.0
    training = sum(s["seconds"] for s in stages if s["name"] == "training")
    bars = [
        {
            "name": s["name"],
            "training": s["name"] == "training",
            "percent": round(100 * s["seconds"] / longest, 1),
            "time": layout.duration(s["seconds"]),
        }
        for s in stages
    ]
    sentence = f"The study took {layout.duration(total)}"
    sentence += f", of which {100 * (1 - training / total):.0f} % was not training." if training else "."
    return {"stages": bars, "cost": sentence}


def flat(blob: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines: ``packages torch``, ``2.13.0``."""
    lines = []
    for key, value in blob.items():
        if isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{key} ")
        elif value is not None:
            lines.append(
                (f"{prefix}{key}".replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            )
    return lines


def _render(template: str, **content: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    light, dark = (Markup(css) for css in variables())
    return environment.get_template(template).render(light=light, dark=dark, foot=FOOT, **content)
