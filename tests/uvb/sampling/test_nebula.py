"""NEBULA: the gradient flow, on energies with known attractors."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from uvb.errors import UserError
from uvb.exact.gaussian_mixture import GaussianMixture
from uvb.models.base import Energy
from uvb.noise import normal
from uvb.sampling.nebula import FlowState, gradient_flow

SHAPE = (1, 3, 3)
NONE = torch.empty(5, 0)


def gaussian() -> GaussianMixture:
    return GaussianMixture(torch.ones(1), torch.full((1, *SHAPE), 0.5), torch.tensor([0.25]))


def noisy() -> Tensor:
    return 0.5 + normal((5, *SHAPE), 0, "y")


def attractor(energy: Energy, y: Tensor, eps: Tensor, **options: float) -> tuple[FlowState, Tensor]:
    """The end of the flow from y, and the energies (iterations + 1, B) on the way."""
    states = list(gradient_flow(energy, y, eps, **options))
    return states[-1], torch.stack([state.energy for state in states])


def test_flow_runs_downhill_to_the_mode() -> None:
    end, energies = attractor(gaussian().energy(1.0), noisy(), NONE)
    assert end.converged.all()
    torch.testing.assert_close(end.y, torch.full_like(end.y, 0.5), atol=2e-3, rtol=0)
    assert bool((energies.diff(dim=0) <= 1e-5).all())
    assert bool((energies[-1] < energies[0]).all())
    assert len(energies) >= int(end.steps.max()) + 1


def test_flow_steps_are_at_most_sigma_squared_and_end_at_the_tolerance() -> None:
    """The flow ends at the first point where the rms of σ²∇f is below the tolerance. Here σ²∇f = (y - m) σ²/(v + σ²)."""
    flat = GaussianMixture(torch.ones(1), torch.full((1, *SHAPE), 0.5), torch.tensor([4.0]))
    energy, tolerance = flat.energy(1.0), 1e-3
    states = list(gradient_flow(energy, noisy(), NONE, tolerance=tolerance))
    for before, after in pairwise(states):
        assert bool((after.step_size <= 1.0).all())
        rms = ((before.y - 0.5) / 5).flatten(1).square().mean(1).sqrt()
        assert torch.equal(before.converged, rms < tolerance)
    assert states[-1].converged.all()
    assert states[-1].step_size.max() == 1.0  # so the bound was reached


def test_flow_with_small_steps_solves_the_differential_equation() -> None:
    """If Y is Gaussian with variance s², y - mean decays as exp(-t/s²). Here s² = 0.25 + σ² = 1.25."""
    y = noisy()
    states = gradient_flow(gaussian().energy(1.0), y, NONE, accuracy=0.01)
    for state in states:
        if float(state.time.min()) > 1.0:
            break
    decay = torch.exp(-state.time / 1.25).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(state.y - 0.5, (y - 0.5) * decay, atol=0.02, rtol=0)


def test_flow_takes_each_image_to_its_own_attractor() -> None:
    """The mixture has two components far apart. Each image goes to the nearer component, independently of the other images."""
    means = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])
    pair = GaussianMixture(torch.tensor([0.5, 0.5]), means, torch.tensor([1e-4, 1e-4]))
    y = torch.stack([torch.full(SHAPE, v) for v in (0.4, 0.6, 0.1, 0.9, 0.0)])
    end, _ = attractor(pair.energy(0.3), y, NONE, tolerance=1e-5)
    assert end.converged.all()
    assert end.y.mean((1, 2, 3)).round(decimals=3).tolist() == pytest.approx([0, 1, 0, 1, 0], abs=1e-3)


def test_flow_keeps_the_noise_of_each_image() -> None:
    """In a batch each image flows as it would alone, to the minimum of the energy at its own ε."""

    class Shifted(Energy):
        """f(y; ε) = ‖y - ε₀‖²/2, with its minimum at ε₀ in every pixel."""

        noise_dim = 2

        def energy(self, y: Tensor, eps: Tensor) -> Tensor:
            return (y - eps[:, :1, None, None]).square().flatten(1).sum(1) / 2

    energy, eps = Shifted(1.0), normal((5, 2), 0, "eps")
    y = eps[:, :1, None, None] + torch.tensor([0.0, 3.0, 0.1, 40.0, 1.0])[:, None, None, None] * noisy()
    end, energies = attractor(energy, y, eps, tolerance=1e-4)
    assert end.converged.all()
    torch.testing.assert_close(end.y, eps[:, :1, None, None].expand_as(y), atol=2e-3, rtol=0)
    torch.testing.assert_close(end.energy, energy.energy(end.y, eps))
    assert len(set(end.steps.tolist())) > 2, "some images stop while others move"
    for i in range(5):
        alone, alone_energies = attractor(energy, y[i : i + 1], eps[i : i + 1], tolerance=1e-4)
        torch.testing.assert_close(alone.y[0], end.y[i])
        torch.testing.assert_close(alone_energies[:, 0], energies[: len(alone_energies), i])


def test_flow_says_which_images_did_not_converge() -> None:
    end, energies = attractor(gaussian().energy(1.0), noisy(), NONE, max_steps=2)
    assert not end.converged.any()
    assert len(energies) == 3


def test_flow_refuses_an_accuracy_above_one() -> None:
    with pytest.raises(UserError, match="accuracy"):
        attractor(gaussian().energy(1.0), noisy(), NONE, accuracy=1.5)
