"""Sec. 3.3.1, NEBULA: two steps of size σ², and the attractor at the end of the gradient flow."""

import torch

from uvb.experiments._draws import latent_noise, shortened, shown_images
from uvb.experiments._labels import labeller, labels_of
from uvb.experiments.registry import Context, Result, register_experiment
from uvb.models.base import Energy, Estimator
from uvb.sampling.nebula import gradient_flow, two_steps
from uvb.spec import RunSpec

MAX_STEPS = 500  # trial steps; flows of a trained model end within a hundred


@register_experiment("nebula", needs="energy", where="largest")
@torch.no_grad()
def nebula(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays noisy, step1, step2, attractor (N, C, H, W); energy and, where there are labels, classes (steps, N) of
    x̂(y_t) on the way.

    One ε an image throughout, so that f is a function of y alone. `labels_before` are the classes of x̂(y), `labels_after`
    those of the attractors; `converged` tells which flows ended within the steps allowed, `flow_time` where, in units of σ².
    """
    assert isinstance(model, Energy)
    _, y = shown_images(spec, context)
    eps = latent_noise(model, len(y), y, context, "rows latent")
    step1, step2 = two_steps(model, y, eps, eps)
    classifier = labeller(context)
    energy, classes = [], []
    for state in gradient_flow(model, y, eps, max_steps=shortened(MAX_STEPS, context, least=50)):
        energy.append(state.energy)
        if classifier is not None:
            x_hat = state.y - spec.sigma**2 * state.gradient  # Eq. 3, of which a classifier of clean images can tell something
            classes.append(torch.tensor(labels_of(classifier, x_hat)))
    arrays = {"noisy": y, "step1": step1, "step2": step2, "attractor": state.y, "energy": torch.stack(energy)}
    if classes:
        arrays["classes"] = torch.stack(classes)
    scalars = {
        "sigma": spec.sigma,
        "labels_before": labels_of(classifier, step1),
        "labels_second": labels_of(classifier, step2),
        "labels_after": labels_of(classifier, state.y),
        "energy_noisy": model.energy(y, eps).tolist(),
        "energy_step1": model.energy(step1, eps).tolist(),
        "energy_step2": model.energy(step2, eps).tolist(),
        "energy_attractor": state.energy.tolist(),
        "steps": state.steps.tolist(),
        "flow_time": (state.time / spec.sigma**2).tolist(),
        "converged": state.converged.tolist(),
    }
    return Result(scalars, arrays)
