"""Draw the test losses of several trainings over images seen and over arithmetic: curves.py OUT.svg RESULT.json...

Each RESULT.json is of `speedrun.py`. The losses are of the averaged weights after each epoch, on 1,024 fixed test images with
fixed noise; they are harder than the whole test set, so compare within the figure only.
"""

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import torch
from torch.utils.flop_counter import FlopCounterMode

from uvb.models import get_model
from uvb.models.base import Energy
from uvb.spec import RunSpec

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = {"uvb": "#1f77b4", "deen": "#d62728"}
EXACT_STEP = 6  # forward passes: energy, its gradient, and the backward pass through both


def step_flops(spec: RunSpec) -> float:
    """Arithmetic of one image in one step, the optimizer's left out."""
    model = get_model(spec.model).build(spec.data.shape, spec.widths, spec.activation, spec.sigma)
    assert isinstance(model, Energy)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.energy(torch.zeros(1, *spec.data.shape), torch.zeros(1, model.noise_dim))
    return float(EXACT_STEP * counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    asked = parser.parse_args()
    mpl.rcParams["svg.hashsalt"] = "uvb"
    figure, (over_images, over_flops) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for path in asked.results:
        result = json.loads(path.read_text())
        spec = RunSpec.from_json(result["spec"])
        images = [(row["epoch"] + 1) * spec.data.train_images for row in result["curves"]]
        losses = [row["test_loss"] for row in result["curves"]]
        name = f"{spec.model.upper()}, {result['parameters'] / 1e6:.1f} M parameters, {spec.recipe.epochs} epochs"
        style = {"color": COLOURS.get(spec.model), "marker": "o", "markersize": 3, "label": name}
        over_images.plot([n / 1e3 for n in images], losses, **style)
        over_flops.plot([n * step_flops(spec) / 1e15 for n in images], losses, **style)
    over_images.set(xlabel="images seen, thousands", ylabel="test loss, 1,024 fixed images", xscale="log", yscale="log")
    over_flops.set(xlabel="arithmetic of the steps, PFLOP", xscale="log")
    for axes in (over_images, over_flops):
        axes.grid(alpha=0.3, which="both")
    over_images.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(asked.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
