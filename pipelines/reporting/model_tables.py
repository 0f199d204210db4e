"""Make the report's tables about models: capacity, encoder and decoder, mixing, differences from the paper, speed."""

import math
from collections.abc import Callable, Collection, Iterable
from statistics import fmean
from typing import Any

import pandas as pd

from pipelines.files.study_files import Model
from pipelines.reporting.cells import Cell, Table, first_row, number, printed, text
from pipelines.reporting.figures.style import label
from pipelines.reporting.figures.walk_jump import UNSURE
from pipelines.reporting.numbers import known, level, percent
from pipelines.reporting.statistics import CONDITION, main_group, main_models
from pipelines.words import duration
from uvb import paper
from uvb.spec import Recipe
from uvb.training.state import steps_per_epoch

OPTIMIZERS = {"adam": "Adam", "muon": "Muon and Adam", "muon_conv": "Muon (also for convolutions) and Adam"}


def capacity(table: pd.DataFrame) -> list[Table]:
    """Table 1 for each data set: each model's number of parameters, beside the paper's number if there is one."""
    tables: list[Table] = []
    order = main_models(table)
    for dataset, group in table.groupby("dataset"):
        with_paper = group["paper_parameters"].notna().any()
        rows = []
        for row in sorted(group.itertuples(), key=lambda r: (order.index(r.model), r.widths)):
            cells = [text(label(row.model)), text(row.widths), text(f"{row.parameters:,}"), text(percent(row.ratio))]
            if with_paper:
                theirs = known(row.paper_parameters)
                cells.append(text(f"{theirs / 1e7:.1f} × 10⁷" if theirs else None, quiet=True))
            rows.append(cells)
        head = ["model", "widths", "parameters", "relative to UVB", *(["paper"] if with_paper else [])]
        caption = f"Capacity on {dataset}, with images of {group['shape'].iloc[0]}: the number of parameters, dim(ϑ) (Table 1)."
        notes = ["Widths: convolution channels / hidden layer / latent dimension / decoder layer."]
        tables.append(Table(caption, head, rows, notes=notes, text_columns=2))
    return tables


def internals_tables(internals: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """Tables 4 and 5 at each data set's largest sigma. A row is a KL or a squared distance, a column is a model."""
    tables: list[Table] = []
    for dataset, group in main_group(internals, asked).groupby("dataset"):
        sigma = group["sigma"].max()
        top = group[(group["sigma"] == sigma) & (group["seed"] == group["seed"].min())]
        one = f", models of seed {top['seed'].iloc[0]}" if group["seed"].nunique() > 1 else ""
        models, with_paper = main_models(top), set(top.loc[top["paper_value"].notna(), "model"])
        head, groups, rows = ["quantity"], [("", 1)], []
        for m in models:
            head += ["ours", "paper"] if m in with_paper else [label(m)]
            groups.append((label(m), 2) if m in with_paper else ("", 1))
        for quantity in sorted(set(top["quantity"]), key=_quantity_order):
            cells = [text(describe_quantity(quantity))]
            for m in models:
                row = first_row(top[(top["model"] == m) & (top["quantity"] == quantity)])
                cells.append(number(row.get("value"), row.get("stderr")))
                cells += [printed(row.get("paper_value"))] if m in with_paper else []
            rows.append(cells)
        notes = [
            "internals.parquet names these quantities kl_<seen> and recon_<seen>_<target>_<factor>. The encoder sees an image "
            "that is clean or noisy. The decoder's mean is compared with the target, x or y. The factor is half if the squared "
            "distance is divided by 2σ², and full if it is divided by σ²."
        ]
        caption = f"Encoder and decoder on {dataset} at σ = {level(sigma)}, means over the test set{one} (Tables 4–5)."
        tables.append(Table(caption, head, rows, groups if with_paper else [], notes))
    return tables


def describe_quantity(name: str) -> str:
    """A quantity of docs/file_formats.md in the paper's symbols."""
    kinds = {"kl_noisy": "KL[q(z|y), p(z)]", "kl_clean": "KL[q(z|x), p(z)]"}
    parts = name.split("_")
    if name in kinds or len(parts) != 4 or parts[0] != "recon":
        return kinds.get(name, name)
    _, seen, target, factor = parts
    distance = f"‖{target} − μ_y(z)‖²/{'2σ²' if factor == 'half' else 'σ²'}"
    return f"{distance}, z ~ q(z|{'y' if seen == 'noisy' else 'x'})"


def _quantity_order(name: str) -> tuple[int, int, str]:
    """A sort key: KL first, then squared distances divided by 2σ², then those divided by σ²."""
    return (0 if name.startswith("kl") else 1, 0 if name.endswith("half") else 1, name)


def sampling_table(sampling: pd.DataFrame) -> list[Table]:
    """How chains mix: one row for each quantity, one column for each energy and kind of jump."""
    if sampling.empty:
        return []
    order = main_models(sampling)
    chains = sorted(sampling.itertuples(), key=lambda r: (r.dataset, order.index(r.model), r.sigma, r.seed, r.variant))
    measured: list[tuple[str, Callable[[Any], Cell]]] = [
        ("jump", lambda r: text("x̂(y)" if r.variant.startswith("jump") else "x̂(x̂(y))")),
        ("sampler", lambda r: text(r.sampler)),
        ("step size δ", lambda r: number(r.delta)),
        ("chains × steps", lambda r: text(f"{r.chains} × {r.steps:,}")),
        ("steps between jumps", lambda r: text(r.steps_per_jump)),
        ("classes visited by the first chain", lambda r: text(r.classes_visited, quiet=_unsure(r))),
        ("its steps to visit all", lambda r: text(r.steps_to_all if pd.notna(r.steps_to_all) else "not all", quiet=_unsure(r))),
        ("autocorrelation time, in jumps", lambda r: number(r.iat)),
        ("effective sample size per step", lambda r: number(r.ess_per_step)),
        ("split R̂", lambda r: number(r.split_rhat)),
        ("chains that diverged", lambda r: text(f"{r.diverged} of {r.chains}" if r.diverged else "none")),
        ("the classifier's accuracy", lambda r: text(percent(r.classifier_accuracy))),
    ]
    rows = [[text(name), *(cell(chain) for chain in chains)] for name, cell in measured]
    varied = [k for k in (*CONDITION, "widths", "seed") if sampling.groupby("model")[k].nunique().max() > 1]
    settings = [
        [r.dataset, f"σ = {level(r.sigma)}", *(f"{k.replace('_', ' ')} {getattr(r, k)}" for k in varied)] for r in chains
    ]
    # The caption tells what all chains share, and the heads tell the rest.
    shared = [setting for setting in settings[0] if all(setting in own for own in settings)]
    about = f": {', '.join(shared)}" if shared else ""
    head = [
        ", ".join([label(r.model), *(setting for setting in own if setting not in shared)])
        for r, own in zip(chains, settings, strict=True)
    ]
    notes = [
        "The first chain is never restarted. Autocorrelation time, effective sample size and R̂ are over all chains that "
        "did not diverge. A classifier assigns the classes. Its accuracy is measured on x̂(y) of test images. If the accuracy "
        "is below one half, the classes are grey. Mixing says nothing about quality: jumps that hardly depend on y mix at once."
    ]
    return [Table(f"Mixing of walk-jump sampling{about}.", ["", *head], rows, notes=notes)]


def _unsure(row: Any) -> bool:
    """Whether the classifier is wrong so often that its classes say little."""
    return bool(pd.notna(row.classifier_accuracy) and row.classifier_accuracy < UNSURE)


def optimizer(recipe: Recipe) -> str:
    """The recipe's optimizer, e.g. ``Adam``, with β₂ if it is not the usual 0.999, and with weight decay if there is any."""
    memory = f", β₂ = {recipe.beta2:g}" if recipe.beta2 != 0.999 else ""
    decay = f", weight decay {recipe.weight_decay:g}" if recipe.weight_decay else ""
    return OPTIMIZERS[recipe.optimizer] + memory + decay


def difference_tables(models: Iterable[Model]) -> list[Table]:
    """For each data set, a table of the paper's training settings (Sec. 3.1), with ours beside them."""
    by_data: dict[str, list[Model]] = {}
    for model in models:
        by_data.setdefault(model.spec.data.name, []).append(model)
    tables = []
    for dataset, group in sorted(by_data.items()):
        rows = [
            [text(name), text(_listed(theirs), quiet=True), text(_listed(ours), best=ours != theirs)]
            for name, theirs, ours in _settings(dataset, group)
            if ours
        ]
        caption = f"Training settings on {dataset}. Ours are bold if they differ from the paper's."
        tables.append(Table(caption, ["setting", "paper", "here"], rows, text_columns=3, wrap=True))
    return tables


def _settings(dataset: str, models: list[Model]) -> list[tuple[str, set[Any], set[Any]]]:
    """Each setting: (name, the paper's values, the values of these models)."""
    theirs, specs = paper.SETTINGS, [m.spec for m in models]
    recipes = {spec.recipe for spec in specs}
    images = dict(theirs.train_images).get(dataset)
    steps = theirs.epochs * -(-images // theirs.batch_size) if images else "187,600 and 156,400"  # on MNIST and CIFAR-10
    settings: list[tuple[str, Any, Iterable[Any]]] = [
        ("data set", dataset if images else "MNIST, CIFAR-10", [dataset]),
        ("training images", images or "60,000 and 50,000", (s.data.train_images for s in specs)),
        ("epochs", theirs.epochs, (r.epochs for r in recipes)),
        ("gradient steps", steps, (s.recipe.epochs * steps_per_epoch(s) for s in specs)),
        ("batch size", theirs.batch_size, (r.batch_size for r in recipes)),
        ("optimizer", "Adam", map(optimizer, recipes)),
        ("learning rate", f"{theirs.learning_rate:g}", (f"{r.learning_rate:g}" for r in recipes)),
        ("schedule", theirs.schedule, (r.schedule for r in recipes)),
        ("warm-up, share of steps", "none", (f"{r.warmup:g}" if r.warmup else "none" for r in recipes)),
        ("gradient norm clipped at", "none", (f"{r.clip:g}" if math.isfinite(r.clip) else "none" for r in recipes)),
        ("average of the weights (EMA)", "none", (f"{r.ema:g}" if r.ema else "none" for r in recipes)),
        ("activation", theirs.activation, (s.activation for s in specs)),
    ]
    widths = [(f"widths of {label(m)}", own, {str(s.widths) for s in specs if s.model == m}) for m, own in theirs.widths]
    found = [(name, {their}, set(ours)) for name, their, ours in (*settings, *widths)]
    # Here the paper has a set of values, not one.
    found.insert(2, ("noise levels σ", {level(s) for s in paper.SIGMAS}, {level(s.sigma) for s in specs}))
    return found


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in sorted(values))


def speed_table(models: Iterable[Model]) -> list[Table]:
    """Wall time and throughput of the finished trainings, by model."""
    found: dict[tuple[str, str], list[Model]] = {}
    for model in models:
        if model.done and model.curves:
            found.setdefault((model.spec.data.name, model.spec.model), []).append(model)
    rows = []
    for (dataset, name), group in sorted(found.items()):
        seconds = fmean(m.curves[-1]["seconds"] for m in group)
        speed = fmean(row["images_per_s"] for m in group for row in m.curves)
        cells = (dataset, label(name), len(group), duration(seconds), f"{speed:,.0f}")
        rows.append([text(cell) for cell in cells])
    caption = "Training time and speed: means over the trainings of each model. Trainings at the same time shared the machine."
    return [Table(caption, ["data", "model", "trainings", "time each", "images/s"], rows, text_columns=2)] if rows else []
