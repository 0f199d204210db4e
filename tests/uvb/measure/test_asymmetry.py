"""The asymmetry of a Jacobian, on matrices with a known asymmetry."""

import math

import pytest
import torch
from torch import Tensor

from uvb.measure.asymmetry import jacobian_asymmetry
from uvb.models.base import Energy, Estimator


class Linear(Estimator):
    """x̂ = A y."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(1.0)
        self.matrix = matrix

    def forward(self, y: Tensor, eps: Tensor) -> Tensor:
        return (y.flatten(1) @ self.matrix.T).view_as(y)


class Quartic(Energy):
    """f(y) = Σ (By)⁴: its Jacobian is symmetric and depends on y."""

    def energy(self, y: Tensor, eps: Tensor) -> Tensor:
        b = torch.linspace(-1, 1, 16, dtype=y.dtype).view(4, 4)
        return (y.flatten(1) @ b.T).pow(4).sum(1)


def noisy(count: int = 400) -> Tensor:
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_jacobian_asymmetry_of_a_rotation_is_one() -> None:
    quarter_turn = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]], dtype=torch.float64)
    found = jacobian_asymmetry(Linear(quarter_turn), noisy())
    assert found.value == pytest.approx(1, abs=1e-12)


def test_jacobian_asymmetry_of_a_matrix_is_the_quotient_of_its_norms() -> None:
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = ((matrix - matrix.T).norm() / (2 * matrix.norm())).item()
    found = jacobian_asymmetry(Linear(matrix), noisy(4000))
    assert found.value == pytest.approx(expected, abs=4 * found.stderr)
    assert 0 < found.stderr < 0.02


def test_jacobian_asymmetry_of_an_energy_is_zero() -> None:
    assert jacobian_asymmetry(Quartic(1.0), noisy()).value < 1e-12
    assert math.isfinite(jacobian_asymmetry(Quartic(1.0), noisy()).stderr)
