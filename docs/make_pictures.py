"""Draw the pictures of README and docs: `python docs/make_pictures.py --help`.

They come from the shipped models, MNIST's test images and committed results, so anybody can draw them again.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image

import uvb
from pipelines.reporting.pictures import grid, save_animation, to_pil
from uvb.accelerate.frozen import Frozen
from uvb.data import load_dataset
from uvb.noise import normal
from uvb.plan import resolve_plan
from uvb.sampling.chains import begin
from uvb.sampling.walk_jump import walk_at, walk_jump

PICTURES = Path(__file__).resolve().parent / "pictures"
COLUMNS = 10  # images in the strip, one of each class


@dataclass(frozen=True)
class Pictures:
    """Draw the strip (clean, noisy, denoised by UVB and by DEEN) and the walk. Take screenshots of pages."""

    data_dir: Path = Path("data")
    """The folder of MNIST. If MNIST is not there, it is downloaded to this folder."""
    pages: tuple[str, ...] = ()
    """Also take screenshots: NAME=ADDRESS, e.g. report=outputs/digits/report.html. Chromium must be installed."""


def strip(data_dir: Path) -> None:
    """Draw strip.png. It has one test image x of each class, y at σ = 1, and x̂ by each shipped MNIST model, UVB first."""
    images = load_dataset("mnist", data_dir)
    assert images.test_labels is not None
    first = [int((images.test_labels == digit).nonzero()[0]) for digit in range(COLUMNS)]
    x = images.to_unit(images.test[first])  # (10, 1, 28, 28)
    y = x + normal(tuple(x.shape), 0, "strip")
    rows = [x, y]
    for name in sorted((name for name in uvb.pretrained_names() if name.startswith("mnist-")), reverse=True):
        model = uvb.pretrained(name)
        rows.append(model(y, normal((len(y), model.noise_dim), 0, "strip latent")))
    to_pil(grid(torch.cat(rows), COLUMNS), 3).save(PICTURES / "strip.png", optimize=True)


def walk(jumps: int = 120) -> None:
    """Draw walk.gif: the jumps of eight chains that start from noise and never restart."""
    plan = resolve_plan()
    energy = uvb.pretrained("mnist-uvb")
    chains = begin(8, energy.spec.data.shape, seed=0)
    found = [j.x_hat for _, j in walk_jump(Frozen(energy, plan), chains, walk_at(energy.spec.sigma, jumps=jumps), seed=0)]
    frames = torch.stack([grid(each.float(), 8) for each in found])  # (jumps, 1, 28, 8 · 29 - 1)
    save_animation(frames, PICTURES / "walk.gif", 3)


def screenshot(name: str, address: str, width: int = 1280, height: int = 1600) -> None:
    """Save a browser's view of the page at `address` as NAME.png."""
    url = address if "://" in address else Path(address).resolve().as_uri()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=40000"]
    where = [f"--window-size={width},{height}", f"--screenshot={PICTURES / name}.png", url]
    subprocess.run(["chromium", *flags, *where], check=True, capture_output=True, timeout=120)
    with Image.open(PICTURES / f"{name}.png") as picture:
        picture.convert("P", palette=Image.Palette.ADAPTIVE).save(PICTURES / f"{name}.png", optimize=True)


def main(config: Pictures) -> None:
    """Draw all pictures."""
    PICTURES.mkdir(exist_ok=True)
    strip(config.data_dir)
    walk()
    for page in config.pages:
        screenshot(*page.split("=", 1))


if __name__ == "__main__":
    main(tyro.cli(Pictures))
