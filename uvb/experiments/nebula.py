"""NEBULA (Sec. 3.3.1): two gradient steps of size σ², and the attractor at the end of the gradient flow."""

import torch

from uvb.experiments._labels import labeller, labels_of
from uvb.experiments.registry import ROWS, Context, Result, register_experiment
from uvb.models.base import Energy, Estimator
from uvb.sampling.nebula import gradient_flow
from uvb.spec import RunSpec

MAX_STEPS = 500  # trial steps; the flows of trained models end within a hundred steps


@register_experiment("nebula", needs="energy", where="largest",
                     gradients=lambda spec, context: 1.5 * ROWS * min(100, context.shortened(MAX_STEPS, least=50)))  # fmt: skip
@torch.no_grad()
def nebula(model: Estimator, spec: RunSpec, context: Context) -> Result:
    """Arrays noisy, step1, step2, attractor (N, C, H, W), and energy (steps, N) along the flow.

    If the data set has labels, there is also the array classes (steps, N): the class of x̂(y_t) along the flow. Each image
    keeps one ε, so that f is a function of y alone.

    - `labels_before`, `labels_second`, `labels_after`: the classes of x̂(y), of x̂(x̂(y)), and of the attractors.
    - `converged`: which flows ended within the allowed steps.
    - `flow_time`: the time of each flow, in units of σ².
    """
    assert isinstance(model, Energy)
    _, y = context.shown_images(spec)
    eps = context.latent_noise(model, y, "rows latent")
    step1 = model(y, eps)  # Fig. 2c and 2d: each x̂ is a step of size σ² down the gradient
    step2 = model(step1, eps)
    classifier = labeller(context)
    energy, classes = [], []
    for state in gradient_flow(model, y, eps, max_steps=context.shortened(MAX_STEPS, least=50)):
        energy.append(state.energy)
        if classifier is not None:
            x_hat = state.y - spec.sigma**2 * state.gradient  # Eq. 3. The classifier was trained on clean images
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
