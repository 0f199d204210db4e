"""The asymmetry of an estimator's Jacobian. It is 0 if the estimator comes from an energy (Eq. 3)."""

import math

import torch
from torch import Tensor

from uvb.measure.losses import Mean
from uvb.models.base import Estimator, draw_latent_noise
from uvb.noise import generator

PROBES = 8  # random directions for each image


def jacobian_asymmetry(model: Estimator, y: Tensor) -> Mean:
    """‖J − Jᵀ‖ / 2‖J‖ in the Frobenius norm, where J = ∂x̂/∂y, over the noisy images `y` (B, C, H, W).

    The estimator y − σ²∇f(y) of an energy has a symmetric Jacobian, so the result is 0. For a J of independent entries it is
    about 0.71, and for a rotation by a right angle it is 1. The squared norms are estimated by the means of ‖Jv − Jᵀv‖² and
    ‖Jv‖² over random probes v. Every model gets the same probes. Each image gets one ε. The standard error is over images, by
    the delta method.
    """
    eps = draw_latent_noise(model, len(y), generator(0, "asymmetry", "latent", device=y.device), y)
    draws = generator(0, "asymmetry", "probes", device=y.device)
    apart, size = torch.zeros(len(y), dtype=torch.float64), torch.zeros(len(y), dtype=torch.float64)
    for _ in range(PROBES):
        v = torch.randn(y.shape, generator=draws, device=y.device, dtype=y.dtype)
        forward, backward = _products(model, y, eps, v)
        apart += (forward - backward).double().square().flatten(1).sum(1).cpu() / PROBES
        size += forward.double().square().flatten(1).sum(1).cpu() / PROBES
    ratio = float(apart.mean() / size.mean())
    # For an exact energy `apart` is 0, so clamping avoids 0 / 0.
    noise = (apart / apart.mean().clamp(min=1e-300) - size / size.mean()).std() / math.sqrt(len(y))
    value = math.sqrt(ratio) / 2
    return Mean(value, value * float(noise) / 2)


def _products(model: Estimator, y: Tensor, eps: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """J v and Jᵀ v, each (B, C, H, W)."""
    y = y.detach().requires_grad_()
    u = torch.zeros_like(y, requires_grad=True)
    with torch.enable_grad():
        pulled = torch.autograd.grad(model(y, eps), y, u, create_graph=True)[0]  # Jᵀ u, linear in u
        forward = torch.autograd.grad(pulled, u, v)[0]  # (Jᵀ)ᵀ v = J v
        backward = torch.autograd.grad(model(y, eps), y, v)[0]
    return forward, backward
