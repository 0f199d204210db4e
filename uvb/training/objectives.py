"""Training objectives: modules that return a loss. Their forward pass includes the inner gradient ∇_y f. DDP needs this."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from uvb.errors import UserError
from uvb.models.base import Energy, Estimator
from uvb.registry import Registry


class Objective(nn.Module, ABC):
    """A weighted sum of per-image losses of an estimator.

    A subclass defines `per_image(x, noise, eps)`. This method takes clean images (B, C, H, W) in [0, 1], standard normal noise
    of the same shape and ε (B, noise_dim), and returns the losses (B,).

    Attributes:
        unit: the label of the loss axis in plots.
        of_an_energy: whether the loss contains the energy itself, so that the model must be an energy.
        differentiates_twice: whether the loss of an energy contains ∇_y f. This doubles the cost of a step.
        trains_the_decoder: whether the decoder of a latent model learns to reconstruct.
        judged_by: the name of the estimator that stands for the model in comparisons. `uvb.measure.losses.denoisers` lists
            a model's estimators. If it does not list this name, `uvb.measure.losses.own_estimator` chooses another.
    """

    unit = "loss, E‖x − x̂(y)‖²"
    of_an_energy = False
    differentiates_twice = True
    trains_the_decoder = False
    judged_by = "energy"

    def __init__(self, model: Estimator) -> None:
        super().__init__()
        self.model = model

    @abstractmethod
    def per_image(self, x: Tensor, noise: Tensor, eps: Tensor) -> Tensor:
        """The losses of images x, (B, C, H, W) -> (B,)."""

    def forward(self, x: Tensor, noise: Tensor, eps: Tensor, weight: Tensor) -> Tensor:
        """Σ_i weight_i · loss_i. A padded image has weight 0."""
        return (weight * self.per_image(x, noise, eps)).sum()


OBJECTIVES: Registry[type[Objective]] = Registry("objective", "uvb.objectives")


def register_objective(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Decorator that registers a subclass of `Objective` as `name`. A model names its objective in `register_model`."""

    def add(objective: type[Objective]) -> type[Objective]:
        OBJECTIVES.add(name, objective)
        return objective

    return add


@register_objective("denoise")
class Denoise(Objective):
    """‖x - x̂(y)‖² with y = x + σ noise, summed over pixels (Eq. 4; Eq. 18 for UVB)."""

    def per_image(self, x: Tensor, noise: Tensor, eps: Tensor) -> Tensor:
        y = x + self.model.sigma * noise
        x_hat: Tensor = self.model(y, eps)
        return (x - x_hat).square().flatten(1).sum(1)


@register_objective("elbo_y")
class ElboY(Objective):
    """-ELBO of the noisy Y, up to a constant (Eq. 14). This is the energy itself."""

    model: Energy
    unit = "−ELBO of Y, nats"
    of_an_energy, differentiates_twice, trains_the_decoder = True, False, True

    def per_image(self, x: Tensor, noise: Tensor, eps: Tensor) -> Tensor:
        return self.model.energy(x + self.model.sigma * noise, eps)


@register_objective("elbo_x")
class ElboX(Objective):
    """-ELBO of the clean X under the imaginary noise model, up to a constant (Eq. 10). The noise is not used.

    A model that is trained by this objective denoises with its encoder and decoder (Sec. 2.2).
    """

    model: Energy
    unit = "−ELBO of X, nats"
    of_an_energy, differentiates_twice, trains_the_decoder = True, False, True
    judged_by = "decoder"

    def per_image(self, x: Tensor, noise: Tensor, eps: Tensor) -> Tensor:
        return self.model.energy(x, eps)


def build_objective(name: str, model: Estimator) -> Objective:
    """The objective called `name`, applied to `model`.

    Raises:
        UserError: the name is unknown, or the objective needs an energy but the model is not one.
    """
    objective = OBJECTIVES.get(name)
    if objective.of_an_energy and not isinstance(model, Energy):
        raise UserError(f"objective {name!r} minimizes an energy, but {type(model).__name__} has none; use denoise")
    return objective(model)


def require_one_energy_an_image(model: Estimator, x: Tensor) -> None:
    """Raise `UserError` if the model is an energy that does not return shape (B,) for `x` (B, C, H, W).

    Training would not notice if the energy were summed over images.
    """
    if not isinstance(model, Energy):
        return
    with torch.no_grad():
        found = tuple(model.energy(x, x.new_zeros(len(x), model.noise_dim)).shape)
    if found != (len(x),):
        raise UserError(
            f"{type(model).__name__}.energy gave shape {found} for {len(x)} images; it must give one number for each image"
        )


def freeze_unused(objective: Objective, x: Tensor) -> list[str]:
    """Freeze the parameters that get no gradient, e.g. DEEN's output bias, which only adds a constant to f. Return their names.

    DDP waits for a gradient of every parameter that is not frozen. If one gets no gradient, DDP raises or hangs.
    """
    eps = torch.zeros(len(x), objective.model.noise_dim, dtype=x.dtype, device=x.device)
    objective(x, torch.zeros_like(x), eps, torch.ones(len(x), dtype=x.dtype, device=x.device)).backward()
    unused = [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    for name, p in objective.named_parameters():
        p.grad = None
        if name in unused:
            p.requires_grad_(False)
    return unused
