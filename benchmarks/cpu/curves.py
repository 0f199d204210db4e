"""Draw the test losses of several trainings over the images seen and over the FLOPs: curves.py OUT.svg RESULT.json...

`speedrun.py` writes each RESULT.json. After each epoch it measures the averaged weights on 1,024 fixed test images with fixed
noise. These images are harder than the mean of the test set, so compare losses only within the figure.
"""

import argparse
import json
from pathlib import Path

from matplotlib import pyplot as plt

from benchmarks.cpu.answers import save
from pipelines.cluster.cost_model import image_flops
from uvb.spec import RunSpec

COLOURS = {"uvb": "#1f77b4", "deen": "#d62728"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    asked = parser.parse_args()
    figure, (over_images, over_flops) = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for path in asked.results:
        result = json.loads(path.read_text())
        spec = RunSpec.from_json(result["spec"])
        losses = [row["test_loss"] for row in result["curves"]]
        images = [epoch * spec.data.train_images for epoch in range(1, len(losses) + 1)]
        flops = image_flops(spec.model, spec.data.shape, spec.widths, spec.objective)
        name = f"{spec.model.upper()}, {result['parameters'] / 1e6:.1f} M parameters, {spec.recipe.epochs} epochs"
        style = {"color": COLOURS.get(spec.model), "marker": "o", "markersize": 3, "label": name}
        over_images.plot([n / 1e3 for n in images], losses, **style)
        over_flops.plot([n * flops / 1e15 for n in images], losses, **style)
    over_images.set(xlabel="images seen, thousands", ylabel="test loss, 1,024 fixed images", xscale="log", yscale="log")
    over_flops.set(xlabel="arithmetic of the steps, PFLOP", xscale="log")
    for axes in (over_images, over_flops):
        axes.grid(alpha=0.3, which="both")
    over_images.legend(fontsize=8)
    save(figure, asked.out)


if __name__ == "__main__":
    main()
