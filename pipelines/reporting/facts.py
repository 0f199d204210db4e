"""What a report says of a study besides its results: what was run, what is unfinished, what it cost, where it comes from."""

from collections.abc import Collection, Mapping
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

WARNING = "warning: "  # how lines of `ReadReport` begin that are doubtful


def lead(models: list[Model]) -> str:
    data = sorted({m.spec.data.name for m in models})
    kinds = {m.spec.model for m in models}
    return f"{counted(len(models), 'trained model')} of {counted(len(kinds), 'kind')} on {', '.join(data) or 'no data'}"


def unfinished(models: list[Model], asked: Collection[str]) -> str:
    """Which models are not trained to their end: by name those of the last command, an earlier one's by their number."""
    left = [m for m in models if not m.done]
    own = [name_of(m.spec) for m in sorted(left, key=lambda m: order(m.spec)) if m.spec_id in asked or not asked]
    earlier = len(left) - len(own)
    parts = [", ".join(own)] if own else []
    parts += [f"{counted(earlier, 'model')} of earlier commands"] if earlier else []
    return f"Not trained to the end, and left out of the tables: {'; '.join(parts)}." if parts else ""


def run_facts(files: StudyFiles) -> list[tuple[str, str]]:
    """What was trained, how, and which tasks have results."""
    models = files.asked_models
    specs, others = [m.spec for m in models], len(files.models) - len(models)
    data = {f"{s.data.name}, {'×'.join(map(str, s.data.shape))}, {s.data.train_images:,} training images" for s in specs}
    recipes = {
        f"{r.name}: {counted(r.epochs, 'epoch')}, batch {r.batch_size}, {optimizer(r)} {r.learning_rate:g} {r.schedule}"
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
        "what was read": {"; ".join(line.strip() for line in read_lines(files) if not line.startswith(WARNING))} - {""},
        "tasks with results": {f"{name} ({len(files.results(name))})" for name in tasks},
    }
    separators = {"data": "; ", "models": "; ", "recipe": "; ", "plan": "; "}
    return [(name, separators.get(name, ", ").join(sorted(values))) for name, values in facts.items() if values]


def read_lines(files: StudyFiles) -> list[str]:
    """What was read of the data set, in lines; warnings come last. [] where the study is older than that record."""
    record = files.study.get("provenance", {}).get("data", {}).get("read")
    try:
        return ReadReport.from_json(record).lines() if record else []
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{files.root / 'study.json'}: its record of what was read is damaged ({error})") from None


def _left_out(files: StudyFiles) -> set[str]:
    """What lies in the folder and is in no table."""
    images, losses = len(files.superseded), files.left_out("losses")
    found = {f"{counted(images, 'model')} of images that have changed since": images,
             f"the losses of {counted(losses, 'model')}, measured with other settings or of other weights": losses}  # fmt: skip
    return {line for line, count in found.items() if count}


def cost(timings: Mapping[str, Any]) -> dict[str, Any]:
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
            "time": duration(s["seconds"]),
        }
        for s in stages
    ]
    sentence = f"The study took {duration(total)}"
    sentence += f", of which {100 * (1 - training / total):.0f} % was not training." if training else "."
    return {"stages": bars, "cost": sentence}


def provenance(files: StudyFiles) -> list[tuple[str, str]]:
    """Where the study comes from, as lines, without what was read, which stands elsewhere."""
    blob = dict(files.study.get("provenance", {}))
    if isinstance(blob.get("data"), Mapping):
        blob["data"] = {key: value for key, value in blob["data"].items() if key != "read"}
    return flat(blob)


def warnings(files: StudyFiles, losses: pd.DataFrame) -> list[str]:
    """What a reader should know first: doubts about the data, trainings that were cut short, models worse than a constant."""
    own = losses[losses["spec_id"].isin([m.spec_id for m in files.asked_models])]
    read = [line.removeprefix(WARNING) for line in read_lines(files) if line.startswith(WARNING)]
    return [line for line in (*read, falling(files.asked_models), beaten(own)) if line]


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


def falling(models: Collection[Model], worth: int = 6) -> str:
    """A warning about losses that still fell at the end of their training; "" where there are none.

    The `worth` largest falls are named.
    """
    found = {m.spec_id: fell for m in models if m.done and (fell := still_falling(m.curves))}
    if not found:
        return ""
    names = {m.spec_id: f"{label(m.spec.model)} {name_of(m.spec).partition(' ')[2]}" for m in models}
    by_name = {names[spec_id]: fell for spec_id, fell in found.items()}
    named = sorted(by_name.items(), key=lambda item: -item[1])
    some = ", ".join(f"{name} by {100 * fell:.1f} %" for name, fell in named[:worth])
    more = f" and {counted(len(found) - worth, 'other')}" if len(found) > worth else ""
    return f"Not trained out: over the last tenth of its training the test loss still fell for {some}{more}."


def beaten(losses: pd.DataFrame, worth: int = 6) -> str:
    """A warning about models whose test loss is above that of always answering the mean image; "" where there are none."""
    if losses.empty:
        return ""
    rows = own_estimator(losses[losses["split"] == "test"]).dropna(subset=["mean_image"])
    rows = rows[rows["loss"] > rows["mean_image"]]
    told = {f"{label(r.model)} at σ = {level(r.sigma)} ({r.loss:.3g} against {r.mean_image:.3g})" for r in rows.itertuples()}
    more = f" and {counted(len(told) - worth, 'other')}" if len(told) > worth else ""
    return f"Worse than always answering the mean image: {', '.join(sorted(told)[:worth])}{more}." if told else ""
