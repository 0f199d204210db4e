"""Figure 3 and Sec. 3.4: walk-jump sampling, and how well its chains mix."""

import math
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uvb.accelerate.frozen import Frozen
from uvb.experiments._labels import ACCURACY_IMAGES, accuracies, labeller
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.measure.classifier import Classifier, classify
from uvb.measure.mixing import (
    NO_LABEL,
    MissingArviz,
    chain_statistics,
    classes_visited,
    principal_component,
    steps_to_visit_all,
    transition_counts,
)
from uvb.models.base import Energy, Estimator
from uvb.sampling import get_sampler, sampler_names
from uvb.sampling import walk_jump as walks
from uvb.sampling.chains import NEVER, WalkState
from uvb.sampling.walk_jump import WalkJump, walk_at
from uvb.spec import RunSpec

CHAINS, JUMPS = 8, 100
DENSE_CLASSES = 100  # with more classes, the result lists the transitions that happened, and has no transition matrix
LEAST_DRAWS = 4  # fewer draws say nothing about mixing


def _gradients(spec: RunSpec, context: Context, sampler: str) -> float:
    walk = walk_at(spec.sigma, sampler=sampler, jumps=context.shortened(JUMPS, least=8))
    jump = walk.steps_between_jumps * walk.gradients_per_step + 2.5  # in gradients: x̂(y) and x̂(x̂(y)) cost 1 each, f(y) costs ½
    accuracy = 2 * context.estimates(limit=context.shortened(ACCURACY_IMAGES, least=100))
    return context.shortened(CHAINS, least=2) * walk.jumps * jump + accuracy


def walk_jump(model: Estimator, spec: RunSpec, context: Context, sampler: str = "langevin") -> Result:
    """Walk eight chains for 1,000 steps from Unif[0, 1]^d without warm-up, and jump (Eq. 20) every ten steps.

    The sampler uses its usual settings at σ. `walked` describes the result.
    """
    return walked(model, spec, context, walk_at(spec.sigma, sampler=sampler, jumps=context.shortened(JUMPS, least=8)))


# The experiment `walk_jump` is the paper's walk, and runs by default. Another sampler's experiment is `walk_jump_<name>`.
for name in sampler_names():
    default = name == "langevin"
    own = "walk_jump" if default else f"walk_jump_{name}"
    register_experiment(own, needs="energy", where="largest", default=default, gradients=partial(_gradients, sampler=name))(
        partial(walk_jump, sampler=name)
    )


@torch.no_grad()
def walked(model: Estimator, spec: RunSpec, context: Context, config: WalkJump) -> Result:
    """Walk, jump, and measure the jumps x̂(y) ("jump") and x̂(x̂(y)) ("second_jump").

    Arrays, where a 2 in the name means the second jump:

    - jumps, jumps2 (T, C, H, W): the jumps of the first chain.
    - labels, labels2 (T, chains): their classes, -1 after a chain diverged.
    - energy (T, chains): f(y) before the jumps.
    - scores, scores2 (T, chains alive at the last jump): the jumps projected on their first principal component.

    Chain statistics describe the scores and the energy of the chains that were alive at the last jump. `acceptance` is the
    share of proposals accepted, or null for a sampler without a Metropolis test. `message` says what went wrong.
    """
    assert isinstance(model, Energy)
    chains = context.shortened(CHAINS, least=2)
    state = context.chains(chains, spec)
    jumps, energies, alive = [], [], []
    for now, landed in walks.walk_jump(Frozen(model, context.plan), state, config, context.seed):
        state = now
        if not bool(landed.alive.any()):
            break
        jumps.append(landed.x_hat.float())
        energies.append(landed.energy)
        alive.append(landed.alive)
    stopped = state.stopped_at.tolist()
    accepted = acceptance(config, state)
    scalars: dict[str, Any] = {
        "sampler": config.sampler, "sigma": spec.sigma, "delta": config.delta, "steps": state.step,
        "steps_per_jump": config.steps_between_jumps, "chains": chains, "gradients_per_step": config.gradients_per_step,
        "acceptance": accepted, "message": trouble(accepted, stopped), "classifier_accuracy": None, "variants": {},
        "diverged": [{"chain": chain, "step": step} for chain, step in enumerate(stopped) if step != NEVER],
    }  # fmt: skip
    if not jumps:  # every chain diverged before the first jump
        return Result(scalars)
    x_hat, sound, energy = torch.stack(jumps), torch.stack(alive), torch.stack(energies)  # (T, chains, ...)
    classifier = labeller(context)
    if classifier is not None:
        found = accuracies(classifier, model, spec, context)
        scalars |= {"classifier_accuracy": found["jump"], "classifier_accuracies": found}
    arrays = {"energy": energy}
    for variant, suffix, images in (("jump", "", x_hat), ("second_jump", "2", _jump_again(model, x_hat, context))):
        labels = _labels(classifier, images, sound)
        scores = principal_component(images[:, sound[-1]])
        coverage = covered(labels, config.steps_between_jumps, classifier)
        scalars["variants"][variant] = coverage | statistics(scores, config.steps_between_jumps)
        arrays |= {f"jumps{suffix}": images[:, 0], f"scores{suffix}": scores}
        if labels is not None:
            arrays[f"labels{suffix}"] = labels
    scalars["energy"] = statistics(energy[:, sound[-1]], config.steps_between_jumps)
    return Result(scalars, arrays)


def acceptance(config: WalkJump, state: WalkState) -> float | None:
    """The share of proposals accepted, over the chains that never diverged. None for a sampler without a Metropolis test."""
    if not get_sampler(config.sampler).exact or not bool(state.alive.any()):
        return None
    return float(state.accepted[state.alive].double().mean()) / state.step


def trouble(accepted: float | None, stopped: list[int]) -> str:
    """One line that says what went wrong in a walk, or "". `stopped` has the step at which each chain diverged, or -1."""
    diverged = sum(step != NEVER for step in stopped)
    if diverged:
        return f"{diverged} of {len(stopped)} chains diverged; a smaller step δ may help"
    return "no proposal was accepted, so the chains never moved; take a smaller step δ" if accepted == 0 else ""


def covered(labels: Tensor | None, steps: int, classifier: Classifier | None) -> dict[str, Any]:
    """Statistics of the classes of jumps (T, chains): the classes visited by each chain, and the transitions of all chains.

    There are `steps` steps between two jumps. `classes_visited` and `steps_to_all` describe the first chain. Without a
    classifier all statistics are None.
    """
    if labels is None or classifier is None:
        return {"classes_visited": None, "steps_to_all": None, "transition": None}
    k = classifier.classes
    visited, times = classes_visited(labels, k)[-1].tolist(), steps_to_visit_all(labels, k, steps)
    counts = transition_counts(labels, k)  # (k, k)
    found: dict[str, Any] = {"classes_visited": visited[0], "steps_to_all": times[0], "transition": None}
    if k <= DENSE_CLASSES:
        found["transition"] = counts.tolist()
    else:
        found["moves"] = [[a, b, int(counts[a, b])] for a, b in counts.nonzero().tolist()]
    return found | {"classes_visited_by_chain": visited, "steps_to_all_by_chain": times}


def statistics(series: Tensor, steps: int) -> dict[str, float | None]:
    """How well chains mix, from a series (T, chains) with `steps` steps between two entries. No chain may have diverged.

    `iat` is the autocorrelation time in entries. A statistic that is not defined is None.
    """
    found: dict[str, float | None] = dict.fromkeys(("iat", "ess_per_step", "split_rhat"))
    if len(series) < LEAST_DRAWS or series.shape[1] == 0 or not bool(series.isfinite().all()):
        return found
    with suppress(MissingArviz):  # the walk is useful even without statistics
        told = chain_statistics(series, steps)
        values = told.integrated_autocorrelation_time, told.effective_sample_size_per_step, told.split_r_hat
        found = {name: value if math.isfinite(value) else None for name, value in zip(found, values, strict=True)}
    return found


def _jump_again(model: Energy, x_hat: Tensor, context: Context) -> Tensor:
    """x̂(x̂(y)), in the shape of `x_hat`: (T, chains, C, H, W)."""
    with context.plan.autocast():
        again = [model(x, context.latent_noise(model, x, "second jump", t)) for t, x in enumerate(x_hat.to(context.plan.dtype))]
    return torch.stack(again).float()


def _labels(classifier: Classifier | None, images: Tensor, sound: Tensor) -> Tensor | None:
    """The classes of images (T, chains, C, H, W): (T, chains) int64, -1 where a chain is not `sound`."""
    if classifier is None:
        return None
    labels = classify(classifier, images.flatten(0, 1)).reshape(sound.shape)
    return labels.masked_fill(~sound, NO_LABEL)
