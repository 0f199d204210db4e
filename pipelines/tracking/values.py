"""Turn the content of a study's files into MLflow's parameters and metrics, with names and steps, by pure functions."""

import getpass
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from numbers import Real
from typing import Any

import pandas as pd

from pipelines.tracking.connection import Point
from uvb.measure.losses import own_estimator

Rows = list[dict[str, Any]]
LOSSES = ("train_loss", "test_loss", "train_probe")  # columns of a training curve in the objective's unit


def curve_points(rows: Rows, began: float | None, objective: str = "denoise") -> Iterator[Point]:
    """Every number of the curves, except epoch and time, as a metric ``epoch/<name>``. The step is the epoch.

    Losses in nats are named ``epoch/test_loss_elbo_y`` and the like, since an MLflow chart has one unit.

    Args:
        began: when the training began, in seconds. A row without a time gets this time; None: it gets the present time.
    """
    nats = {} if objective == "denoise" else {name: f"{name}_{objective}" for name in LOSSES}
    for row in rows:
        seconds = row.get("time") or began or time.time()
        for key, value in row.items():
            if key not in ("epoch", "time") and _is_number(value):
                yield f"epoch/{nats.get(key, key)}", float(value), int(row["epoch"]), int(seconds * 1000)


def model_values(losses: Rows, internals: Rows) -> dict[str, dict[str, float]]:
    """spec_id -> the numbers of the tables as metrics: ``test_loss``, ``test_loss_stderr``, ``kl_noisy``, ...

    The losses of the estimator by which a model is judged are ``test_loss`` and ``train_loss``. The name of any other loss ends
    with its estimator: ``test_loss_decoder``.
    """
    values: dict[str, dict[str, float]] = {}
    judged_by = _judged_by(losses)
    for row in losses:
        main = row["estimator"] == judged_by[row["spec_id"]]
        loss = f"{row['split']}_loss" + ("" if main else f"_{row['estimator']}")
        found = {loss: row["loss"], f"{loss}_stderr": row["stderr"]}
        if main:
            found |= {f"paper_{row['split']}_loss": row.get("paper_loss")}
            found |= {k: row.get(k) for k in ("floor", "nonparametric", "parameters")}
        values.setdefault(row["spec_id"], {}).update(numbers(found))
    for row in internals:
        name = row["quantity"]
        found = {name: row["value"], f"{name}_stderr": row["stderr"], f"paper_{name}": row.get("paper_value")}
        values.setdefault(row["spec_id"], {}).update(numbers(found))
    return values


def experiment_values(task: str, result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an experiment's result.json as metrics: ``likelihood/log_z``, ``jump_quality/frechet jumps``, ...

    The name of a number in a row ends with the row's texts and settings. Losses and internals are left out, since
    `model_values` has them.
    """
    if task in ("losses", "internals"):
        return {}
    found = flat({name: value for name, value in result.items() if name not in ("trained", "sigma", "rows")})
    for row in result.get("rows") or ():
        endings = [value for name, value in row.items() if isinstance(value, str) and name != "message"]
        endings += [f"{name} {value:g}" for name, value in (row.get("settings") or {}).items()]
        found |= {" ".join([name, *endings]): value for name, value in row.items()}
    return {_key(f"{task}/{name}"): value for name, value in numbers(found).items()}


def lines_over_sigma(losses: Rows) -> dict[str, dict[tuple[str, int], float]]:
    """The lines of the chart over σ: line -> (metric, step) -> mean over seeds. A line has at least two noise levels.

    The metrics are ``loss_over_sigma`` and ``train_loss_over_sigma``, and the step is 100 σ. Each kind of model (`_kind`) has
    a line, and a second line for the paper's numbers. The exact references have lines, too. If 100 σ is not a whole number at
    every level, the step is a larger multiple of σ. Then the metric's name tells the factor: ``loss_over_1000_sigma``.
    """
    judged_by = _judged_by(losses)
    rows = [row for row in losses if row["estimator"] == judged_by[row["spec_id"]]]
    several = len({row["dataset"] for row in rows}) > 1
    scale = _sigma_scale(row["sigma"] for row in rows)
    metric = "loss_over_sigma" if scale == 100 else f"loss_over_{scale}_sigma"
    lines: dict[str, dict[tuple[str, int], list[float]]] = {}
    for row in rows:
        at = (metric if row["split"] == "test" else f"train_{metric}", round(scale * row["sigma"]))
        kind = _kind(row, [r for r in rows if r["model"] == row["model"]])
        data = f" {row['dataset']}" if several else ""
        columns = {kind: "loss", f"paper {kind}": "paper_loss"}
        columns |= {f"floor{data}": "floor", f"nonparametric{data}": "nonparametric"}
        for line, value in numbers({line: row.get(column) for line, column in columns.items()}).items():
            lines.setdefault(line, {}).setdefault(at, []).append(value)
    return {
        line: {at: sum(values) / len(values) for at, values in points.items()}
        for line, points in lines.items()
        if len({step for _, step in points}) > 1
    }


def first_page(losses: Rows, pairs: Rows) -> tuple[dict[str, float], str]:
    """The study's numbers for the parent run: metrics, and a table of test losses in Markdown.

    The metrics are at each data set's largest noise level. ``test_loss/UVB`` and so on are means over seeds.
    ``difference/UVB-DEEN`` is of the first seed. The ends of its interval are ``difference/UVB-DEEN_low`` and
    ``difference/UVB-DEEN_high``. If there are several data sets, a metric also has the data set's name:
    ``test_loss/UVB digits``. If models were trained with several settings, each metric is a mean over these settings.
    """
    judged_by = _judged_by(losses)
    rows = [r for r in losses if r["split"] == "test" and r["estimator"] == judged_by[r["spec_id"]]]
    if not rows:
        return {}, ""
    table = pd.DataFrame(rows).pivot_table(index=["dataset", "sigma"], columns="model", values="loss")
    table.columns = [_key(str(model).upper()) for model in table.columns]
    largest = table.groupby("dataset").tail(1)  # the rows are sorted by σ
    columns = ["dataset", "split", "sigma", "seed", "first", "second", "difference", "low", "high"]
    test = pd.DataFrame(pairs, columns=columns).query("split == 'test'")
    values: dict[str, float] = {}
    for (dataset, sigma), means in largest.iterrows():
        data = f" {dataset}" if len(largest) > 1 else ""
        values |= {_key(f"test_loss/{model}{data}"): float(loss) for model, loss in means.dropna().items()}
        here = test[(test["dataset"] == dataset) & (test["sigma"] == sigma)]
        own = here[here["seed"] == here["seed"].min()].groupby(["first", "second"])[["difference", "low", "high"]].mean()
        for (first, second), row in own.iterrows():
            name = _key(f"difference/{first.upper()}-{second.upper()}{data}")
            values |= {name: float(row["difference"]), f"{name}_low": float(row["low"]), f"{name}_high": float(row["high"])}
    lines = [f"| data | σ | {' | '.join(table.columns)} |", "|---" * (2 + len(table.columns)) + "|"]
    for (dataset, sigma), row in table.iterrows():
        cells = " | ".join("–" if pd.isna(loss) else f"{loss:.4g}" for loss in row)
        lines.append(f"| {dataset} | {sigma:g} | {cells} |")
    return values, "\n".join(["Test losses, E‖x − x̂(y)‖², means over seeds:", "", *lines])


def in_a_line(study: str, losses: Rows, values: Mapping[str, float]) -> str:
    """A study's losses in a line: ``UVB 3.791, DEEN 3.899 (digits, σ = 1)``. MLflow cuts long lines, so losses come first.

    The noise levels are the data sets' largest.
    """
    told = [f"{name.partition('/')[2]} {value:.4g}" for name, value in values.items() if name.startswith("test_loss/")]
    order = {"UVB": 0, "DEEN": 1}
    told.sort(key=lambda text: order.get(text.split()[0], 2))
    largest = pd.DataFrame(losses).groupby("dataset")["sigma"].max().unique()
    return f"{', '.join(told)} ({study}, σ = {', '.join(f'{sigma:g}' for sigma in sorted(largest))})"


def source_tags(provenance: Mapping[str, Any]) -> dict[str, str]:
    """MLflow's own tags that say who ran the study, and by which command."""
    command = str(provenance.get("command") or "full_study.py").split()[0]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container the user may have no name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": f"pipelines/{command}", "mlflow.source.type": "LOCAL"}


def worker_points(progress: Mapping[str, Any], workers: Mapping[int, Mapping[str, Any]]) -> list[Point]:
    """The last known use of CPU and memory on each worker's machine. The step is the seconds since the training began.

    Args:
        progress: progress.json, which the first worker wrote.
        workers: a worker's number -> what it wrote, for all other workers.
    """
    found, began = [], progress.get("began")
    for worker, told in {0: progress, **workers}.items():
        now = told.get("time") or 0.0
        step, machine = int(now - (began or now)), numbers(told.get("machine") or {})
        found += [(f"system/worker_{worker}_{_key(name)}", value, step, int(1000 * now)) for name, value in machine.items()]
    return found


def readable(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with its columns reordered: first the usual ones that vary, then others that vary, then ids and constants."""
    first = ["model", "sigma", "seed", "split", "estimator", "quantity", "variant", "first", "second", "epoch", "loss"]
    first += ["difference", "value", "stderr", "low", "high"]
    varied = [c for c in table.columns if len(table) < 2 or table[c].nunique(dropna=False) > 1]
    leading = [c for c in first if c in varied]
    names = [c for c in table.columns if c.endswith("id")]
    middle = [c for c in varied if c not in leading and c not in names]
    rest = [c for c in table.columns if c not in leading and c not in middle]
    return table[[*leading, *middle, *rest]]


def plain_names(file: str, names: Mapping[str, str]) -> str:
    """The name `file`, in which the name of the model replaces each spec_id: ``jumps_uvb_sigma_1.svg``.

    If two models share a name, the spec_id follows the name. The names come from files, so they lose their slashes.
    """
    for spec_id, name in names.items():
        if spec_id in file:
            plain = "_".join(re.sub(r"[=/\0]", " ", name.replace("σ=", "sigma ")).split())
            twice = list(names.values()).count(name) > 1
            file = file.replace(spec_id, f"{plain}_{spec_id}" if twice else plain)
    return file


def flat(blob: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists are joined by commas."""
    found: dict[str, Any] = {}
    for key, value in blob.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            found[prefix + key] = ",".join(map(str, value))
        elif value is not None:
            found[prefix + key] = value
    return {_key(k): v for k, v in found.items()}


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are numbers, without NaN. In a table NaN means that a number was not measured."""
    return {k: float(v) for k, v in values.items() if _is_number(v) and not math.isnan(v)}


def _sigma_scale(sigmas: Iterable[float]) -> int:
    """The smallest power of ten, at least 100, that makes all σ whole numbers, up to a relative error of 1e-9."""
    levels = set(sigmas)
    return next(10**n for n in count(2) if all(math.isclose(round(10**n * s), 10**n * s) for s in levels))


def _judged_by(losses: Rows) -> dict[str, str]:
    """spec_id -> the estimator by which the model is judged, among those that were measured."""
    offered: dict[str, set[str]] = {}
    for row in losses:
        offered.setdefault(row["spec_id"], set()).add(row["estimator"])
    return {row["spec_id"]: own_estimator(row["model"], offered[row["spec_id"]]) for row in losses}


def _kind(row: Mapping[str, Any], peers: Rows) -> str:
    """A line's name in the chart over σ: the model, and the settings in which the model's rows (`peers`) differ."""
    apart = ("dataset", "activation", "recipe", "epochs", "widths", "batch_size", "train_images")
    told = [(k, str(row[k])) for k in apart if k in row and len({str(peer[k]) for peer in peers}) > 1]
    extras = [f"{value} {k}" if k == "epochs" else value for k, value in told]
    return _key(" ".join([str(row["model"]).upper(), *extras]))


def _key(name: str) -> str:
    """Replace each character of `name` by an underscore if MLflow forbids it. MLflow allows letters, digits and ``_-. :/``."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. :/") else "_" for c in name)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
