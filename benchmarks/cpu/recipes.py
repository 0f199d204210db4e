"""Search each model's best recipe on held-out images, then compare the models: each at its best, and all at one recipe.

python -m benchmarks.cpu.recipes --dataset digits --folder OUT [--epochs 11] [--sigmas 0.3 0.6 1.0] [--seeds 3]

The search is the same for all models. It tries every optimizer at every rate. Then it changes one setting of the best recipe at
a time. It trains at the largest noise level with `--search-seeds` seeds. It holds out a fifth of the training images, and
compares the losses on them. The comparison then trains on all training images, measures on the whole test set, and subtracts
the losses of each other model from those of the first model. The same command continues an interrupted run. The script writes
OUT/trainings.jsonl (one line per training) and OUT/comparison.json.
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor

from benchmarks.measure import machine
from benchmarks.training import (
    add_comparison,
    append_json_line,
    compared_images,
    cpu_plan,
    json_lines,
    own_losses,
    spec_on,
    trained,
)
from pipelines.cluster.cost_model import image_flops
from uvb.data import ImageSet
from uvb.errors import Diverged
from uvb.exact.baselines import linear_loss
from uvb.measure.asymmetry import jacobian_asymmetry
from uvb.measure.losses import EvalConfig, clustered_mean
from uvb.models import get_model
from uvb.models.base import Estimator
from uvb.models.capacity import widths_at
from uvb.noise import normal
from uvb.spec import RECIPES

ONE_CHANGE: dict[str, dict[str, Any]] = {
    "batch": {"batch_size": 128},
    "small batch": {"batch_size": 32},
    "clip": {"clip": 10.0},
    "ema": {"ema": 0.99},
}

Choice = dict[str, Any]  # changes to the recipe `fast`


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_comparison(parser, "digits")
    add = parser.add_argument
    add("--epochs", type=int, default=11)
    add("--search-epochs", type=int, default=0, help="epochs of each training of the search (0: as --epochs)")
    add("--work-of", default="", metavar="MODEL", help="--epochs is this model's; others train for as much arithmetic")
    add("--batch-size", type=int, default=64)
    add("--seeds", type=int, default=3, help="trainings of each model, recipe and noise level in the comparison")
    add("--search-seeds", type=int, default=2)
    add("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2])
    add("--optimizers", nargs="+", default=["adam", "muon_conv"])
    add("--changes", nargs="*", choices=[*ONE_CHANGE, "memory"], default=["batch", "clip", "memory"])
    add("--eval-draws", type=int, default=4)
    add("--eval-images", type=int, default=0, help="how many held-out images the search measures on (0: all)")
    add("--threads", type=int, default=0)
    add("--search-only", action="store_true")
    add("--best-only", action="store_true", help="compare each model at its best recipe only")
    found = '{"uvb": {"optimizer": "muon_conv", "learning_rate": 0.004}, "deen": ...}'
    add("--best", type=json.loads, help=f"skip the search: {found}")
    return parser.parse_args()


class Trainings:
    """All trainings of this command. Each runs once, and its losses are kept in files."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.images = compared_images(asked)
        self.held_out = self.images.validation()
        self.plan = cpu_plan(asked.threads)
        self.file, self.losses = asked.folder / "trainings.jsonl", asked.folder / "losses"
        self.losses.mkdir(parents=True, exist_ok=True)
        self.done = {(row["spec_id"], row["held_out"]): row for row in json_lines(self.file)}

    def loss(self, model: str, choice: Choice, sigma: float, seed: int, *, held_out: bool) -> dict[str, Any]:
        """A row with the mean loss on the held-out or test images. The loss is infinite if the training diverged."""
        asked, images = self.asked, self.held_out if held_out else self.images
        widths = widths_at(model, images.shape, asked.width)
        epochs = asked.search_epochs if held_out and asked.search_epochs else self.epochs(model)
        recipe = RECIPES["fast"].changed(**{"batch_size": asked.batch_size, **choice, "epochs": epochs})
        spec = spec_on(images, model, recipe, widths=widths, sigma=sigma, seed=seed)
        if (spec.spec_id, held_out) in self.done:
            return self.done[spec.spec_id, held_out]
        started, cpu = time.monotonic(), time.process_time()
        mean, stderr, curve, asymmetry = math.inf, math.nan, [], None
        try:
            state = trained(spec, self.plan, images)
            config = EvalConfig(test_images=asked.eval_images if held_out else 0, draws=asked.eval_draws)
            _, per_image = own_losses(state.averaged.eval(), spec, images, "test", config, self.plan)
            torch.save(per_image, self.losses / f"{spec.spec_id}.pt")
            found = clustered_mean(per_image)
            mean, stderr = found.value, found.stderr
            asymmetry = None if held_out else asymmetry_of(state.averaged, images, sigma)
            curve = [one.test_loss for one in state.curves]  # of the averaged weights, on a fixed set of images
        except Diverged as error:
            print(error, flush=True)
        row = {
            "model": model, "choice": choice, "sigma": sigma, "seed": seed, "held_out": held_out, "loss": mean,
            "stderr_over_images": stderr, "seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu,
            "spec_id": spec.spec_id, "spec": spec.to_json(), "curve": curve, "asymmetry": asymmetry,
        }  # fmt: skip
        append_json_line(self.file, row)
        self.done[spec.spec_id, held_out] = row
        where = "held-out" if held_out else "test"
        print(f"{model} {choice} σ={sigma:g} seed {seed}: {where} {mean:.4f} ({row['seconds']:.0f} s)", flush=True)
        return row

    def epochs(self, model: str) -> int:
        """The epochs of a comparison's training: `--epochs`, or with `--work-of` as many as cost that model's arithmetic."""
        if not self.asked.work_of:
            return int(self.asked.epochs)

        def work(name: str) -> float:
            return image_flops(name, shape, widths_at(name, shape, self.asked.width), get_model(name).objective)

        shape = self.images.shape
        return max(1, round(self.asked.epochs * work(self.asked.work_of) / work(model)))

    def difference(self, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
        """The mean of ours - theirs over pairs of trainings with one seed, and two errors of this mean.

        The errors are half of the 95 % interval over trainings, and the standard error over images.
        """
        pairs = list(zip(ours, theirs, strict=True))
        apart = [a["loss"] - b["loss"] for a, b in pairs]
        if not all(map(math.isfinite, apart)):  # a training diverged
            return {"mean": math.nan, "half_interval_over_trainings": math.nan, "stderr_over_images": math.nan}
        per_image = torch.stack([self.per_image(a) - self.per_image(b) for a, b in pairs]).mean(0)
        return {
            "mean": statistics.mean(apart),
            "half_interval_over_trainings": interval(apart),
            "stderr_over_images": clustered_mean(per_image).stderr,
        }

    def per_image(self, row: dict[str, Any]) -> Tensor:
        loaded: Tensor = torch.load(self.losses / f"{row['spec_id']}.pt")
        return loaded


def asymmetry_of(model: Estimator, images: ImageSet, sigma: float) -> float:
    """The asymmetry of the model's Jacobian on 64 noisy test images. It is 0 for an energy, up to rounding."""
    x = images.to_unit(images.test[:64])
    return jacobian_asymmetry(model.eval(), x + sigma * normal(tuple(x.shape), 0, "asymmetry")).value


def interval(values: list[float]) -> float:
    """Half the width of the 95 % interval of the mean of `values`."""
    count = len(values)
    return float(student.ppf(0.975, count - 1)) * statistics.stdev(values) / math.sqrt(count) if count > 1 else math.nan


def changed(best: Choice, name: str) -> Choice:
    """`best` with the change called `name`."""
    if name == "memory":  # how long Adam averages squared gradients. Muon has no such average, so change its weight decay
        return best | ({"beta2": 0.95} if best["optimizer"] == "adam" else {"weight_decay": 0.1})
    return best | ONE_CHANGE[name]


def search(trainings: Trainings, asked: argparse.Namespace, model: str) -> list[tuple[float, Choice]]:
    """The mean held-out loss of every recipe that the search tries, the best first."""

    def mean(choice: Choice) -> float:
        seeds = range(asked.search_seeds)
        rows = [trainings.loss(model, choice, max(asked.sigmas), seed, held_out=True) for seed in seeds]
        return statistics.mean(row["loss"] for row in rows)

    grid = [{"optimizer": o, "learning_rate": r} for o, r in itertools.product(asked.optimizers, asked.rates)]
    found = [(mean(choice), choice) for choice in grid]
    best = min(found, key=lambda one: one[0])[1]
    found += [(mean(choice), choice) for choice in (changed(best, name) for name in asked.changes)]
    return sorted(found, key=lambda one: one[0])


def main() -> None:
    asked = arguments()
    trainings = Trainings(asked)
    searched = {} if asked.best else {model: search(trainings, asked, model) for model in asked.models}
    for model, found in searched.items():
        print(model, "best:", *[f"{loss:.4f} {choice}" for loss, choice in found[:3]], sep="\n  ", flush=True)
    result: dict[str, Any] = {
        "machine": machine(),
        "plan": trainings.plan.to_json(),
        "epochs": asked.epochs,
        "width": asked.width,
        "search": {m: [{"loss": loss, "choice": choice} for loss, choice in found] for m, found in searched.items()},
    }
    if asked.search_only:
        (asked.folder / "comparison.json").write_text(json.dumps(result, indent=1))
        return
    best = {
        model: lasting(trainings, model, [asked.best[model]] if asked.best else [choice for _, choice in searched[model]])
        for model in asked.models
    }
    for rows in compare(trainings, asked, best):
        result["compared"] = rows
        (asked.folder / "comparison.json").write_text(json.dumps(result, indent=1))


def lasting(trainings: Trainings, model: str, choices: list[Choice]) -> Choice:
    """The first of `choices` with which none of the model's trainings in the comparison diverges. The best choice comes first.

    A recipe that was best in the short trainings of the search may diverge in a longer training.
    """
    asked = trainings.asked
    for choice in choices:
        trained = itertools.product(asked.sigmas, range(asked.seeds))
        rows = [trainings.loss(model, choice, sigma, seed, held_out=False) for sigma, seed in trained]
        if all(math.isfinite(row["loss"]) for row in rows):
            return choice
    raise SystemExit(f"{model} diverges with every recipe of the search: give lower --rates")


def compare(trainings: Trainings, asked: argparse.Namespace, best: dict[str, Choice]) -> Iterator[list[dict[str, Any]]]:
    """Compute a row for each noise level and pairing (the recipe of each model). After each row yield all rows, to be saved."""
    pairings = {"best against best": best}
    if not asked.best_only:
        fast = {"optimizer": "adam", "learning_rate": RECIPES["fast"].learning_rate}
        pairings["all at fast"] = dict.fromkeys(asked.models, fast)
        pairings |= {f"all at {model.upper()}'s best": dict.fromkeys(asked.models, best[model]) for model in asked.models}
    first, *others = asked.models
    rows = []
    for sigma, (name, recipes) in itertools.product(asked.sigmas, pairings.items()):
        seeds = range(asked.seeds)
        of = {m: [trainings.loss(m, recipes[m], sigma, seed, held_out=False) for seed in seeds] for m in asked.models}
        images = trainings.images
        linear = linear_loss(images.train, images.test, sigma, images.levels)
        row: dict[str, Any] = {"recipes": name, "sigma": sigma, "trainings": asked.seeds, "linear": linear}
        for model, found in of.items():
            losses = [one["loss"] for one in found]
            row[model] = {
                "choice": recipes[model],
                "loss": statistics.mean(losses),
                "half_interval_over_trainings": interval(losses),
                "stderr_over_images": statistics.mean(one["stderr_over_images"] for one in found),
            }
        for other in others:
            row[f"{first} - {other}"] = trainings.difference(of[first], of[other])
            print(name, sigma, f"{first} - {other}", json.dumps(row[f"{first} - {other}"]), flush=True)
        rows.append(row)
        yield rows


if __name__ == "__main__":
    main()
