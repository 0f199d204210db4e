"""Inpaint, deblur or enlarge pictures by posterior sampling: `python pipelines/restore.py --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pipelines.bounds import Bounded
from pipelines.cli import command
from uvb.errors import UserError


@dataclass(frozen=True)
class Restore(Bounded):
    """Restore pictures by walk-jump sampling. The energy is the model's f(y) plus the energy of a measurement.

    Each clean picture x is first measured: v = A y + τ noise, where y = x + σ noise. The chains see only v.

    Fill in the right half:      python pipelines/restore.py outputs/digits/models/<spec_id>/model my_folder

    Double the resolution:       python pipelines/restore.py pretrained:mnist-uvb my_folder --task enlarge
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model: pretrained:mnist-uvb, a folder, runs:/<run id>/model, models:/<name>@best, or models:/<name>/<version>."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """A picture, a folder of pictures (resized to the model's size), or an .npy or .npz array (N, C, H, W)."""
    task: Literal["inpaint", "deblur", "enlarge"] = "inpaint"
    """What A does. inpaint: A drops the right half. deblur: A replaces each pixel by the mean of 3x3 pixels. enlarge: A
    replaces each square of 2x2 pixels by its mean."""
    tau: float = 0.0
    """τ, the standard deviation of the measurement's noise, where pixels are in [0, 1]. 0: use σ/2."""
    chains: int = 8
    """Chains for each picture. The spread of the chains' jumps shows how uncertain each pixel is."""
    draws: int = 30
    """Jumps to keep from each chain."""
    warm_up: int = 15
    """Trajectories of each chain before its first kept jump."""
    seed: int = 0
    """Seed of every random draw."""
    out: Path = Path("restored")
    """Folder for overview.png (rows: clean, measured, mean of the jumps, spread of the jumps) and restored.npz (arrays: mean,
    spread, measured)."""
    tracking_uri: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None
    """MLflow's address for runs:/ and models:/. Default: MLFLOW_TRACKING_URI, or mlflow.db in the current folder."""


def restore(config: Restore) -> None:
    """Restore, and print the paths of the files."""
    print(f"restoring {config.images} with {config.model}")
    from pipelines.tracking.address import asked_model

    reachable = asked_model(config.model, config.tracking_uri)  # asks MLflow, if the model is there, while the next imports run
    import numpy as np

    from pipelines.reporting.pictures import output_folder, put, put_overview
    from pipelines.tracking import model_registry as models
    from uvb.accelerate.cpu import keep_large_buffers
    from uvb.data.readers.decode import Decoding
    from uvb.data.readers.pictures import read_pictures
    from uvb.experiments.restoration import picture
    from uvb.measure.mixing import worst_split_r_hat
    from uvb.models.base import Energy
    from uvb.noise import normal
    from uvb.sampling.composed import measurement, restore

    keep_large_buffers()
    reachable()
    energy = models.load(config.model, config.tracking_uri).float()  # the model may have been trained in float64
    if not isinstance(energy, Energy):
        raise UserError(f"{config.model} is an estimator without an energy; choose uvb or deen")
    sigma, shape = float(energy.sigma), energy.spec.data.shape
    x, _ = read_pictures(config.images, shape, sigma, Decoding())  # (N, C, H, W)
    measured, tau = measurement(config.task, shape, x), config.tau or 0.5 * sigma
    output_folder(config.out, ("overview.png", "restored.npz"), config.images)
    clear = measured.apply(x + sigma * normal(tuple(x.shape), config.seed, "restore").to(x))
    observed = clear + tau * normal(tuple(clear.shape), config.seed, "restore measurement").to(x)
    found = restore(energy, measured, observed, tau, chains=config.chains, draws=config.draws, warm_up=config.warm_up,
                    seed=config.seed)  # fmt: skip
    if found.stopped:
        print(f"{found.stopped} of {len(x) * config.chains} chains diverged, so do not rely on these pictures")
    if found.acceptance == 0:
        raise UserError("no proposal was accepted, so the chains never moved; give a larger --tau")
    verdict = "too few draws to tell whether the chains agree; give --draws 8 or more"
    if config.draws >= 8:
        r_hat = worst_split_r_hat(found.y.flatten(3).mean(3))
        agree = "the chains agree" if r_hat < 1.05 else "the chains have not mixed: raise --warm-up and --draws"
        verdict = f"split-R̂ {r_hat:.2f}, {agree}"
    print(f"{found.acceptance:.0%} of the proposals accepted; {verdict}")
    jumps = found.x_hat.transpose(0, 1).flatten(1, 2)  # (N, draws of all chains, C, H, W)
    mean, spread = found.x_hat.mean((0, 2)), jumps.std(1)
    rows = {"clean": x, "measured": picture(measured, observed, x), "mean of the jumps": mean}
    put_overview(rows | {"spread of the jumps": spread / spread.max().clamp(min=1e-12)}, config.out / "overview.png")
    put(
        config.out / "restored.npz",
        lambda path: np.savez_compressed(path, mean=mean.numpy(), spread=spread.numpy(), measured=observed.numpy()),
    )


def main() -> None:
    """Run what the command line asks for."""
    command(Restore, restore)


if __name__ == "__main__":
    main()
