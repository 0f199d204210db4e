"""One training on a lent GPU, from its spec to a small folder of results: the unit of resumption of `gpu/run.py`.

``place`` is a folder on that machine's disk: state/ (a training under way), models/ (finished weights) and results/. Only
results/ comes back, so what needs the weights is computed here, right after the training.
"""

import contextlib
import dataclasses
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import uvb
from benchmarks.measure import require_alive, setting
from uvb.data import ImageSet
from uvb.errors import Diverged, UserError
from uvb.experiments import Context, experiment_names, get_experiment
from uvb.measure.losses import EvalConfig
from uvb.models import get_model
from uvb.plan import Plan
from uvb.spec import RECIPES, DataRef, RunSpec
from uvb.training.loop import fit
from uvb.training.state import DamagedCheckpoint, TrainState

SAVE_SECONDS = 120.0  # between checkpoints on the machine's disk
RESERVE_SECONDS = 20.0  # kept for saving and bundling when the time is up
# Of arrays kept an experiment; the largest are left out, and named. All results travel with the tree, which may have 64 MiB.
ARRAYS_BYTES = 300_000
FAST_EPOCHS = 40  # the aim: the paper's losses of 400 epochs in at most so many
GRID = 20  # images in a row of a picture, and rows
FAST_RATE = 5e-4  # peak: the recipe's own, found in short trainings, is too high for this one (docs/results.md)
MUON_RATES = (2e-3, 1e-3)  # half and a quarter of the recipe's: over 40 epochs Adam's best fell to a quarter
TRIED: tuple[dict[str, Any], ...] = (  # instead, for UVB
    {"learning_rate": 1e-3, "clip": 10.0},
    {"learning_rate": 1e-3},
    {"learning_rate": 1e-3, "batch_size": 128},
    {"learning_rate": 2.5e-4},
    {},
)
SIGMAS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)  # after 1.0: the largest first, where the paper's gap is widest

Say = Callable[[str], None]


class Budget:
    """A deadline that is looked at, never enforced."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def left(self) -> float:
        """Seconds until work must stop, what saving and bundling need taken off."""
        return self.end - time.monotonic() - RESERVE_SECONDS


def paper_spec(images: ImageSet, model: str, sigma: float, recipe: str, **changes: Any) -> RunSpec:
    """The paper's network on all training images; a study with `--epochs 40 --learning-rate 5e-4` (or `--recipe paper`) has
    the same `spec_id`."""
    data = DataRef(images.name, images.checksum, images.shape, len(images.train))
    known = get_model(model)
    rate = {"fast": FAST_RATE, "muon": MUON_RATES[0]}.get(recipe)
    chosen = RECIPES[recipe].changed(epochs=FAST_EPOCHS, learning_rate=rate) if rate else RECIPES[recipe]
    spec = RunSpec(data, model, known.widths, sigma, known.objective, chosen)
    return dataclasses.replace(spec, **changes)


def in_order_of_value(sets: dict[str, ImageSet]) -> list[RunSpec]:
    """Every training of the paper's tables, the most telling first."""
    specs: list[RunSpec] = []
    if mnist := sets.get("mnist"):
        specs += [paper_spec(mnist, "uvb", 1.0, recipe) for recipe in ("fast", "muon")]
        specs += [paper_spec(mnist, model, 1.0, "fast") for model in ("deen", "vae")]
        slower = RECIPES["muon"].changed(epochs=FAST_EPOCHS, learning_rate=MUON_RATES[1])
        specs += [dataclasses.replace(specs[0], recipe=slower), paper_spec(mnist, "deen", 1.0, "muon")]
        tried = [RECIPES["fast"].changed(epochs=FAST_EPOCHS, **changes) for changes in TRIED]
        specs += [dataclasses.replace(specs[0], recipe=each) for each in tried[:2]]
        specs += [paper_spec(mnist, "uvb", 1.0, "paper")]
        specs += [dataclasses.replace(specs[0], recipe=each) for each in tried[2:]]
        specs += [paper_spec(mnist, model, sigma, "fast") for sigma in SIGMAS for model in ("uvb", "deen")]
    if cifar10 := sets.get("cifar10"):
        specs += [paper_spec(cifar10, model, sigma, "fast") for sigma in (1.0, 0.5) for model in ("uvb", "deen")]
    if mnist:
        specs += [paper_spec(mnist, "deen", 1.0, "paper")]
    return specs


def run_training(
    spec: RunSpec, plan: Plan, images: ImageSet, place: Path, budget: Budget, say: Say, *, only: str | None = None
) -> bool:
    """Train, evaluate, write ``place/results/<spec_id>``; False if the time was up before the end (call it again).

    With `only` no other experiment is run, and it is not finished by that.
    """
    folder, weights = place / "results" / spec.spec_id, place / "models" / spec.spec_id
    if (folder / "done.json").exists():
        return True
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "spec.json", spec.to_json())
    try:
        if not (weights / "card.json").exists() and not train(spec, plan, images, place, budget, say):
            return False
    except Diverged as error:  # that is a result
        say(f"  {error}")
        write_json(folder / "done.json", {"spec_id": spec.spec_id, "label": spec.label, "error": str(error)})
        return True
    if not experiments(spec, plan, images, place, budget, say, only=only):
        return False
    if only is not None:
        return True
    write_json(folder / "done.json", {"spec_id": spec.spec_id, "label": spec.label, "recipe": spec.recipe.name})
    shutil.rmtree(place / "state" / spec.spec_id, ignore_errors=True)
    return True


def train(spec: RunSpec, plan: Plan, images: ImageSet, place: Path, budget: Budget, say: Say) -> bool:
    """From the newest state on the disk to saved weights; False, and a new state, where the time was up."""
    place_of_state, folder = place / "state" / spec.spec_id, place / "results" / spec.spec_id
    state = newest_state(place_of_state, spec, plan)
    saved = said = time.monotonic()
    for progress in fit(spec, plan, state, images):
        now = time.monotonic()
        if now - said > 15 or state.finished:
            epochs = spec.recipe.epochs
            say(f"  epoch {progress.epoch}/{epochs}, loss {progress.loss:.3f}, {progress.images_per_second:.0f} images/s")
            said = now
        if state.finished:
            break
        if budget.left() < 0 or now - saved > SAVE_SECONDS:
            save_state(state, place_of_state, plan)
            write_curves(state, plan, folder)
            saved = time.monotonic()
        if budget.left() < 0:
            say(f"  time is up at epoch {state.epoch}, step {state.step}; the state is kept on this machine")
            return False
    write_curves(state, plan, folder)
    card = {"epochs": state.epoch, "seconds": state.seconds, "plan": plan.to_json()}
    uvb.save_model(state.averaged, spec, place / "models" / spec.spec_id, card)
    return True


def newest_state(folder: Path, spec: RunSpec, plan: Plan) -> TrainState:
    """The last one written whole ("next" where the process was killed while it took the place of "now"), or a fresh one."""
    for name in ("now", "next"):
        if (folder / name).exists():
            with contextlib.suppress(DamagedCheckpoint, UserError):  # damaged, or of other code
                return TrainState.load(folder / name, spec, plan)
    return TrainState.fresh(spec, plan)


def save_state(state: TrainState, folder: Path, plan: Plan) -> None:
    """Written beside the last one, which goes only when the new one is whole."""
    shutil.rmtree(folder / "next", ignore_errors=True)
    state.save(folder / "next", plan)
    shutil.rmtree(folder / "now", ignore_errors=True)
    (folder / "next").rename(folder / "now")


def write_curves(state: TrainState, plan: Plan, folder: Path) -> None:
    rows = [dataclasses.asdict(row) for row in state.curves]
    write_json(folder / "curves.json", {"rows": rows, "seconds": state.seconds, "plan": plan.to_json()})


def experiments(
    spec: RunSpec,
    plan: Plan,
    images: ImageSet,
    place: Path,
    budget: Budget,
    say: Say,
    scale: float = 1.0,
    only: str | None = None,
) -> bool:
    """Run the experiments that apply (at σ = 1 also those no study runs unasked), in fp32 (without TF32); keep what is small.

    A failure is recorded, not raised.

    One that a call's end cut short left its mark, and is not tried again: it would be cut short again.
    """
    folder = place / "results" / spec.spec_id
    exact = dataclasses.replace(plan, precision="fp32", compile=False)
    model = uvb.load(place / "models" / spec.spec_id, plan.device)
    context = Context(images, exact, EvalConfig(), seed=0, scale=scale)
    for name in experiment_names(default_only=spec.sigma != 1.0):
        experiment = get_experiment(name)
        done, mark = folder / f"{name}.json", folder / f"{name}.started"
        applies = experiment.applies(type(model), spec.data.name) and (experiment.where == "every" or spec.sigma == 1.0)
        if done.exists() or not applies or only not in (None, name):
            continue
        if mark.exists():
            write_json(done, {"error": "a call ended while it ran; see gpu_run.py --minutes"})
            continue
        if budget.left() < 0:
            return False
        mark.touch()
        started = time.monotonic()
        try:
            with setting(torch.backends.cudnn, "allow_tf32", False):
                result = experiment.run(model, spec, context)
            dropped = save_arrays(result.arrays, images.shape, folder, name)
            write_json(done, {**result.scalars, "seconds": time.monotonic() - started, "arrays_left_out": dropped})
            say(f"  {name}: {time.monotonic() - started:.1f} s{told(name, result.scalars)}")
        except Exception as error:  # one experiment must not cost the others
            write_json(done, {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()})
            say(f"  {name} FAILED: {type(error).__name__}: {error}")
        mark.unlink()
        require_alive(plan.device)
    return True


def told(name: str, scalars: dict[str, Any]) -> str:
    """The losses in words; nothing for another experiment."""
    if name != "losses":
        return ""
    return "".join(f"; {r['estimator']}, {r['split']}: {r['loss']:.3f} ± {r['stderr']:.3f}" for r in scalars["rows"])


def save_arrays(arrays: dict[str, Tensor], shape: tuple[int, int, int], folder: Path, name: str) -> list[str]:
    """Arrays (large ones in float16) in one safetensors file, images also as pictures; returns the names left out."""
    small: dict[str, Tensor] = {}
    for key, value in arrays.items():
        value = value.detach().cpu().contiguous()
        if value.is_floating_point():
            if value.ndim >= 4 and tuple(value.shape[-3:]) == tuple(shape):
                picture(value, folder / f"{name}.{key.replace('/', '-')}.png")
            value = value.half() if value.numel() > 20_000 else value.float()
        small[key] = value
    dropped: list[str] = []
    while small and sum(v.nbytes for v in small.values()) > ARRAYS_BYTES:
        largest = max(small, key=lambda k: small[k].nbytes)
        dropped.append(largest)
        del small[largest]
    if small:
        save_file(small, folder / f"{name}.safetensors")
    return dropped


def picture(images: Tensor, path: Path) -> None:
    """(..., C, H, W) in [0, 1] as one grid: a row for each leading index where there are several, else rows of `GRID`."""
    rows = images.flatten(0, -5) if images.ndim > 4 else images.split(GRID)
    rows = [row[:GRID] for row in rows][:GRID]
    c, h, w = images.shape[-3:]
    grid = torch.zeros(c, h * len(rows), w * max(len(row) for row in rows))
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            grid[:, i * h : (i + 1) * h, j * w : (j + 1) * w] = image.float()
    pixels = (grid.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()  # (H, W, C)
    Image.fromarray(pixels[..., 0] if c == 1 else np.ascontiguousarray(pixels)).save(path, optimize=True)


def write_json(path: Path, value: Any) -> None:
    """Whole or absent; what is not finite becomes null."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(_finite(value), indent=1))
    part.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
