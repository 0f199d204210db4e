"""Run experiments on one trained model, without a study. Write each experiment's numbers to a JSON file.

    python examples/measure_model.py pretrained:mnist-uvb --experiments detection likelihood --out outputs/mnist-uvb

The script loads the data set that the model was trained on.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from pipelines.tracking import model_registry
from uvb.data import load_dataset
from uvb.errors import UserError
from uvb.experiments import Context, get_experiment
from uvb.machine import usable_cpus
from uvb.measure.losses import EvalConfig
from uvb.plan import Plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model as for `uvb sample`: pretrained:mnist-uvb, a folder, or a name in MLflow")
    parser.add_argument("--experiments", nargs="+", default=["detection"])
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full chains and images, in (0, 1]")
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    model = model_registry.load(args.model, None, "cpu").float()
    images = load_dataset(model.spec.data.name, args.data_dir)
    if images.checksum != model.spec.data.checksum:
        raise UserError(f"{args.model} was not trained on {images.name} in {args.data_dir}; choose another --data-dir")
    context = Context(images, Plan(threads=args.threads), EvalConfig(), scale=args.scale, data_dir=args.data_dir)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.experiments:
        result = get_experiment(name).run(model, model.spec, context)
        path = args.out / f"{name}.json"
        path.write_text(json.dumps(result.scalars, indent=1))
        print(path, flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
