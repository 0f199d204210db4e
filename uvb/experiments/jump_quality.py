"""How good jumps are as images, between the floor of real images and the ceiling of denoised ones."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments._draws import latent_noise, shortened
from uvb.experiments._labels import labeller
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.experiments.walk_jump import trouble
from uvb.measure.classifier import Classifier
from uvb.measure.losses import drawn_test_images
from uvb.measure.quality import MEASURES, Quality, features, jackknife
from uvb.models.base import Energy, Estimator
from uvb.noise import generator, normal
from uvb.sampling.chains import begin
from uvb.sampling.walk_jump import walk_at, walk_jump
from uvb.spec import RunSpec

CHAINS, JUMPS, UNCOUNTED = 32, 12, 3  # the first jumps of each chain, from Unif[0, 1]^d, are not counted
STEPS, SAMPLER = 10, "baoab"
REFERENCE = 1500  # training images


@torch.no_grad()
def jump_quality(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """`rows`: [{images, count, and each of `MEASURES` with its _stderr}], all against the same training images.

    `images` are "jumps" x̂(y) and "second jumps" x̂(x̂(y)) of chains; "test images", the floor; "denoised", x̂(y) of noisy
    test images, the ceiling of what jumps can be; and "denoised twice". All are equally many, in groups as large as a chain,
    and errors are jackknifed over groups. Features are those of the study's own classifier.
    """
    assert isinstance(model, Energy)
    classifier = labeller(context)
    config = walk_at(spec.sigma, sampler=SAMPLER, steps_between_jumps=STEPS, jumps=JUMPS)
    scalars: dict[str, Any] = {"sigma": spec.sigma, "sampler": SAMPLER, "delta": config.delta, "rows": [], "message": ""}
    if classifier is None:
        return Result(scalars | {"message": "the images have no labels, so there is no classifier to take features from"})
    energy, plan = Frozen(model, context.plan), context.plan
    state = begin(shortened(CHAINS, context, least=4), spec.data.shape, context.seed, device=plan.device, dtype=plan.dtype)
    jumps = []
    for now, landed in walk_jump(energy, state, config, context.seed):
        state = now
        jumps.append(landed.x_hat)
    scalars["message"] = trouble(None, state.stopped_at.tolist())
    if int(state.alive.sum()) < 2:
        return Result(scalars)
    kept = torch.stack(jumps[UNCOUNTED:], 1)[state.alive]  # (chains, T, C, H, W)
    sets = {"jumps": kept, "second jumps": _estimates(energy, kept, context, "second jumps")}
    sets |= _of_test_images(energy, spec, context, kept)
    quality = Quality(_training_features(classifier, spec, context))
    for name, images in sets.items():
        groups = features(classifier, images.flatten(0, 1)).reshape(*images.shape[:2], -1)
        row: dict[str, Any] = {"images": name, "count": groups.shape[0] * groups.shape[1]}
        for measure, found in zip(MEASURES, jackknife(quality, groups), strict=True):
            row |= {measure: found.value, f"{measure}_stderr": found.stderr}
        scalars["rows"].append(row)
    return Result(scalars)


# By default at the largest noise level; over all levels when asked for.
register_experiment("jump_quality", needs="energy", where="largest")(jump_quality)
register_experiment("jump_quality_over_sigma", needs="energy", default=False)(partial(jump_quality))


def _of_test_images(energy: Energy, spec: RunSpec, context: Context, like: Tensor) -> dict[str, Tensor]:
    """Test images and their x̂(y), as many and in such groups as `like` (G, m, C, H, W); fewer where the set is smaller."""
    count, per_group = like.shape[:2]
    x = drawn_test_images(context.images, count * per_group, context.evaluation)
    count = max(1, len(x) // per_group)
    x = context.images.to_unit(x[: count * per_group].to(like.device), like.dtype)
    groups = x.reshape(count, -1, *x.shape[1:])
    noisy = groups + spec.sigma * normal(tuple(groups.shape), context.seed, "quality noise").to(groups)
    denoised = _estimates(energy, noisy, context, "denoised")
    twice = _estimates(energy, denoised, context, "denoised twice")
    return {"test images": groups, "denoised": denoised, "denoised twice": twice}


def _estimates(energy: Energy, groups: Tensor, context: Context, purpose: str) -> Tensor:
    """x̂ of images (G, m, C, H, W)."""
    parts = [energy(y, latent_noise(energy, len(y), y, context, purpose, g)) for g, y in enumerate(groups)]
    return torch.stack(parts)


def _training_features(classifier: Classifier, spec: RunSpec, context: Context) -> Tensor:
    images = context.images
    rows = torch.randperm(spec.data.train_images, generator=generator(context.seed, "quality reference"))[:REFERENCE]
    return features(classifier, images.to_unit(images.train[rows].to(context.plan.device), torch.float32))
