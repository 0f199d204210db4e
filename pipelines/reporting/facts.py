"""What a report says about a study besides its results: what was run, warnings, the cost, the provenance."""

from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import Any

import pandas as pd

from pipelines.files.study_files import Model, StudyFiles, order
from pipelines.reporting.figures.style import label
from pipelines.reporting.model_tables import optimizer
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import own_estimator, still_falling
from pipelines.words import counted, duration, name_of
from uvb.data.report import ReadReport
from uvb.errors import UserError
from uvb.plan import Plan

WARNING = "warning: "  # how `ReadReport` begins its lines about doubtful data
NAMED = 6  # a warning names at most this many models


def lead(models: list[Model]) -> str:
    """The line below the title."""
    if not models:
        return "no model is trained yet"
    data = sorted({m.spec.data.name for m in models})
    kinds = {m.spec.model for m in models}
    return f"{counted(len(models), 'trained model')} of {counted(len(kinds), 'kind')} on {', '.join(data)}"


def unfinished(models: list[Model], asked: Collection[str]) -> str:
    """A line that names the last command's unfinished models, and counts those of earlier commands; "" if there are none."""
    left = sorted((m for m in models if not m.done), key=lambda m: order(m.spec))
    own = [name_of(m.spec) for m in left if m.spec_id in asked or not asked]
    earlier = len(left) - len(own)
    parts = [", ".join(own), f"{counted(earlier, 'model')} of earlier commands" if earlier else ""]
    told = "; ".join(part for part in parts if part)
    return f"The tables leave out models that are not trained to the end: {told}." if told else ""


def run_facts(files: StudyFiles) -> list[tuple[str, str]]:
    """What was trained, how, and which tasks have results."""
    models = files.asked_models
    specs, others = [m.spec for m in models], len(files.models) - len(models)
    recipes = {
        f"{r.name}: {counted(r.epochs, 'epoch')}, batch {r.batch_size}, {optimizer(r)} {r.learning_rate:g} {r.schedule}"
        for r in (s.recipe for s in specs)
    }
    tasks = sorted(path.name for path in files.root.glob("tasks/*/"))
    read = "; ".join(line.strip() for line in read_lines(files) if not line.startswith(WARNING))
    facts = {
        "data": {f"{s.data.name}, {'×'.join(map(str, s.data.shape))}, {s.data.train_images:,} training images" for s in specs},
        "models": {label(s.model) for s in specs},
        "noise levels σ": {level(s.sigma) for s in specs},
        "also in the folder": {f"{counted(others, 'model')} of earlier commands"} if others else set(),
        "left out": _left_out(files),
        "recipe": recipes,
        "activation": {s.activation for s in specs},
        "seeds": {str(s.seed) for s in specs},
        "plan": {str(Plan.from_json(m.plan)) for m in models if m.plan},
        "what was read": {read} if read else set(),
        "tasks with results": {f"{name} ({len(files.results(name))})" for name in tasks},
    }
    lists = ("data", "models", "recipe", "plan")  # entries of these contain commas
    return [(name, ("; " if name in lists else ", ").join(sorted(values))) for name, values in facts.items() if values]


def read_lines(files: StudyFiles) -> list[str]:
    """Lines on what was read of the data set, warnings last; [] for an older study, which has no record of this."""
    record = files.study.get("provenance", {}).get("data", {}).get("read")
    try:
        return ReadReport.from_json(record).lines() if record else []
    except UserError as error:
        raise UserError(
            f"{files.root}/study.json: its record of what was read is damaged ({error}); run the study again"
        ) from None


def _left_out(files: StudyFiles) -> set[str]:
    """Lines on what is in the folder but in no table."""
    images, losses = len(files.superseded), files.left_out("losses")
    found = {f"{counted(images, 'model')} trained on images that have changed since": images,
             f"the losses of {counted(losses, 'model')}, measured with other settings or other weights": losses}  # fmt: skip
    return {line for line, count in found.items() if count}


def undefined(files: StudyFiles) -> list[str]:
    """A line for each result in which some numbers do not exist, such as the standard error of one image."""
    tasks, lines = files.root / "tasks", []
    for task in sorted(p.name for p in tasks.iterdir() if p.is_dir()) if tasks.is_dir() else ():
        for model, result in files.of_models(task):
            paths = result.values.get("undefined", ())
            named = [[step for step in path if isinstance(step, str)] for path in paths]  # keys only, no indices into lists
            names = sorted({keys[-1] for keys in named})
            if names:
                lines.append(f"“{task}” of {name_of(model.spec)}: {', '.join(names)} cannot be computed.")
    return lines


def cost(timings: Mapping[str, Any]) -> dict[str, Any]:
    """The bars of the stages, and a sentence on the total time."""
    stages = timings.get("stages", [])
    total = timings.get("total_seconds") or sum(s["seconds"] for s in stages)
    if not stages or not total:
        return {"stages": [], "cost": ""}
    longest = max(s["seconds"] for s in stages) or 1.0
    training = sum(s["seconds"] for s in stages if s["name"] == "training")
    bars = [
        {"name": s["name"], "percent": round(100 * s["seconds"] / longest, 1), "time": duration(s["seconds"])} for s in stages
    ]
    rest = f" Everything but training took {100 * (1 - training / total):.0f} % of this time." if training else ""
    return {"stages": bars, "cost": f"The study took {duration(total)}.{rest}"}


def provenance(files: StudyFiles) -> list[tuple[str, str]]:
    """(name, value) pairs on where the study comes from. What was read of the data is left out, since `run_facts` tells it."""
    blob = dict(files.study.get("provenance", {}))
    if isinstance(blob.get("data"), Mapping):
        blob["data"] = {key: value for key, value in blob["data"].items() if key != "read"}
    return flat(blob)


def warnings(files: StudyFiles, losses: pd.DataFrame) -> list[str]:
    """Warnings for the top of the report: doubts about the data, trainings that were too short, models beaten by a constant."""
    own = losses[losses["spec_id"].isin([m.spec_id for m in files.asked_models])]
    read = [line.removeprefix(WARNING) for line in read_lines(files) if line.startswith(WARNING)]
    return [line for line in (*read, falling(files.asked_models), beaten(own)) if line]


def flat(blob: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (name, value) pairs, such as ("packages torch", "2.13.0")."""
    lines = []
    for key, value in blob.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            lines += flat(value, f"{name} ")
        elif value is not None:
            lines.append((name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return lines


def falling(models: Collection[Model]) -> str:
    """A warning about trainings that ended while their loss still fell, the largest falls first; "" if there are none."""
    largest: dict[str, float] = {}  # trainings with different recipes may have the same name
    for model in models:
        if model.done and (share := still_falling(model.curves)):
            name = name_of(model.spec).replace(model.spec.model, label(model.spec.model), 1)
            largest[name] = max(share, largest.get(name, 0.0))
    told = [f"{name} by {100 * share:.1f} %" for name, share in sorted(largest.items(), key=itemgetter(1), reverse=True)]
    return _some("Trained too briefly: the test loss still fell in the last tenth of the training ({}).", told)


def beaten(losses: pd.DataFrame) -> str:
    """A warning about models that have a higher test loss than the mean image; "" if there are none."""
    rows = own_estimator(losses[losses["split"] == "test"]).dropna(subset=["mean_image"])
    rows = rows[rows["loss"] > rows["mean_image"]]
    told = {f"{label(r.model)} at σ = {level(r.sigma)} ({r.loss:.3g} against {r.mean_image:.3g})" for r in rows.itertuples()}
    return _some("Worse than always answering the mean image, by test loss: {}.", sorted(told))


def _some(warning: str, told: list[str]) -> str:
    """Put the first few of `told`, and the number of the others, in place of the {} of the warning. "" if `told` is empty."""
    more = f" and {counted(len(told) - NAMED, 'other')}" if len(told) > NAMED else ""
    return warning.format(f"{', '.join(told[:NAMED])}{more}") if told else ""
