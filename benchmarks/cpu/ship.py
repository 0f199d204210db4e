"""Make a small model folder from a training of `speedrun.py`. Weights become bfloat16, and their loss is measured again.

python -m benchmarks.cpu.ship TRAINING OUT --title "UVB on MNIST" --command "python ..." --commit HASH
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.measure import machine
from benchmarks.training import own_loss
from uvb.data import load_dataset
from uvb.machine import usable_cpus
from uvb.measure.losses import EvalConfig
from uvb.models.io import load, load_spec
from uvb.plan import Plan
from uvb.words import counted

OPTIMIZERS = {
    "adam": "Adam",
    "muon": "Muon for matrices, Adam for the rest",
    "muon_conv": "Muon for matrices and convolutions, Adam for the rest",
}


def rounded(training: Path, out: Path) -> None:
    """Copy the model folder and round its weights to bfloat16. Buffers, such as the noise level, stay exact."""
    out.mkdir(parents=True, exist_ok=True)
    parameters = {name for name, _ in load(training / "model").named_parameters()}
    weights = load_file(training / "model" / "model.safetensors")
    kept = {k: v.to(torch.bfloat16) if k in parameters else v for k, v in weights.items()}
    save_file(kept, out / "model.safetensors")
    for name in ("spec.json", "card.json"):
        (out / name).write_text((training / "model" / name).read_text())


def measured(out: Path, data_dir: Path, draws: int) -> dict[str, Any]:
    """The test loss of the shipped weights, computed in float32."""
    spec = load_spec(out)
    images = load_dataset(spec.data.name, data_dir=data_dir)
    return own_loss(load(out), spec, images, "test", EvalConfig(draws=draws), Plan(threads=usable_cpus()))


def card(result: dict[str, Any], shipped: dict[str, Any], asked: argparse.Namespace, size: int) -> str:
    spec, recipe, data = result["spec"], result["spec"]["recipe"], result["spec"]["data"]
    test, train = result["losses"]["test"], result["losses"]["train"]
    optimizer = OPTIMIZERS[recipe.get("optimizer", "adam")]
    beside = ", while the machine also did other work" if result["beside_other_work"] else ""
    rows = {
        "data": f"{data['name']}, {data['train_images']:,} training images, pixels in [0, 1] (checksum `{data['checksum']}`)",
        "model": f"{spec['model']}, {result['parameters']:,} parameters, noise level σ = {spec['sigma']:g}",
        "recipe": f"{optimizer}; peak rate {recipe['learning_rate']:g}, {recipe['schedule']}, batch {recipe['batch_size']}, "
        f"{counted(recipe['epochs'], 'epoch')}, gradient clipped at {recipe['clip']:g}, average of weights {recipe['ema']:g}",
        "test loss as shipped, weights in bfloat16": f"{plus_minus(shipped)} ({shipped['images']:,} images, "
        f"{counted(shipped['draws'], 'noise draw')}, estimator `{shipped['estimator']}`)",
        "before rounding": f"test {plus_minus(test)}, train {plus_minus(train)} ({train['images']:,} images)",
        "training": f"{result['seconds']:,.0f} s, {result['machine']}{beside}, "
        f"threads: {result['plan']['threads']}, commit `{asked.commit}`",
        "size": f"{size / 1e6:.1f} MB",
    }
    table = "\n".join(f"| {name} | {text} |" for name, text in rows.items())
    return f"""# {asked.title}

This is one training (seed {spec["seed"]}), so there is no interval over trainings.

| | |
|---|---|
{table}

Losses are squared errors, summed over pixels; ± is the standard error over images. The model was trained by this command:

```
{asked.command}
```

`python -m benchmarks.cpu.ship` rounded the weights. `uvb.load(FOLDER)` loads the model.
"""


def plus_minus(loss: dict[str, Any]) -> str:
    return f"{loss['loss']:.3f} ± {loss['stderr']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("training", type=Path)
    add("out", type=Path)
    add("--title", required=True)
    add("--command", required=True)
    add("--commit", required=True)
    add("--data-dir", type=Path, default=Path("data"))
    add("--draws", type=int, default=4)
    asked = parser.parse_args()
    result = json.loads((asked.training / "result.json").read_text())
    rounded(asked.training, asked.out)
    shipped = measured(asked.out, asked.data_dir, asked.draws)
    size = (asked.out / "model.safetensors").stat().st_size
    (asked.out / "README.md").write_text(card(result, shipped, asked, size))
    train = {k: result["losses"]["train"][k] for k in ("loss", "stderr", "images", "draws")}
    told = json.loads((asked.out / "card.json").read_text()) | {
        "losses": [{"split": "test", **shipped}, {"split": "train", "before_rounding": True, **train}],
        "recipe": result["spec"]["recipe"], "epochs": result["spec"]["recipe"]["epochs"], "seconds": result["seconds"],
        "machine": result["machine"], "measured_on": machine(), "curves": result["curves"], "commit": asked.commit,
        "command": asked.command,
    }  # fmt: skip
    (asked.out / "card.json").write_text(json.dumps(told, indent=1))
    print((asked.out / "README.md").read_text())


if __name__ == "__main__":
    main()
