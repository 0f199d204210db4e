"""The energy f as a detector of unusual images: is f lower on test images than on images of other kinds?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from uvb.data import ImageSet, load_dataset
from uvb.errors import UserError
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.detection import auroc
from uvb.models.base import Energy, Estimator
from uvb.noise import generator
from uvb.sampling.chains import held_noise
from uvb.spec import RunSpec

IMAGES, BATCH = 1000, 250
OTHER_DATA = ("digits", "mnist")  # if the model was trained on one of these, resized images of the other form a set


@register_experiment("detection", needs="energy", where="largest",
                     gradients=lambda spec, context: 6 * context.estimates(limit=context.shortened(IMAGES, 50)))  # fmt: skip
@torch.no_grad()
def detection(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{set, input, energy, auroc, stderr}]. `auroc` says how well f separates test images from another set.

    - `set`: test images that were changed (transposed, inverted, pixels shuffled), synthetic images (constants, uniform noise),
      or resized images of another data set.
    - `input`: "noisy" for f(y) with y = x + σ noise, on which the energy was trained, or "clean" for f(x).
    - `energy`: "model", or "exact" for the exact energy of the training set.

    `absent` names the data sets that this machine does not have. All images get the same ε.
    """
    assert isinstance(model, Energy)
    images, plan = context.images, context.plan
    x = images.to_unit(context.test_images(context.shortened(IMAGES, least=50)), plan.dtype)
    sets, absent = other_sets(x, images, context.seed, context.data_dir)
    exact = context.exact_energy(spec)
    scores: dict[tuple[str, str, str], Tensor] = {}
    for name, clean in {"test": x, **sets}.items():
        for kind, y in (("noisy", clean + spec.sigma * context.normal(clean, "detection", name)), ("clean", clean)):
            for of, energy in (("model", model), ("exact", exact)):
                scores[name, kind, of] = _energies(energy, y.to(plan.device), context)
    bad = sorted({name for (name, _, of), values in scores.items() if of == "model" and not bool(values.isfinite().all())})
    message = f"the energy has no finite value on images of: {', '.join(bad)}" if bad else ""
    rows: list[dict[str, object]] = []
    for (name, kind, of), outside in scores.items():
        undefined = of == "model" and (name in bad or "test" in bad)
        if name != "test" and not undefined:
            found = auroc(scores["test", kind, of], outside)
            rows.append({"set": name, "input": kind, "energy": of, "auroc": found.value, "stderr": found.stderr})
    return Result({"sigma": spec.sigma, "images": len(x), "rows": rows, "absent": absent, "message": message})


def other_sets(x: Tensor, images: ImageSet, seed: int, data_dir: str) -> tuple[dict[str, Tensor], list[str]]:
    """Sets of other images, each (n, C, H, W) in [0, 1] like `x`, and the names of data sets that this machine lacks."""
    g, (n, channels, height, width) = generator(seed, "other sets"), x.shape
    order = torch.rand(n, 1, height * width, generator=g).argsort(2)
    found = {
        "inverted": 1 - x,
        "pixels shuffled": x.flatten(2).gather(2, order.expand(-1, channels, -1)).reshape(x.shape),
        "constants": torch.rand(n, channels, 1, 1, generator=g).to(x).expand_as(x),
        "uniform noise": torch.rand(x.shape, generator=g).to(x),
    }
    if height == width:
        found["transposed"] = x.transpose(2, 3)
    absent = []
    others = [name for name in OTHER_DATA if name != images.name] if images.name in OTHER_DATA else []
    for name in others:
        try:
            other = load_dataset(name, data_dir, download=False)
        except UserError:
            absent.append(name)
            continue
        some = other.to_unit(other.test[torch.randperm(len(other.test), generator=g)[:n]], torch.float32)
        resized = F.interpolate(some, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
        found[f"{name}, resized"] = resized.to(x)
    return found, absent


def _energies(energy: Energy, y: Tensor, context: Context) -> Tensor:
    """f(y), (n,) float64 on the CPU, with one ε for all images."""
    parts = [energy.energy(part, held_noise(energy, len(part), context.seed, part)) for part in y.split(BATCH)]
    return torch.cat(parts).double().cpu()
