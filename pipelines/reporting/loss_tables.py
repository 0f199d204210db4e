"""Tables 2 and 3 as cells: losses over sigma with the references beside them, and the losses that these leave out."""

from collections.abc import Collection, Sequence

import pandas as pd

from pipelines.reporting.cells import Cell, Table, number, printed, text
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import CONDITION, main_group, main_models, over_seeds, own_estimator
from uvb import paper

# column of losses.parquet -> its head, and what it is
REFERENCES = {
    "nonparametric": ("non-param.", "Non-param.: the training set's exact posterior mean, a reference and not a bound."),
    "floor": ("floor", "Floor: the loss of the exact posterior mean on its own training set; below it is noise alone."),
    "mean_image": ("mean image", "Mean image: always answering the mean of the training images."),
    "noisy_image": ("y itself", "y itself: answering the noisy image, σ² times the number of pixels."),
}
SPLITS = {"test": ("nonparametric", "mean_image", "noisy_image"), "train": ("floor", "mean_image", "noisy_image")}


def loss_tables(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """Tables 2 and 3 for each data set's main condition: sigma down, models across, the paper's figure beside ours."""
    tables: list[Table] = []
    if losses.empty:
        return tables
    for dataset, group in over_seeds(own_estimator(main_group(losses, asked))).groupby("dataset"):
        shown = [m for m in main_models(group) if m in _swept(group)]
        for split in SPLITS:
            rows = group[(group["split"] == split) & group["model"].isin(shown)]
            if len(rows):
                tables.append(_loss_table(str(dataset), split, rows, [m for m in shown if (rows["model"] == m).any()]))
    return tables


def _swept(group: pd.DataFrame) -> set[str]:
    """Models known at half of the noise levels or more, and always the paper's two."""
    levels = group.groupby("model")["sigma"].nunique()
    return set(levels.index[levels >= group["sigma"].nunique() / 2]) | {"uvb", "deen"}


def _loss_table(dataset: str, split: str, rows: pd.DataFrame, models: Sequence[str]) -> Table:
    with_paper = {m for m in models if rows.loc[rows["model"] == m, "paper_loss"].notna().any()}
    several = int(rows["seeds"].max()) > 1
    references = [name for name in SPLITS[split] if rows[name].notna().any()]
    head, groups = ["σ"], [("", 1)]
    for m in models:
        columns = ["ours", *(["seeds' s.d."] if several else []), *(["paper"] if m in with_paper else [])]
        head += columns if len(columns) > 1 else [label(m)]
        groups.append((label(m) if len(columns) > 1 else "", len(columns)))
    head += [REFERENCES[name][0] for name in references]
    groups += [("", 1)] * len(references)
    body = []
    for sigma, here in rows.groupby("sigma"):
        cells = [text(level(sigma))]
        for m in models:
            cells += _model_cells(here, m, several, m in with_paper)
        body.append([*cells, *(number(here[name].dropna().max(), quiet=True) for name in references)])
    number_ = {"mnist": "Table 2", "cifar10": "Table 3"}.get(dataset, "as Tables 2–3")
    caption = f"{split.capitalize()} loss on {dataset} over the noise level ({number_})."
    groups = groups if any(span > 1 for _, span in groups) else []
    return Table(caption, head, body, groups, _loss_notes(dataset, rows, references, bool(with_paper)))


def _model_cells(here: pd.DataFrame, model: str, several: bool, with_paper: bool) -> list[Cell]:
    """A model's cells at one noise level: its loss, its spread over seeds, and the paper's."""
    own = here[here["model"] == model]
    row = own.iloc[0] if len(own) else None
    best = row is not None and here["model"].nunique() > 1 and row["loss"] == here["loss"].min()
    cells = [number(row["loss"], row["stderr"], best=best) if row is not None else text(None)]
    cells += [printed(row["spread"] if row is not None else None, 2)] if several else []
    return cells + ([printed(row["paper_loss"] if row is not None else None)] if with_paper else [])


def _loss_notes(dataset: str, rows: pd.DataFrame, references: Sequence[str], with_paper: bool) -> list[str]:
    notes = [REFERENCES[name][1] for name in references]
    if not {"floor", "nonparametric"} & set(references):
        notes.append("The exact reference is not in this study (no results of the task “reference”).")
    fewest, most = int(rows["seeds"].min()), int(rows["seeds"].max())
    if most > 1:
        notes.append(f"Means over {most} seeds." if fewest == most else f"Means over {fewest} to {most} seeds.")
    theirs, ours = dict(paper.SETTINGS.train_images).get(dataset), int(rows["train_images"].iloc[0])
    if with_paper and theirs and theirs != ours:
        notes.append(f"The paper's models saw {theirs:,} training images, these {ours:,}.")
    return notes


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
    per_split = (("test", ("nonparametric", "mean_image")), ("train", ("floor",)))
    shown = [k for k in keys if k != "widths" or rows.groupby(["dataset", "model"])["widths"].nunique().max() > 1]
    body = []
    has_paper = rows["paper_loss"].notna().any()
    for key, group in rows.groupby(keys, sort=True):
        values = dict(zip(keys, key, strict=True))
        cells = [text(label(values[k]) if k == "model" else level(values[k]) if k == "sigma" else values[k]) for k in shown]
        for split, references in per_split:
            own = group[group["split"] == split]
            row = own.iloc[0] if len(own) else None
            cells.append(number(row["loss"], row["stderr"]) if row is not None else text(None))
            if has_paper:
                cells.append(printed(row["paper_loss"] if row is not None else None))
            cells += [number(row[name] if row is not None else None, quiet=True) for name in references]
        body.append(cells)
    paper_column = ["paper"] if has_paper else []
    head = [names.get(k, k) for k in shown]
    for split, references in per_split:
        head += [f"{split} loss", *paper_column, *(REFERENCES[name][0] for name in references)]
    notes = ["energy: y − σ²∇f (Eq. 3); decoder: μ_y(z), z from the encoder; direct: a network's own x̂(y)."]
    return Table(caption, head, body, notes=notes, text_columns=3)
