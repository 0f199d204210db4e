"""Denoise your own images with a trained model: `python pipelines/denoise.py --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pipelines.bounds import Bounded
from pipelines.cli import command
from uvb.errors import UserError


@dataclass(frozen=True)
class Denoise(Bounded):
    """Denoise your own images with the estimator x̂(y) of a trained model (Eq. 3).

    A noisy picture:                       python pipelines/denoise.py outputs/digits/models/<spec_id>/model mine.png

    Clean pictures, noise added first:     python pipelines/denoise.py models:/digits-uvb@best my_folder --add-noise
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model: pretrained:mnist-uvb, a folder, runs:/<run id>/model, models:/<name>@best, or models:/<name>/<version>."""
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """A picture, a folder of pictures (resized to the model's size), or an .npy or .npz array (N, C, H, W)."""
    add_noise: bool = False
    """First add the model's noise, sigma times a standard normal, to the pictures. Use this if they are clean."""
    jumps: int = 1
    """How many times to apply x̂. 1 is the Bayes estimate; 2 is x̂(x̂(y)) of Sec. 3.3.1."""
    background: Literal["none", "black", "white"] = "none"
    """The background to put behind transparent pictures. none: refuse them."""
    seed: int = 0
    """Seed of the added noise and of the model's latent draws."""
    out: Path = Path("denoised")
    """Folder for a PNG of each denoised image, in the model's size, and for overview.png (rows: noisy and denoised; with
    --add-noise also clean). Images that do not have 1 or 3 channels go to denoised.npz instead, as the array images of shape
    (N, C, H, W)."""
    tracking_uri: Annotated[str | None, tyro.conf.arg(metavar="URI")] = None
    """MLflow's address for runs:/ and models:/. Default: MLFLOW_TRACKING_URI, or mlflow.db in the current folder."""


def denoise(config: Denoise) -> None:
    """Denoise, and print the paths of the files."""
    print(f"denoising {config.images} with {config.model}")
    from pipelines.tracking.address import asked_model

    reachable = asked_model(config.model, config.tracking_uri)  # begin to ask MLflow: the imports below take seconds
    import numpy as np
    import torch

    from pipelines.reporting.pictures import CHANNELS_OF_PICTURES, output_folder, put, put_overview, to_pil
    from pipelines.tracking import model_registry as models
    from uvb.accelerate.cpu import keep_large_buffers
    from uvb.data.readers.decode import Decoding
    from uvb.data.readers.pictures import read_pictures
    from uvb.models.base import draw_latent_noise
    from uvb.noise import generator, normal

    keep_large_buffers()
    reachable()
    model = models.load(config.model, config.tracking_uri).float()  # the model may have been trained in float64
    shape = model.spec.data.shape
    decoding = Decoding(background="" if config.background == "none" else config.background)
    y, names = read_pictures(config.images, shape, float(model.sigma), decoding)  # (N, C, H, W)
    drawn = shape[0] in CHANNELS_OF_PICTURES
    written = [f"{name}.png" for name in (*names, "overview")] if drawn else ["denoised.npz"]
    if repeated := sorted({name for name in written if written.count(name) > 1}):
        raise UserError(f"{config.images}: several files would be written as {repeated[0]}; rename one of the pictures")
    output_folder(config.out, written, config.images)
    clean = y
    if config.add_noise:
        y = y + model.sigma.to(y) * normal(tuple(y.shape), config.seed, "denoise")
    x_hat = y
    with torch.no_grad():
        for k in range(config.jumps):
            x_hat = model(x_hat, draw_latent_noise(model, len(y), generator(config.seed, "denoise latent", k), y))
    if not drawn:
        put(config.out / "denoised.npz", lambda path: np.savez_compressed(path, images=x_hat.numpy()))
        print(f"no pictures are drawn: these images have {shape[0]} channels, and only images of 1 or 3 can be drawn")
        return
    for name, image in zip(names, x_hat, strict=True):
        put(config.out / f"{name}.png", to_pil(image).save)
    rows = {"clean": clean} if config.add_noise else {}
    put_overview(rows | {"noisy": y, "denoised": x_hat}, config.out / "overview.png")


def main() -> None:
    """Run what the command line asks for."""
    command(Denoise, denoise)


if __name__ == "__main__":
    main()
