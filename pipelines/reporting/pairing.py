"""Which models are compared, and the paired differences of their losses (Sec. 3.2)."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from pipelines.files.study_files import Arrays, Model, Result, StudyFiles
from pipelines.reporting.schemas import SCHEMAS, describe, frame
from uvb.measure.losses import own_estimator
from uvb.spec import RunSpec

Z95 = 1.959963984540054  # the normal's 97.5 % quantile
CLOSE = 1.25  # compare models up to this ratio of parameters; the paper's two models differ by 12 %, a sweep's sizes by more
OPPONENTS = ("uvb", "deen")  # each model is compared with these two

Measured = tuple[Model, Result]


def pairs(files: StudyFiles) -> pd.DataFrame:
    """The paired differences: each model's loss minus a UVB's loss, and minus a DEEN's loss.

    The two models of a pair are trained and measured alike, on the same images and noise, and are of about the same size. UVB
    and DEEN themselves make one pair, UVB - DEEN. If the second model has several sizes, the nearest is taken. The standard
    error is over images: the draws of one image count as one.
    """
    per_image = lru_cache(maxsize=64)(_per_image)  # many models have the same opponent; the limit bounds the memory
    rows = []
    for (a, result_a), (b, result_b) in _partners(list(files.of_models("losses"))):
        ids = {"first_id": a.spec_id, "second_id": b.spec_id, "first": a.spec.model, "second": b.spec.model}
        for split in ("train", "test"):
            one, two = (per_image(m.spec.model, result.folder, split) for m, result in ((a, result_a), (b, result_b)))
            if one is None or two is None or one.shape != two.shape:
                continue
            difference = one.astype(np.float64) - two.astype(np.float64)  # (N,)
            mean, images = float(difference.mean()), len(difference)
            stderr = float(difference.std(ddof=1)) / math.sqrt(images) if images > 1 else math.nan
            found = {**describe(a), **ids, "split": split, "images": images, "difference": mean, "stderr": stderr}
            found |= {"low": mean - Z95 * stderr, "high": mean + Z95 * stderr}
            rows.append({name: found[name] for name in SCHEMAS["pairs"].names})
    return frame("pairs", rows)


def _partners(results: list[Measured]) -> Iterator[tuple[Measured, Measured]]:
    """Pair each model with the UVB and the DEEN nearest in size, among those trained and measured alike."""
    alike: dict[str, list[Measured]] = defaultdict(list)
    for model, result in results:
        alike[_condition(model.spec, result)].append((model, result))
    for group in alike.values():
        sizes = {model.spec_id: math.log(describe(model)["parameters"]) for model, _ in group}
        for first in group:
            for opponent in OPPONENTS:
                if not _compared(first[0].spec.model, opponent):
                    continue
                size = sizes[first[0].spec_id]
                others = [second for second in group if second[0].spec.model == opponent]
                nearest = min(others, key=lambda second: abs(sizes[second[0].spec_id] - size), default=None)
                if nearest and abs(sizes[nearest[0].spec_id] - size) < math.log(CLOSE):
                    yield first, nearest


def _condition(spec: RunSpec, result: Result) -> str:
    """What two compared models share: data, σ, recipe, activation, seed, and the way of measuring (images, draws, rounding)."""
    blob = spec.to_json()
    shared = [blob[k] for k in ("data", "sigma", "recipe", "activation", "seed")]
    return json.dumps([*shared, result.values.get("settings")], sort_keys=True)


def _compared(first: str, opponent: str) -> bool:
    """Whether `first` minus an opponent is a pair. Among UVB and DEEN, only UVB - DEEN is one."""
    return first not in OPPONENTS or (first, opponent) == OPPONENTS


def _per_image(model: str, folder: Path, split: str) -> np.ndarray | None:
    """The loss of each image (N,), of the estimator by which a model is judged; None if the result has no such losses."""
    arrays = Arrays(folder / "arrays.safetensors")
    offered = [name.removeprefix(f"{split}/") for name in arrays if name.startswith(f"{split}/")]
    return arrays[f"{split}/{own_estimator(model, offered)}"] if offered else None
