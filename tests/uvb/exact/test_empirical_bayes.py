"""Compare the exact Bayes estimator of a finite set with a naive estimator, with autograd, and with losses measured earlier."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from uvb.data import ImageSet, load_dataset
from uvb.errors import UserError
from uvb.exact.empirical_bayes import EmpiricalBayes, negative_log_density, posterior_mean
from uvb.noise import generator, normal


def images(n: int, *purpose: str, shape: tuple[int, ...] = (1, 3, 4)) -> Tensor:
    return torch.rand(n, *shape, generator=generator(0, *purpose), dtype=torch.float64)


def naive(y: Tensor, train: Tensor, sigma: float) -> Tensor:
    distances = torch.cdist(y.flatten(1), train.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    weights = torch.softmax(-distances.square() / (2 * sigma**2), 1)
    return (weights @ train.flatten(1)).reshape(y.shape)


@pytest.mark.parametrize("sigma", [0.05, 1.0])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_posterior_mean_in_blocks_equals_the_naive_one(sigma: float, block: int) -> None:
    train, y = images(50, "train"), images(23, "y") + sigma * normal((23, 1, 3, 4), 0, "n").double()
    torch.testing.assert_close(posterior_mean(y, train, sigma, block=block), naive(y, train, sigma))


def test_posterior_mean_of_float32_and_uint8_agrees_with_float64() -> None:
    pixels = torch.randint(0, 17, (60, 1, 3, 4), generator=generator(0, "pixels"), dtype=torch.uint8)
    y = images(20, "y")
    exact = naive(y, pixels.double() / 16, 0.3)
    torch.testing.assert_close(posterior_mean(y, pixels, 0.3, levels=16, block=13), exact)
    single = posterior_mean(y.float(), pixels, 0.3, levels=16, block=13)
    torch.testing.assert_close(single.double(), exact, atol=2e-5, rtol=0)


def test_negative_log_density_is_normalized() -> None:
    """The expected value comes from the densities of `torch.distributions`."""
    train, y, sigma = images(30, "train"), images(11, "y"), 0.4
    noise = torch.distributions.Normal(torch.zeros((), dtype=y.dtype), sigma)
    each = noise.log_prob((y[:, None] - train).flatten(2)).sum(2)  # (B, N)
    expected = -torch.log(each.exp().mean(1))
    torch.testing.assert_close(negative_log_density(y, train, sigma, block=8), expected)


def test_gradient_by_autograd_gives_the_posterior_mean() -> None:
    """With ∇f by autograd, y - σ² ∇f(y) is the posterior mean (Eq. 1 = Eq. 2)."""
    train, eps = images(40, "train"), torch.empty(9, 0)
    y = images(9, "y").requires_grad_()
    energy = EmpiricalBayes(train, 0.5, block=16)
    (gradient,) = torch.autograd.grad(energy.energy(y, eps).sum(), y)
    torch.testing.assert_close(y - 0.5**2 * gradient, energy(y, eps))
    torch.testing.assert_close(energy.gradient(y, eps), gradient)


def test_posterior_mean_ignores_autocast() -> None:
    train, y = images(40, "train").float(), images(9, "y").float()
    plain = posterior_mean(y, train, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(posterior_mean(y, train, 0.1), plain)


def test_posterior_mean_never_makes_the_whole_matrix() -> None:
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            self.numel = max(self.numel, out.numel() if isinstance(out, Tensor) else 0)
            return out

    train, y = images(900, "train"), images(700, "y")
    with Largest() as largest:
        posterior_mean(y, train, 1.0, block=100)
        negative_log_density(y, train, 1.0, block=100)
    assert 100 * 100 <= largest.numel <= max(100 * 100, y.numel(), train.numel())


def test_posterior_mean_refuses_bad_input() -> None:
    train = images(4, "train")
    with pytest.raises(UserError, match="empty"):
        EmpiricalBayes(train[:0], 1.0)
    with pytest.raises(UserError, match="shape"):
        posterior_mean(train.reshape(4, 1, 4, 3), train, 1.0)
    with pytest.raises(UserError, match="above 0"):
        posterior_mean(train, train, 0.0)
    with pytest.raises(UserError, match="float32 or float64"):
        posterior_mean(train.half(), train, 1.0)
    with pytest.raises(UserError, match=r"images y are torch.uint8; .* float32 or float64, so convert them"):
        posterior_mean(train.byte(), train.byte(), 1.0)


def loss(images: ImageSet, x: Tensor, sigma: float, draws: int) -> float:
    x = images.to_unit(x)
    total = 0.0
    for draw in range(draws):
        y = x + sigma * normal(tuple(x.shape), 0, "noise", draw)
        x_hat = posterior_mean(y, images.train, sigma, levels=images.levels)
        total += float((x - x_hat).square().flatten(1).sum(1).mean())
    return total / draws


def test_posterior_mean_has_the_known_losses_on_digits(digits: ImageSet) -> None:
    """At σ = 1 the losses on training and test images are 3.25 and 3.34, as measured before this code was written."""
    assert loss(digits, digits.train, 1.0, draws=4) == pytest.approx(3.25, abs=0.05)
    assert loss(digits, digits.test, 1.0, draws=20) == pytest.approx(3.34, abs=0.05)


@pytest.mark.slow
def test_posterior_mean_has_the_known_losses_on_mnist(shared: Path) -> None:
    """At σ = 1 the losses on training and test images are 3.63 and 21.7, as measured before this code was written.

    This test measures 2,000 images with one draw.
    """
    mnist = load_dataset("mnist", shared / "data", download=False)
    assert loss(mnist, mnist.train[:2000], 1.0, draws=1) == pytest.approx(3.63, abs=0.4)
    assert loss(mnist, mnist.test[:2000], 1.0, draws=1) == pytest.approx(21.7, abs=1.0)
