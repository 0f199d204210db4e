"""The report's tables, as rows of cells: from DataFrames to what the template prints. No HTML here."""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pipelines.files.study_files import Model
from pipelines.reporting.figures.style import label
from pipelines.reporting.figures.walk_jump import UNSURE
from pipelines.reporting.headlines import (
    CONDITION,
    brackets,
    decimals,
    interval,
    level,
    main_group,
    main_models,
    over_seeds,
    own_estimator,
    signed,
)
from uvb import paper
from uvb.spec import Recipe
from uvb.training.state import steps_per_epoch

DASH = "–"
OPTIMIZERS = {"adam": "Adam", "muon": "Muon and Adam"}


@dataclass(frozen=True)
class Cell:
    text: str
    error: str = ""
    best: bool = False
    quiet: bool = False  # not ours: the paper's, or a reference


@dataclass(frozen=True)
class Table:
    """`groups` are (text, columns spanned) above the head; the first `text_columns` columns are set left."""

    caption: str
    head: list[str]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    text_columns: int = 1
    wrap: bool = False  # long text may break into lines


def optimizer(recipe: Recipe) -> str:
    """Its name, e.g. ``Adam``, with β₂ where that is not the usual 0.999."""
    return OPTIMIZERS[recipe.optimizer] + (f", β₂ = {recipe.beta2:g}" if recipe.beta2 != 0.999 else "")


def number(value: Any, error: Any = None, *, best: bool = False, quiet: bool = False) -> Cell:
    """A value with as many digits as its error allows (two of the error's), or four of its own; a dash where unknown."""
    if value is None or pd.isna(value):
        return Cell(DASH, quiet=True)
    if error is None or pd.isna(error) or not error > 0:
        return Cell(_plain(float(value)), best=best, quiet=quiet)
    digits = decimals(float(error))
    return Cell(f"{float(value):.{digits}f}".replace("-", "−"), f"{float(error):.{digits}f}", best, quiet)


def _plain(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}".replace("-", "−")
    return f"{value:,.0f}".replace("-", "−") if abs(value) >= 1e4 else f"{value:.2g}".replace("-", "−")


def text(value: Any, *, best: bool = False, quiet: bool = False) -> Cell:
    return Cell(DASH if value is None or value is pd.NA or value == "" else str(value), best=best, quiet=quiet)


def printed(value: Any, digits: int = 3) -> Cell:
    """A figure with just so many digits, as the paper prints its losses: 2.60, 15.0, 692."""
    if value is None or pd.isna(value):
        return Cell(DASH, quiet=True)
    return Cell(f"{float(value):#.{digits}g}".rstrip("."), quiet=True)


def capacity(table: pd.DataFrame) -> list[Table]:
    """Table 1 for each data set, with the paper's counts where there are any."""
    tables: list[Table] = []
    order = {m: i for i, m in enumerate(main_models(table))}
    for dataset, group in table.groupby("dataset"):
        has_paper = group["paper_parameters"].notna().any()
        rows = []
        for row in sorted(group.itertuples(), key=lambda r: (order[r.model], r.widths)):
            cells = [text(label(row.model)), text(row.widths), text(f"{row.parameters:,}"), text(percent(row.ratio))]
            if has_paper:
                known = row.paper_parameters
                cells.append(text(f"{known / 1e7:.1f} × 10⁷" if pd.notna(known) else None, quiet=True))
            rows.append(cells)
        head = ["model", "widths", "parameters", "of UVB's", *(["paper"] if has_paper else [])]
        caption = f"Capacity: dim(ϑ), the number of parameters, on {dataset} of {group['shape'].iloc[0]} (Table 1)."
        notes = ["Widths: convolution channels / hidden layer / latent dimension / decoder layer."]
        tables.append(Table(caption, head, rows, notes=notes, text_columns=2))
    return tables


def loss_tables(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """Tables 2 and 3 for each data set's main condition: sigma down, models across, the paper's figure beside ours."""
    tables: list[Table] = []
    if losses.empty:
        return tables
    for dataset, group in over_seeds(own_estimator(main_group(losses, asked))).groupby("dataset"):
        shown = [m for m in main_models(group) if m in _swept(group)]
        for split, reference, name in (("test", "nonparametric", "non-param."), ("train", "floor", "floor")):
            rows = group[(group["split"] == split) & group["model"].isin(shown)]
            if len(rows):
                tables.append(_loss_table(str(dataset), split, rows, shown, reference, name))
    return tables


def _swept(group: pd.DataFrame) -> set[str]:
    """Models known at half of the noise levels or more, and always the paper's two."""
    levels = group.groupby("model")["sigma"].nunique()
    return set(levels.index[levels >= group["sigma"].nunique() / 2]) | {"uvb", "deen"}


def _loss_table(dataset: str, split: str, rows: pd.DataFrame, models: Sequence[str], reference: str, name: str) -> Table:
    with_paper = {m for m in models if rows.loc[rows["model"] == m, "paper_loss"].notna().any()}
    seeds, fewest = int(rows["seeds"].max()), int(rows["seeds"].min())
    models = [m for m in models if (rows["model"] == m).any()]
    head, groups = ["σ"], [("", 1)]
    for m in models:
        columns = ["ours", *(["seeds' s.d."] if seeds > 1 else []), *(["paper"] if m in with_paper else [])]
        head += columns if len(columns) > 1 else [label(m)]
        groups.append((label(m) if len(columns) > 1 else "", len(columns)))
    has_reference = rows[reference].notna().any()
    if has_reference:
        head.append(name)
        groups.append(("", 1))
    body = []
    for sigma, rows_here in rows.groupby("sigma"):
        own = rows_here.drop_duplicates("model").set_index("model")
        best = own["loss"].min()
        cells = [text(level(sigma))]
        for m in models:
            row = own.loc[m] if m in own.index else None
            cells.append(number(None if row is None else row["loss"], None if row is None else row["stderr"],
                                best=row is not None and len(own) > 1 and row["loss"] == best))  # fmt: skip
            if seeds > 1:
                cells.append(printed(None if row is None else row["spread"], 2))
            if m in with_paper:
                cells.append(printed(None if row is None else row["paper_loss"]))
        if has_reference:
            cells.append(
                number(rows_here[reference].dropna().iloc[0] if rows_here[reference].notna().any() else None, quiet=True)
            )
        body.append(cells)
    about = {
        "nonparametric": "Non-param.: the test loss of the training set's exact posterior mean, a reference and not a bound.",
        "floor": "Floor: the loss of the exact posterior mean on its own training set; below it is noise alone.",
    }
    notes = (
        [about[reference]]
        if has_reference
        else ["The exact reference is not in this study (no results of the task “reference”)."]
    )
    if seeds > 1:
        notes.append(f"Means over {seeds} seeds." if fewest == seeds else f"Means over {fewest} to {seeds} seeds.")
    theirs, ours = dict(paper.SETTINGS.train_images).get(dataset), int(rows["train_images"].iloc[0])
    if with_paper and theirs and theirs != ours:
        notes.append(f"The paper's models saw {theirs:,} training images, these {ours:,}.")
    number_ = {"mnist": "Table 2", "cifar10": "Table 3"}.get(dataset, "as Tables 2–3")
    groups = groups if any(span > 1 for _, span in groups) else []
    return Table(f"{split.capitalize()} loss on {dataset} over the noise level ({number_}).", head, body, groups, notes)


def pair_tables(pairs: pd.DataFrame, losses: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """UVB - DEEN by sigma and split, then every other model less each of them on the test set; 95 % intervals."""
    if losses.empty:
        return []
    found: list[Table] = []
    main = main_group(losses, asked)
    pairs = pairs[pairs["first_id"].isin(set(main["spec_id"]))]  # and the second of any size near the first's
    for dataset, of_main in main.groupby("dataset"):
        tables: list[Table] = []
        group = pairs[pairs["dataset"] == dataset]
        two, others = group[group["first"] == "uvb"], group[(group["first"] != "uvb") & (group["split"] == "test")]
        means = "Image by image on the same noise; below zero {} is better. Bold: the interval excludes zero."
        if len(two):
            splits = [s for s in ("test", "train") if (two["split"] == s).any()]
            columns = [(s, "UVB − DEEN", two[two["split"] == s]) for s in splits]
            caption = f"Paired difference of the losses on {dataset}."
            tables.append(_pair_table(caption, columns, [means.format("UVB"), *_seeds(two)]))
        if len(others):
            columns = [
                (label(m), f"less {label(second)}", own)
                for m in main_models(others.rename(columns={"first": "model"}))
                for second in ("uvb", "deen")
                if len(own := others[(others["first"] == m) & (others["second"] == second)])
            ]
            caption = f"Paired difference of the test losses on {dataset}: other models."
            tables.append(_pair_table(caption, columns, [means.format("the other model"), *_seeds(others)]))
        models = main_models(of_main)
        alone = [m for m in models if m not in {*group["first"], *group["second"]}]
        if len(models) > 1 and alone:
            if not tables:
                tables.append(Table(f"Paired difference of the losses on {dataset}: none.", [], []))
            names = ", ".join(map(label, alone))
            tables[-1].notes.append(
                f"Not compared: {names}. No UVB or DEEN that was trained and measured alike is as large (within 25 %)."
            )
        found += tables
    return found


def _seeds(pairs: pd.DataFrame) -> list[str]:
    """What the intervals are over, where there are several seeds."""
    seeds = pairs.groupby(["first", "second", "split", "sigma"])["seed"].nunique()
    if seeds.max() < 2:
        return []
    alone = "; of one training alone, over images only" if seeds.min() < 2 else ""
    return [f"Means over seeds; the intervals are over images and trainings{alone}."]


def _pair_table(caption: str, columns: Sequence[tuple[str, str, pd.DataFrame]], notes: list[str]) -> Table:
    """One row a sigma; `columns` are (group, head, pairs), and columns of one group stand side by side."""
    rows = []
    for sigma in sorted({sigma for _, _, pairs in columns for sigma in pairs["sigma"]}):
        cells = [text(level(sigma))]
        for _, _, pairs in columns:
            at = pairs[pairs["sigma"] == sigma]
            if at.empty:
                cells += [text(None), text(None)]
                continue
            mean, low, high = interval(at)
            digits = decimals(float(at["stderr"].mean()))
            between = text(brackets(low, high, digits), quiet=True)
            cells += [text(signed(mean, digits), best=high < 0 or low > 0), between]
        rows.append(cells)
    groups = [("", 1)] + [(name, 2 * len(list(own))) for name, own in itertools.groupby(columns, key=lambda column: column[0])]
    return Table(caption, ["σ", *(h for _, head, _ in columns for h in (head, "95 % CI"))], rows, groups, notes)


def other_losses(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """What the main tables leave out: models at few noise levels, a latent model's decoder, other recipes."""
    if losses.empty:
        return []
    main, own = main_group(losses, asked), own_estimator(losses)
    swept = over_seeds(own_estimator(main))
    kept = {(d, m) for d, g in swept.groupby("dataset") for m in _swept(g)}
    in_main = losses.index.isin(main.index) & losses.index.isin(own.index)
    in_main &= [(d, m) in kept for d, m in zip(losses["dataset"], losses["model"], strict=True)]
    tables: list[Table] = []
    for caption, rows, conditions in (
        ("Other models and estimators, trained as above.", losses[losses.index.isin(main.index) & ~in_main], False),
        ("Other widths, recipes, activations, batch sizes and training sets.", losses[~losses.index.isin(main.index)], True),
    ):
        if len(rows):
            tables.append(_long(caption, over_seeds(rows), conditions))
    return tables


def _long(caption: str, rows: pd.DataFrame, conditions: bool) -> Table:
    keys = ["dataset", "model", "estimator", "sigma", *(CONDITION if conditions else []), "widths"]
    names = {"dataset": "data", "sigma": "σ", "batch_size": "batch", "train_images": "images"}
    shown = [k for k in keys if k != "widths" or rows.groupby(["dataset", "model"])["widths"].nunique().max() > 1]
    body = []
    has_paper = rows["paper_loss"].notna().any()
    for key, group in rows.groupby(keys, sort=True):
        values = dict(zip(keys, key, strict=True))
        cells = [text(label(values[k]) if k == "model" else level(values[k]) if k == "sigma" else values[k]) for k in shown]
        for split, reference in (("test", "nonparametric"), ("train", "floor")):
            own = group[group["split"] == split]
            row = own.iloc[0] if len(own) else None
            cells.append(number(row["loss"], row["stderr"]) if row is not None else text(None))
            if has_paper:
                cells.append(printed(row["paper_loss"] if row is not None else None))
            cells.append(number(row[reference] if row is not None else None, quiet=True))
        body.append(cells)
    paper_column = ["paper"] if has_paper else []
    head = [*(names.get(k, k) for k in shown), "test loss", *paper_column, "non-param.", "train loss", *paper_column, "floor"]
    notes = ["energy: y − σ²∇f (Eq. 3); decoder: μ_y(z), z from the encoder; direct: a network's own x̂(y)."]
    return Table(caption, head, body, notes=notes, text_columns=3)


def internals_tables(internals: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """Tables 4 and 5 at each data set's largest sigma: conventions down, models across."""
    tables: list[Table] = []
    if internals.empty:
        return tables
    for dataset, group in main_group(internals, asked).groupby("dataset"):
        sigma = group["sigma"].max()
        top = group[(group["sigma"] == sigma) & (group["seed"] == group["seed"].min())]
        one = f" of seed {top['seed'].iloc[0]}" if group["seed"].nunique() > 1 else ""
        models = main_models(top)
        has_paper = {m for m in models if top.loc[top["model"] == m, "paper_value"].notna().any()}
        rows = []
        for quantity in sorted(set(top["quantity"]), key=_quantity_order):
            cells = [text(describe_quantity(quantity))]
            for m in models:
                own = top[(top["model"] == m) & (top["quantity"] == quantity)]
                row = own.iloc[0] if len(own) else None
                cells.append(number(row["value"], row["stderr"]) if row is not None else text(None))
                if m in has_paper:
                    cells.append(printed(row["paper_value"] if row is not None else None))
            rows.append(cells)
        head, groups = ["quantity"], [("", 1)]
        for m in models:
            head += ["ours", "paper"] if m in has_paper else [label(m)]
            groups.append((label(m), 2) if m in has_paper else ("", 1))
        notes = [
            "In internals.parquet these are kl_noisy and kl_clean, by the image the encoder sees, and recon_<image the encoder "
            "sees>_<image compared with>_<half: over 2σ², full: over σ²>."
        ]
        caption = f"Encoder and decoder on {dataset} at σ = {level(sigma)}, means over the test set{one} (Tables 4–5)."
        tables.append(Table(caption, head, rows, groups if has_paper else [], notes))
    return tables


def describe_quantity(name: str) -> str:
    """A quantity of `pipelines.files.study_files` in the paper's symbols."""
    kinds = {"kl_noisy": "KL[q(z|y), p(z)]", "kl_clean": "KL[q(z|x), p(z)]"}
    parts = name.split("_")
    if name in kinds or len(parts) != 4 or parts[0] != "recon":
        return kinds.get(name, name)
    _, latent, target, factor = parts
    distance = f"‖{target} − μ_y(z)‖²/{'2σ²' if factor == 'half' else 'σ²'}"
    return f"{distance}, z ~ q(z|{'y' if latent == 'noisy' else 'x'})"


def _quantity_order(name: str) -> tuple[int, int, str]:
    return (0 if name.startswith("kl") else 1, 0 if name.endswith("half") else 1, name)


def sampling_table(sampling: pd.DataFrame) -> list[Table]:
    """Mixing, measured: what was measured down, energies and jumps across."""
    if sampling.empty:
        return []
    rank = {model: i for i, model in enumerate(main_models(sampling))}
    chains = sorted(sampling.itertuples(), key=lambda r: (r.dataset, rank[r.model], r.sigma, r.seed, r.variant))
    measured: list[tuple[str, Callable[[Any], Cell]]] = [
        ("jump", lambda r: text("x̂(y)" if r.variant.startswith("jump") else "x̂(x̂(y))")),
        ("sampler", lambda r: text(r.sampler)),
        ("step size δ", lambda r: number(r.delta)),
        ("chains × steps", lambda r: text(f"{r.chains} × {r.steps:,}")),
        ("steps between jumps", lambda r: text(r.steps_per_jump)),
        ("classes visited by the first chain", lambda r: text(r.classes_visited, quiet=_unsure(r))),
        ("its steps to visit all", lambda r: text(r.steps_to_all if pd.notna(r.steps_to_all) else "not all", quiet=_unsure(r))),
        ("autocorrelation time, jumps", lambda r: number(r.iat)),
        ("effective sample size a step", lambda r: number(r.ess_per_step)),
        ("split R̂", lambda r: number(r.split_rhat)),
        ("chains that diverged", lambda r: text(f"{r.diverged} of {r.chains}" if r.diverged else "none")),
        ("the classifier's accuracy", lambda r: text(percent(r.classifier_accuracy))),
    ]
    rows = [[text(name), *(cell(chain) for chain in chains)] for name, cell in measured]
    apart = [k for k in (*CONDITION, "widths", "seed") if sampling.groupby("model")[k].nunique().max() > 1]
    told = [", ".join(f"{k.replace('_', ' ')} {getattr(r, k)}" for k in apart) for r in chains]
    heads = [f"{label(r.model)}, {r.dataset}, σ = {level(r.sigma)}" for r in chains]
    head = ["", *(", ".join(part for part in parts if part) for parts in zip(heads, told, strict=True))]
    notes = [
        "The first chain is never restarted. Autocorrelation time, effective sample size and R̂ are over all chains that "
        "did not diverge. The classifier's accuracy, on x̂(y) of test images, bounds what its labels can tell: where it names "
        "less than half of them right, the classes are grey. Mixing says nothing of quality: jumps that hardly depend on y "
        "mix at once."
    ]
    return [Table("Mixing of walk-jump sampling.", head, rows, notes=notes)]


def _unsure(row: Any) -> bool:
    return bool(pd.notna(row.classifier_accuracy) and row.classifier_accuracy < UNSURE)


def percent(share: Any) -> str | None:
    """A share in percent, or None where unknown."""
    return f"{100 * share:.1f} %" if pd.notna(share) else None


def difference_tables(models: Iterable[Model]) -> list[Table]:
    """Where a data set's models were trained otherwise than the paper's (Sec. 3.1): each setting, theirs and ours."""
    tables: list[Table] = []
    by_data: dict[str, list[Model]] = {}
    for model in models:
        by_data.setdefault(model.spec.data.name, []).append(model)
    known = paper.SETTINGS
    for dataset, group in sorted(by_data.items()):
        recipes = {m.spec.recipe for m in group}
        train = dict(known.train_images).get(dataset)
        compared: list[tuple[str, Any, set[Any]]] = [
            ("data set", dataset if train else "MNIST, CIFAR-10", {dataset}),
            ("training images", train or "60,000 and 50,000", {m.spec.data.train_images for m in group}),
            ("noise levels σ", {level(s) for s in paper.SIGMAS}, {level(m.spec.sigma) for m in group}),
            ("epochs", known.epochs, {r.epochs for r in recipes}),
            (
                "gradient steps",
                known.epochs * -(-train // known.batch_size) if train else "187,600 and 156,400",
                {m.spec.recipe.epochs * steps_per_epoch(m.spec) for m in group},
            ),
            ("batch size", known.batch_size, {r.batch_size for r in recipes}),
            ("optimizer", "Adam", {optimizer(r) for r in recipes}),
            ("learning rate", f"{known.learning_rate:g}", {f"{r.learning_rate:g}" for r in recipes}),
            ("schedule", known.schedule, {r.schedule for r in recipes}),
            ("warm-up, share of steps", "none", {f"{r.warmup:g}" if r.warmup else "none" for r in recipes}),
            ("gradient norm clipped at", "none", {f"{r.clip:g}" if math.isfinite(r.clip) else "none" for r in recipes}),
            ("average of the weights (EMA)", "none", {f"{r.ema:g}" if r.ema else "none" for r in recipes}),
            ("activation", known.activation, {m.spec.activation for m in group}),
            *(
                (f"widths of {label(name)}", widths, {str(m.spec.widths) for m in group if m.spec.model == name})
                for name, widths in known.widths
            ),
        ]
        rows = []
        for name, theirs, ours in compared:
            if not ours:
                continue
            wanted = theirs if isinstance(theirs, set) else {theirs}
            rows.append([text(name), text(_listed(wanted), quiet=True), text(_listed(ours), best=ours != wanted)])
        tables.append(
            Table(
                f"Settings on {dataset}; ours in bold where they differ.",
                ["setting", "paper", "here"],
                rows,
                text_columns=3,
                wrap=True,
            )
        )
    return tables


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in sorted(values))


def speed_table(models: Iterable[Model]) -> list[Table]:
    """Wall time and throughput of training by model, of those trained to the end."""
    found: dict[tuple[str, str], list[Model]] = {}
    for model in models:
        if model.done and model.curves:
            found.setdefault((model.spec.data.name, model.spec.model), []).append(model)
    rows = []
    for (dataset, name), group in sorted(found.items()):
        seconds = [m.curves[-1]["seconds"] for m in group]
        speed = [row["images_per_s"] for m in group for row in m.curves]
        cells = [text(dataset), text(label(name)), text(len(group)), text(duration(sum(seconds) / len(seconds)))]
        rows.append([*cells, text(f"{sum(speed) / len(speed):,.0f}")])
    if not rows:
        return []
    caption = "Training by model, means; models trained at the same time share the machine."
    return [Table(caption, ["data", "model", "models", "time each", "images/s"], rows, text_columns=2)]


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``5 min 14 s``, ``3 h 7 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
