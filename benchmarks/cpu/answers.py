"""Make tables and figures for three questions from the files that `recipes` and `gap` wrote.

Best against best: which model has the lower test loss, if each has its best recipe?
The paper's open question 1: is UVB's advantage its parametrization or its optimization?
The paper's open question 2: does UVB have a larger generalization gap than DEEN?

python -m benchmarks.cpu.answers best FOLDER                    # Markdown on stdout, and difference_over_sigma.svg into FOLDER
python -m benchmarks.cpu.answers searched FOLDER                # Markdown on stdout: what the search found
python -m benchmarks.cpu.answers trained FOLDER                 # Markdown on stdout: every training's test loss
python -m benchmarks.cpu.answers parts FOLDER [--sigma 1.0]     # Markdown on stdout, and loss_over_work.svg into FOLDER
python -m benchmarks.cpu.answers gaps FOLDER                    # Markdown on stdout, and gap_over_images.svg into FOLDER
"""

import argparse
import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from scipy.stats import t as student

from benchmarks.training import json_lines
from pipelines.cluster.cost_model import image_flops
from uvb.models.capacity import parameters
from uvb.spec import RunSpec

mpl.use("Agg")
from matplotlib import pyplot as plt

LEAST_FALL = 0.005  # a training was too short if its loss falls by a larger share over its last third


def fall_over_last_third(curve: list[float]) -> float:
    """The share by which the loss falls over the last third of a training."""
    return 1 - curve[-1] / curve[len(curve) - 1 - max(1, len(curve) // 3)]


def best(folder: Path) -> str:
    """A table of two models' losses at each noise level and pair of recipes. Draw a figure of the difference."""
    rows = json.loads((folder / "comparison.json").read_text())["compared"]
    pair = next(name for name in rows[0] if " - " in name)
    ours, theirs = pair.split(" - ")
    first = rows[0]
    # Leave out another pairing if it gives both models the recipes of the first pairing: it would repeat the same numbers.
    new = [row for row in rows if any(row[m]["choice"] != first[m]["choice"] for m in (ours, theirs))]
    rows = [row for row in rows if row["recipes"] == first["recipes"]] + new
    lines = [f"| σ | recipes | {ours} | {theirs} | {ours} − {theirs} | best affine map |", "|---:|---|---:|---:|---:|---:|"]
    figure, axes = plt.subplots(figsize=(5.4, 3.4))
    for place, recipes in enumerate(dict.fromkeys(row["recipes"] for row in rows)):
        own = [row for row in rows if row["recipes"] == recipes]
        for row in own:
            one, other = (f"{row[m]['loss']:.3f} ± {error_of_mean(row[m], row['trainings']):.3f}" for m in (ours, theirs))
            apart = interval_of(row[pair], row["trainings"])
            linear = f"{row['linear']:.3f}" if "linear" in row else ""
            lines.append(f"| {row['sigma']:g} | {recipes} | {one} | {other} | **{apart}** | {linear} |")
        places = [row["sigma"] + 0.012 * place for row in own]
        halves = [half_interval(row[pair], row["trainings"]) for row in own]
        axes.errorbar(places, [row[pair]["mean"] for row in own], halves, marker="o", capsize=3, label=recipes)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set(xlabel="σ", ylabel=f"test loss, {ours} − {theirs}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(figure, folder / "difference_over_sigma.svg")
    return "\n".join(lines)


def searched(folder: Path) -> str:
    """A table of the models, the best first, with each model's best recipe on held-out images and its test losses so far."""
    rows = json_lines(folder / "trainings.jsonl")
    held_out = sorted((row for row in rows if row["held_out"]), key=lambda row: row["loss"], reverse=True)
    lowest = {row["model"]: row for row in held_out}  # the row with the lowest loss comes last and stays
    lines = ["| model | parameters | recipe | held-out loss, one training | test losses |", "|---|---:|---|---:|---:|"]
    for name, row in sorted(lowest.items(), key=lambda item: item[1]["loss"]):
        spec = RunSpec.from_json(row["spec"])
        count, choice = parameters(spec.model, spec.data.shape, spec.widths), row["choice"]
        test = ", ".join(f"{one['loss']:.2f}" for one in rows if not one["held_out"] and one["model"] == name)
        recipe = f"{choice['optimizer']} {choice['learning_rate']:g}"
        lines.append(f"| `{name}` | {count:,} | {recipe} | {row['loss']:.2f} ± {row['stderr_over_images']:.2f} | {test} |")
    return "\n".join(lines)


def error_of_mean(found: dict[str, float], trainings: int) -> float:
    """Half of a loss's 95 % interval over trainings. With one training, the standard error over images."""
    return found["stderr_over_images"] if trainings == 1 else found["half_interval_over_trainings"]


def trained(folder: Path) -> str:
    """A table of all trainings that were measured on the test set, by σ. The model of the first training comes first.

    Each ± is one standard error over images.
    """
    rows = [row for row in json_lines(folder / "trainings.jsonl") if not row["held_out"]]
    lines = ["| σ | model | seed | recipe | test loss |", "|---:|---|---:|---|---:|"]
    for row in sorted(rows, key=lambda row: (row["sigma"], row["model"] != rows[0]["model"], row["model"], row["seed"])):
        recipe = f"{row['choice']['optimizer']} {row['choice']['learning_rate']:g}"
        loss = f"{row['loss']:.2f} ± {row['stderr_over_images']:.2f}"
        lines.append(f"| {row['sigma']:g} | `{row['model']}` | {row['seed']} | {recipe} | {loss} |")
    return "\n".join(lines)


def half_interval(apart: dict[str, float], trainings: int) -> float:
    """Half of the 95 % interval of a difference, by Student's t for the number of trainings.

    The variance of the difference is its variance over trainings plus its variance over images. With one training the interval
    is over images only.
    """
    if trainings == 1:
        return 1.96 * apart["stderr_over_images"]
    t = float(student.ppf(0.975, trainings - 1))
    return t * math.hypot(apart["half_interval_over_trainings"] / t, apart["stderr_over_images"])


def interval_of(apart: dict[str, float], trainings: int) -> str:
    return f"{apart['mean']:+.3f} ± {half_interval(apart, trainings):.3f}".replace("-", "−")


def parts(folder: Path, sigma: float) -> str:
    """A table of the models. Draw a plot of test loss against the arithmetic of one training (TFLOP)."""
    compared = json.loads((folder / "comparison.json").read_text())["compared"]
    row = next(one for one in compared if one["recipes"] == "best against best" and one["sigma"] == sigma)
    trainings = [one for one in json_lines(folder / "trainings.jsonl") if not one["held_out"] and one["sigma"] == sigma]
    models = [name for name, found in row.items() if isinstance(found, dict) and "choice" in found]
    models.sort(key=lambda name: row[name]["loss"])
    first = next(name.split(" - ")[0] for name in row if " - " in name)
    lines = [
        f"| model | parameters | recipe | test loss | {first} − this model | fall over the last third | "
        "asymmetry of its Jacobian | GFLOP per image | core hours |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
        f"| the best affine map | | in closed form | {row['linear']:.3f} | | | 0 | | |",
    ]
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for name in models:
        own = [one for one in trainings if one["model"] == name and one["choice"].items() >= row[name]["choice"].items()]
        spec = RunSpec.from_json(own[0]["spec"])
        work = image_flops(spec.model, spec.data.shape, spec.widths, spec.objective)
        apart = row.get(f"{first} - {name}")
        choice = row[name]["choice"]
        recipe = ", ".join([f"{choice['optimizer']} {choice['learning_rate']:g}",
                            *(f"{k} {v}" for k, v in choice.items() if k not in ("optimizer", "learning_rate"))])  # fmt: skip
        difference = interval_of(apart, row["trainings"]) if apart else ""
        fall = statistics.mean(fall_over_last_third(one["curve"]) for one in own)
        asymmetry = statistics.mean(one["asymmetry"] for one in own)
        hours = statistics.mean(one["cpu_seconds"] for one in own) / 3600
        lines.append(
            f"| `{name}` | {parameters(spec.model, spec.data.shape, spec.widths):,} | {recipe} | "
            f"{row[name]['loss']:.3f} ± {error_of_mean(row[name], row['trainings']):.3f} | {difference} | "
            f"{100 * fall:.1f} %{' (still falling)' if fall > LEAST_FALL else ''} | "
            f"{asymmetry:.2g} | {work / 1e9:.4f} | {hours:.2f} |"
        )
        curves = [one["curve"] for one in own]
        means = [statistics.mean(values) for values in zip(*curves, strict=True)]
        tflop = [(epoch + 1) * spec.data.train_images * work / 1e12 for epoch in range(len(means))]
        axes.plot(tflop, means, marker="o", markersize=2.5, linewidth=1.2, label=name)
    axes.set(xscale="log", xlabel="arithmetic of one training, TFLOP", ylabel="test loss, 1,024 fixed images")
    lowest = min(row[name]["loss"] for name in models)
    axes.set_ylim(lowest * 0.97, lowest * 1.6)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    save(figure, folder / "loss_over_work.svg")
    return "\n".join(lines)


def gaps(folder: Path) -> str:
    """A table of gaps. Draw a figure of the gap over the number of training images."""
    rows = json_lines(folder / "gaps.jsonl")
    lengths, sigmas = sorted({row["steps"] for row in rows}), sorted({row["sigma"] for row in rows})
    lines = ["| σ | steps | n | model | gap | loss outside |", "|---:|---:|---:|---|---:|---:|"]
    figure, plots = plt.subplots(1, len(sigmas), figsize=(3.4 * len(sigmas), 3.4), squeeze=False)
    for sigma, axes in zip(sigmas, plots[0], strict=True):
        places = itertools.count()
        for steps in lengths:
            longest = steps == max(lengths)
            for place, model in enumerate(dict.fromkeys(row["model"] for row in rows)):
                colour = f"C{3 * place % 10}"  # Matplotlib has ten colours; models that follow each other get distant ones
                asked = {"model": model, "sigma": sigma, "steps": steps}
                own = sorted((row for row in rows if row.items() >= asked.items()), key=lambda row: row["n"])
                errors = [error_of(row) for row in own]
                for row, error in zip(own, errors, strict=True):
                    measured = f"{row['gap']:.4f} ± {error:.4f} | {row['loss_outside']:.3f}"
                    lines.append(f"| {sigma:g} | {steps:,} | {row['n']:,} | {model} | {measured} |")
                beside = 1.12 ** next(places)  # moves the points of one n apart
                axes.errorbar(
                    [row["n"] * beside for row in own], [row["gap"] for row in own], errors, color=colour, capsize=2,
                    markersize=4, marker="s" if longest else "o", markerfacecolor="white" if longest else colour,
                    linestyle="-" if longest else "--", label=f"{model}, {steps:,} steps",
                )  # fmt: skip
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set(xscale="log", xlabel="training images, n", title=f"σ = {sigma:g}")
        axes.grid(alpha=0.3)
    plots[0][0].set(ylabel="loss outside − loss inside, the same images")
    plots[0][-1].legend(fontsize=7)
    save(figure, folder / "gap_over_images.svg")
    return "\n".join(lines)


def error_of(row: dict[str, Any]) -> float:
    """The larger of two errors: the standard error over images, and half the difference between the gaps of the two halves."""
    one, other = row["of_each_swap"]
    return max(float(row["stderr_over_images"]), abs(one - other) / 2)


def save(figure: Any, path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "uvb"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("best", "searched", "trained", "parts", "gaps"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sigma", type=float, default=1.0)
    asked = parser.parse_args()
    answers = {"best": best, "searched": searched, "trained": trained, "gaps": gaps}
    print(parts(asked.folder, asked.sigma) if asked.what == "parts" else answers[asked.what](asked.folder))


if __name__ == "__main__":
    main()
