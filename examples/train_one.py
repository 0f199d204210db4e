"""Train one model and measure it in this process: no Ray, no MLflow.

    python examples/train_one.py --model uvb --sigma 0.5 --epochs 2 --out outputs/one

You may stop the script. The same command continues from the last checkpoint. The folder is a study, so that
`pipelines/report.py` can draw its report.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from pipelines.executor.measuring import Settings, run_here, tasks_for, unfinished
from pipelines.executor.training import Training, lay_out
from pipelines.files.store import Store
from uvb.data import load_dataset
from uvb.machine import usable_cpus
from uvb.measure.losses import EvalConfig
from uvb.models import get_model
from uvb.models.capacity import default_widths
from uvb.plan import Plan, resolve_plan
from uvb.spec import RECIPES, DataRef, RunSpec
from uvb.training.loop import Progress


def show(progress: Progress) -> bool:
    """Print each epoch. Return False, so that the training never pauses."""
    if progress.metrics:
        print(f"epoch {progress.epoch + 1}: train {progress.loss:.3f}, test {progress.metrics.test_loss:.3f}", flush=True)
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--model", default="uvb")
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=RECIPES["fast"].epochs)
    parser.add_argument("--experiments", nargs="+", default=["losses"])
    parser.add_argument("--out", type=Path, default=Path("outputs/one"))
    args = parser.parse_args()

    images = load_dataset(args.dataset)
    data = DataRef(images.name, images.checksum, images.shape, len(images.train))
    recipe = RECIPES["fast"].changed(epochs=args.epochs)
    widths, objective = default_widths(args.model, images.shape), get_model(args.model).objective
    spec = RunSpec(data, args.model, widths, args.sigma, objective, recipe)
    plan, store = resolve_plan(), Store(args.out)
    lay_out(store, images, {spec: plan})

    ended = Training(spec, plan, store, checkpoint_seconds=30.0, watch=show).run()
    if ended["outcome"] != "done":
        sys.exit(store.read_json(f"models/{spec.spec_id}/failed.json")["error"])
    settings = Settings(EvalConfig(), Plan(device=plan.device, threads=usable_cpus()))
    for task, error in run_here(unfinished(tasks_for([spec], args.experiments), store, settings), store, settings):
        print(f"{task.label}: {error or 'done'}", flush=True)
    for row in store.read_json(f"tasks/losses/{spec.spec_id}/result.json")["rows"]:
        print(json.dumps(row))
    print(args.out / "models" / spec.spec_id / "model")


if __name__ == "__main__":
    main()
