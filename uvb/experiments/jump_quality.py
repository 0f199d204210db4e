"""The image quality of jumps, compared with the quality of real test images and of denoised test images."""

from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments._labels import labeller
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.experiments.walk_jump import trouble
from uvb.measure.quality import MEASURES, Quality, features
from uvb.models.base import Energy, Estimator
from uvb.noise import generator
from uvb.sampling.walk_jump import walk_at, walk_jump
from uvb.spec import RunSpec

CHAINS, JUMPS, UNCOUNTED = 32, 12, 3  # chains begin at Unif[0, 1]^d, so the first 3 jumps of each are not counted
STEPS, SAMPLER = 10, "baoab"
REFERENCE = 1500  # training images


def _gradients(spec: RunSpec, context: Context) -> float:
    # A jump costs 1.5 gradients: 1 for x̂(y), ½ for f(y). For each counted jump there are 3 more: a second jump, and
    # a test image that is denoised twice.
    jump, counted = STEPS + 1.5, 3 * (JUMPS - UNCOUNTED) / JUMPS
    return context.shortened(CHAINS, least=4) * JUMPS * (jump + counted)


# By default a study measures only the largest noise level. The experiment `jump_quality_over_sigma` measures all levels.
@register_experiment("jump_quality_over_sigma", needs="energy", default=False, gradients=_gradients)
@register_experiment("jump_quality", needs="energy", where="largest", gradients=_gradients)
@torch.no_grad()
def jump_quality(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{images, count, and each of `MEASURES` with its _stderr}].

    Every set of images is compared with the same training images. `images` is the name of the set:

    - "jumps" and "second jumps": x̂(y) and x̂(x̂(y)) of chains.
    - "test images": real images.
    - "denoised" and "denoised twice": x̂(y) and x̂(x̂(y)) of noisy test images. If the energy were perfect and the chains had
      converged, jumps would have the same distribution.

    The jumps of one chain form a group. The other sets are divided into groups of the same size. If there are too few test
    images, their sets have fewer groups. Standard errors come from a bootstrap over groups. The classifier of
    `uvb.experiments._labels` computes the features.
    """
    assert isinstance(model, Energy)
    classifier = labeller(context)
    config = walk_at(spec.sigma, sampler=SAMPLER, steps_between_jumps=STEPS, jumps=JUMPS)
    scalars: dict[str, Any] = {"sigma": spec.sigma, "sampler": SAMPLER, "delta": config.delta, "rows": [], "message": ""}
    if classifier is None:
        return Result(scalars | {"message": "the images have no labels, so there is no classifier to compute features"})
    energy, jumps = Frozen(model, context.plan), []
    state = context.chains(context.shortened(CHAINS, least=4), spec)
    for now, landed in walk_jump(energy, state, config, context.seed):
        state = now
        jumps.append(landed.x_hat)
    scalars["message"] = trouble(None, state.stopped_at.tolist())
    if int(state.alive.sum()) < 2:
        return Result(scalars)
    kept = torch.stack(jumps[UNCOUNTED:], 1)[state.alive]  # (chains, T, C, H, W)
    sets = {"jumps": kept, "second jumps": _estimates(energy, kept, context, "second jumps")}
    sets |= _of_test_images(energy, spec, context, kept)
    rows = torch.randperm(spec.data.train_images, generator=generator(context.seed, "quality reference"))[:REFERENCE]
    training = context.images.to_unit(context.images.train[rows].to(context.plan.device))
    quality = Quality(features(classifier, training))
    if len(sets["test images"]) < 2:
        few = "there are too few test images for standard errors"
        scalars["message"] = f"{scalars['message']}; {few}" if scalars["message"] else few
    for name, images in sets.items():
        groups = features(classifier, images.flatten(0, 1)).reshape(*images.shape[:2], -1)
        row: dict[str, Any] = {"images": name, "count": groups.shape[0] * groups.shape[1]}
        for measure, found in zip(MEASURES, quality(groups, context.seed), strict=True):
            row |= {measure: found.value, f"{measure}_stderr": found.stderr}
        scalars["rows"].append(row)
    return Result(scalars)


def _of_test_images(energy: Energy, spec: RunSpec, context: Context, like: Tensor) -> dict[str, Tensor]:
    """Test images, their x̂(y) and their x̂(x̂(y)), in groups of the size of `like` (G, m, C, H, W). G may be smaller."""
    count, per_group = like.shape[:2]
    x = context.test_images(count * per_group)
    count = max(1, len(x) // per_group)
    x = context.images.to_unit(x[: count * per_group].to(like.device), like.dtype)
    groups = x.reshape(count, -1, *x.shape[1:])
    denoised = _estimates(energy, groups + spec.sigma * context.normal(groups, "quality noise"), context, "denoised")
    twice = _estimates(energy, denoised, context, "denoised twice")
    return {"test images": groups, "denoised": denoised, "denoised twice": twice}


def _estimates(energy: Energy, groups: Tensor, context: Context, purpose: str) -> Tensor:
    """x̂ of images (G, m, C, H, W)."""
    return torch.stack([energy(y, context.latent_noise(energy, y, purpose, g)) for g, y in enumerate(groups)])
