"""Sample from a trained model by walk-jump: `python pipelines/sample.py --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pipelines.bounds import Bounded
from pipelines.cli import command
from uvb.errors import UserError


@dataclass(frozen=True)
class Sample(Bounded):
    """Sample from a trained energy by walk-jump (Sec. 3.4). Write a grid of jumps, a GIF of one walk, and the arrays.

    From a study's folder:    python pipelines/sample.py outputs/digits/models/<spec_id>/model

    From MLflow's registry:   python pipelines/sample.py models:/digits-uvb@best --chains 100 --jumps 50
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model: pretrained:mnist-uvb, a folder, runs:/<run id>/model, models:/<name>@best, or models:/<name>/<version>."""
    chains: int = 16
    """How many chains walk at the same time. Each starts from uniform noise of its own. There is no warm-up and no restart."""
    delta: float = 0.0
    """Step size δ. 0: use the sampler's default."""
    steps_between_jumps: int = 10
    """Steps before each jump."""
    jumps: int = 100
    """Jumps of each chain."""
    second_jump: bool = False
    """Apply x̂ twice at each jump: x̂(x̂(y)) (Sec. 3.3.1)."""
    sampler: Annotated[str, tyro.conf.arg(metavar="SAMPLER")] = "langevin"
    """langevin: Eq. 19. baoab: underdamped, with friction 1/σ. mala, baoab_metropolis and hmc are exact: they accept or reject
    each step. With --delta 0, δ is 0.2 σ for langevin, σ/2 for baoab, and 0.4 σ for the exact ones."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device to walk on. auto: a GPU if there is one."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the networks' arithmetic. bf16 is up to twice as fast if the hardware supports it."""
    seed: int = 0
    """Seed of the starts and of every step. The same seed gives the same samples on the same kind of device."""
    out: Path = Path("samples")
    """Folder for walk.png and walk.gif (the first chain), chains.png (the last jump of all chains) and samples.npz (the array
    jumps, of shape (jumps, chains, C, H, W)). Older files are replaced. Only images of 1 or 3 channels are drawn."""
    tracking_uri: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None
    """MLflow's address for runs:/ and models:/. Default: MLFLOW_TRACKING_URI, or mlflow.db in the current folder."""


def sample(config: Sample) -> None:
    """Sample, and print the paths of the files."""
    print(f"sampling from {config.model}")
    from pipelines.tracking.address import asked_model

    reachable = asked_model(config.model, config.tracking_uri)  # asks MLflow whether it answers, during the next imports
    import numpy as np
    import torch

    from pipelines.executor.walking import require_memory, walked
    from pipelines.reporting.pictures import CHANNELS_OF_PICTURES, grid, output_folder, put, save_animation, to_pil, zoom_for
    from pipelines.tracking import model_registry as models
    from uvb.accelerate.cpu import keep_large_buffers
    from uvb.models.base import Energy
    from uvb.plan import resolve_plan
    from uvb.sampling import get_sampler
    from uvb.sampling.walk_jump import walk_at

    get_sampler(config.sampler)  # raises before the model is loaded
    plan = resolve_plan(device=config.device, precision=config.precision)
    torch.set_num_threads(plan.threads)
    keep_large_buffers()
    reachable()
    energy = models.load(config.model, config.tracking_uri, plan.device).float()  # the model may have been trained in float64
    if not isinstance(energy, Energy):
        raise UserError(f"{config.model} is an estimator without an energy, and walk-jump needs one; choose uvb or deen")
    shape = energy.spec.data.shape
    step_size = {} if config.delta == 0 else {"delta": config.delta}  # without it, `walk_at` takes the sampler's default
    walk = walk_at(
        energy.spec.sigma, steps_between_jumps=config.steps_between_jumps, jumps=config.jumps,
        second_jump=config.second_jump, sampler=config.sampler, **step_size,
    )  # fmt: skip
    require_memory(config.chains, walk, shape)
    output_folder(config.out)  # may raise, so call it before the walk
    frames, state = walked(energy, walk, config.chains, config.seed, plan)
    jumps, stopped_at = frames.numpy(), state.stopped_at.cpu().numpy()
    # before the pictures, since drawing them may fail
    put(config.out / "samples.npz", lambda path: np.savez_compressed(path, jumps=jumps, stopped_at=stopped_at))
    if shape[0] not in CHANNELS_OF_PICTURES:
        print(f"no pictures are drawn: these images have {shape[0]} channels, and only images of 1 or 3 can be drawn")
        return
    zoom = zoom_for(shape)
    put(config.out / "walk.png", to_pil(grid(frames[:, 0], columns=10), zoom).save)
    put(config.out / "chains.png", to_pil(grid(frames[-1], columns=min(10, config.chains)), zoom).save)
    put(config.out / "walk.gif", lambda path: save_animation(frames[:, 0], path, 2 * zoom))


def main() -> None:
    """Run what the command line asks for."""
    command(Sample, sample)


if __name__ == "__main__":
    main()
