"""A random energy with known densities."""

from torch import Tensor

from uvb.models.base import Energy


class RandomCenter(Energy):
    """½‖y - c(ε)‖²: an energy that depends on ε, as UVB's does. At each ε its density is the Gaussian N(c(ε), I)."""

    noise_dim = 2

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        return 0.5 * (y - eps.mean(1).reshape(-1, 1, 1, 1)).square().flatten(1).sum(1)
