"""Make the report's tables of losses: Tables 2 and 3 over sigma beside the references, and tables of the other losses."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pandas as pd

from pipelines.reporting.cells import Table, first_row, number, printed, text
from pipelines.reporting.figures.style import label
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import CONDITION, main_group, main_models, over_seeds, own_estimator
from uvb import paper

# column of losses.parquet -> its heading in a table, and a note that explains it
REFERENCES = {
    "nonparametric": ("non-param.", "Non-param.: the training set's exact posterior mean, which a model may beat."),
    "floor": ("floor", "Floor: the loss of the exact posterior mean on its own training set. Lower losses are due to chance."),
    "mean_image": ("mean image", "Mean image: the loss of always answering the mean of the training images."),
    "noisy_image": ("y itself", "y itself: the loss of answering the noisy image, which is σ² times the number of pixels."),
}
SPLITS = {"test": ("nonparametric", "mean_image", "noisy_image"), "train": ("floor", "mean_image", "noisy_image")}


def loss_tables(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """Tables 2 and 3 for each data set: a row for each sigma, with each model's loss beside the paper's.

    They have only the models with the recipe, activation, batch size, training set and epochs that most models share
    (`main_group`).
    """
    tables = []
    for dataset, group in over_seeds(own_estimator(main_group(losses, asked))).groupby("dataset"):
        shown = group[group["model"].isin(_swept(group))]
        for split in SPLITS:
            if len(rows := shown[shown["split"] == split]):
                tables.append(_loss_table(str(dataset), split, rows))
    return tables


def _swept(group: pd.DataFrame) -> set[str]:
    """The paper's two models, and those that have losses at half of the noise levels or more."""
    levels = group.groupby("model")["sigma"].nunique()
    return set(levels.index[levels >= group["sigma"].nunique() / 2]) | {"uvb", "deen"}


def _loss_table(dataset: str, split: str, rows: pd.DataFrame) -> Table:
    models, several = main_models(rows), int(rows["seeds"].max()) > 1
    with_paper = set(rows.loc[rows["paper_loss"].notna(), "model"])
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
            row = first_row(here[here["model"] == m])
            best = bool(row) and here["model"].nunique() > 1 and row["loss"] == here["loss"].min()
            cells.append(number(row.get("loss"), row.get("stderr"), best=best))
            cells += [printed(row.get("spread"), 2)] if several else []
            cells += [printed(row.get("paper_loss"))] if m in with_paper else []
        body.append([*cells, *(number(here[name].dropna().max(), quiet=True) for name in references)])
    of_paper = {"mnist": "Table 2", "cifar10": "Table 3"}.get(dataset, "as Tables 2–3")
    caption = f"{split.capitalize()} loss on {dataset} over the noise level ({of_paper})."
    groups = groups if any(span > 1 for _, span in groups) else []
    return Table(caption, head, body, groups, _loss_notes(dataset, rows, references, bool(with_paper)))


def _loss_notes(dataset: str, rows: pd.DataFrame, references: Sequence[str], with_paper: bool) -> list[str]:
    notes = [REFERENCES[name][1] for name in references]
    if not {"floor", "nonparametric"} & set(references):
        notes.append("The exact reference is not in this study (no results of the task “reference”).")
    fewest, most = int(rows["seeds"].min()), int(rows["seeds"].max())
    if most > 1:
        notes.append(f"Means over {most} seeds." if fewest == most else f"Means over {fewest} to {most} seeds.")
    theirs, ours = dict(paper.SETTINGS.train_images).get(dataset), int(rows["train_images"].iloc[0])
    if with_paper and theirs and theirs != ours:
        notes.append(f"The paper trained on {theirs:,} images, this study on {ours:,}.")
    return notes


def other_losses(losses: pd.DataFrame, asked: Collection[str] = ()) -> list[Table]:
    """Tables of the losses that `loss_tables` leaves out: of models at few noise levels, of decoders, of other recipes."""
    main, own = main_group(losses, asked), own_estimator(losses)
    of_main = own[own.index.isin(main.index)]
    # the rows that `loss_tables` shows
    shown = [row for _, group in of_main.groupby("dataset") for row in group.index[group["model"].isin(_swept(group))]]
    as_above = main[~main.index.isin(shown)]
    otherwise = losses[~losses.index.isin(main.index)]
    found: list[tuple[str, list[str], pd.DataFrame]] = [
        ("Losses of other models and estimators, trained as above.", [], as_above),
        ("Losses with other widths, recipes, activations, batch sizes and training sets.", CONDITION, otherwise),
    ]
    return [_long(caption, condition, over_seeds(rows)) for caption, condition, rows in found if len(rows)]


def _long(caption: str, condition: list[str], rows: pd.DataFrame) -> Table:
    """One row per model, estimator, noise level and condition, with columns for both splits."""
    keys = ["dataset", "model", "estimator", "sigma", *condition, "widths"]
    headings = {"dataset": "data", "sigma": "σ", "batch_size": "batch", "train_images": "images"}
    words: dict[str, Callable[[Any], str]] = {"model": label, "sigma": level}
    shown = [k for k in keys if k != "widths" or rows.groupby(["dataset", "model"])["widths"].nunique().max() > 1]
    with_paper = bool(rows["paper_loss"].notna().any())
    splits = {split: [name for name in names if rows[name].notna().any()] for split, names in SPLITS.items()}
    body = []
    for key, group in rows.groupby(keys, sort=True):
        values = dict(zip(keys, key, strict=True))
        cells = [text(words.get(k, str)(values[k])) for k in shown]
        for split, references in splits.items():
            row = first_row(group[group["split"] == split])
            cells.append(number(row.get("loss"), row.get("stderr")))
            cells += [printed(row.get("paper_loss"))] if with_paper else []
            cells += [number(row.get(name), quiet=True) for name in references]
        body.append(cells)
    head = [headings.get(k, k) for k in shown]
    for split, references in splits.items():
        head += [f"{split} loss", *(["paper"] if with_paper else []), *(REFERENCES[name][0] for name in references)]
    notes = ["Estimators: energy is y − σ²∇f (Eq. 3); decoder is μ_y(z) with z from the encoder; direct is a network's output."]
    return Table(caption, head, body, notes=notes, text_columns=3)
