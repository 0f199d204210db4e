"""Networks and energies: the paper's parameter counts, derivatives in float64, and identities."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.builders import TINY, tiny_config
from uvb.errors import UserError
from uvb.models import get_model, model_names
from uvb.models.base import Energy, LatentEnergy
from uvb.models.capacity import default_widths, matched_widths, parameters, scaled_widths
from uvb.models.kl import kl_to_standard_normal
from uvb.noise import normal
from uvb.spec import Widths
from uvb.training.objectives import build_objective, freeze_unused, require_one_energy_an_image

SHAPE = (2, 7, 6)


def tiny(name: str, sigma: float = 0.8, activation: str = "silu"):
    torch.manual_seed(0)
    return get_model(name).build(SHAPE, tiny_config(name), activation, sigma).double()


def inputs(noise_dim: int, batch: int = 3):
    y = normal((batch, *SHAPE), 0, "y").double()
    return y, normal((batch, noise_dim), 0, "eps").double()


@pytest.mark.parametrize(
    ("model", "shape", "count"),
    [
        ("uvb", (1, 28, 28), 26_777_528),
        ("deen", (1, 28, 28), 26_257_609),
        ("uvb", (3, 32, 32), 41_187_368),
        ("deen", (3, 32, 32), 36_090_313),
    ],
)
def test_parameters_are_the_counts_of_table_1(model, shape, count):
    assert parameters(model, shape, default_widths(model, shape)) == count


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16), (1, 12, 20)])
@pytest.mark.parametrize("model", ["deen", "direct", "quadratic_ae"])
def test_default_widths_match_uvb_within_one_percent(model, shape):
    target = parameters("uvb", shape, get_model("uvb").widths)
    assert parameters(model, shape, default_widths(model, shape)) == pytest.approx(target, rel=0.01)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0])
def test_matched_widths_has_the_hidden_layer_nearest_to_the_papers(shape, factor):
    """Count parameters by Table 1's formula, for convolutions in the ratio 1:2:4 and hidden layers of 50 to 200.

    The paper's hidden layer is 100.
    """
    target = parameters("uvb", shape, scaled_widths(get_model("uvb").widths, factor))
    c, h, w = shape
    unit, hidden = torch.arange(2, 512, dtype=torch.float64)[:, None], torch.arange(50, 201, dtype=torch.float64)[None]
    convolutions = 9 * (c * unit + 2 * unit * unit + 8 * unit * unit) + 7 * unit  # kernels of 3x3, and biases
    count = convolutions + 4 * unit * (h - 6) * (w - 6) * hidden + hidden + hidden + 1  # then the hidden layer, and the readout
    error = (count / target - 1).abs()
    rank = torch.where(error <= 0.01, (hidden - 100).abs() + error, torch.inf)  # the hidden layer first, then the error
    row, column = divmod(int(rank.argmin()), rank.shape[1])
    units, expected = int(unit[row]), int(hidden[0, column])
    assert matched_widths("deen", shape, target) == Widths((units, 2 * units, 4 * units), expected)


def test_widths_scale_and_impossible_widths_are_refused():
    assert scaled_widths(Widths((32, 64, 128), 200, 100, 2000), 0.5) == Widths((16, 32, 64), 100, 100, 1000)
    with pytest.raises(UserError, match="no pixel"):
        default_widths("uvb", (1, 6, 6))
    with pytest.raises(UserError, match="come within"):
        matched_widths("deen", (1, 28, 28), target=10)


@pytest.mark.parametrize("name", [n for n in model_names() if n != "direct"])
def test_energy_has_correct_first_and_second_derivatives(name):
    """Check f's derivatives in y by gradcheck and gradgradcheck, and dL/dϑ by a central difference along one direction."""
    model = tiny(name)
    y, eps = inputs(model.noise_dim, batch=2)
    assert isinstance(model, Energy)
    assert gradcheck(lambda y: model.energy(y, eps), (y.requires_grad_(),))
    assert gradgradcheck(lambda y: model.energy(y, eps), (y,))

    objective = build_objective("denoise", model)
    x, noise = torch.rand_like(y.detach()), normal(tuple(y.shape), 1, "n").double()

    def loss():
        return objective(x, noise, eps, torch.full((2,), 0.5, dtype=torch.float64))

    loss().backward()
    trained = [p for p in model.parameters() if p.grad is not None]
    direction = [normal(tuple(p.shape), 2, "d", i).double() for i, p in enumerate(trained)]
    slope = sum((p.grad * d).sum().item() for p, d in zip(trained, direction, strict=True))
    h, values = 1e-6, []
    for sign in (1, -2):  # to +h, then to -h
        with torch.no_grad():
            for p, d in zip(trained, direction, strict=True):
                p += sign * h * d
        values.append(loss().item())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-5)


def test_energy_forward_is_y_minus_sigma_squared_times_the_gradient():
    """Eq. 3. torch.autograd.grad gives the expected inner gradient."""
    model = tiny("uvb", sigma=0.7)
    y, eps = inputs(model.noise_dim)
    y.requires_grad_()
    (gradient,) = torch.autograd.grad(model.energy(y, eps).sum(), y)
    torch.testing.assert_close(model(y, eps), y - 0.7**2 * gradient, rtol=1e-12, atol=1e-12)


def test_kl_equals_torch_distributions():
    """Eq. 15."""
    mu, lam = normal((4, 5), 0, "mu").double(), normal((4, 5), 0, "lam").double()
    q = torch.distributions.Normal(mu, torch.exp(lam / 2))
    prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    torch.testing.assert_close(kl_to_standard_normal(mu, lam), torch.distributions.kl_divergence(q, prior).sum(1))


def test_uvb_energy_is_the_negative_elbo_up_to_a_constant():
    """Eq. 17: f + ½ d log 2πσ² is -log p(y|z) + KL, with the densities of torch.distributions."""
    model = tiny("uvb")
    y, eps = inputs(model.noise_dim)
    z, mu, lam = model.sample_latent(y, eps)
    sigma = model.sigma.item()
    log_likelihood = torch.distributions.Normal(model.decode(z), sigma).log_prob(y).flatten(1).sum(1)
    constant = 0.5 * y[0].numel() * torch.log(torch.tensor(2 * torch.pi * sigma**2, dtype=torch.float64))
    torch.testing.assert_close(
        model.energy(y, eps) + constant, -log_likelihood + kl_to_standard_normal(mu, lam), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(("name", "b_over_sigma"), [("uvb_laplace", 1.0), ("uvb_laplace_matched", 0.5**0.5)])
def test_laplace_reconstruction_is_its_log_density(name, b_over_sigma):
    model = tiny(name)
    y, _ = inputs(0)
    mean = torch.rand_like(y)
    b = b_over_sigma * model.sigma.item()
    density = torch.distributions.Laplace(mean, b).log_prob(y).flatten(1).sum(1)
    constant = y[0].numel() * torch.log(torch.tensor(2 * b, dtype=torch.float64))
    torch.testing.assert_close(model.reconstruction(y, mean), -(density + constant), rtol=1e-6, atol=1e-6)


def test_sigma_vae_objective_at_another_sigma_differs_only_in_kl_weight_and_scale():
    """Eq. 10: multiply the KL in the objective at σ₁ by β = σ₂²/σ₁², and divide the sum by β. This is the objective at σ₂."""
    one, two = tiny("sigma_vae", sigma=0.5), tiny("sigma_vae", sigma=0.9)
    two.load_state_dict({**one.state_dict(), "sigma": two.sigma})
    x, eps = torch.rand(3, *SHAPE, dtype=torch.float64), inputs(one.noise_dim)[1]
    z, mu, lam = one.sample_latent(x, eps)
    beta = (two.sigma / one.sigma) ** 2
    weighted = one.reconstruction(x, one.decode(z)) + beta * kl_to_standard_normal(mu, lam)
    torch.testing.assert_close(two.energy(x, eps), weighted / beta)


def test_uvb_mean_ignores_the_noise_and_direct_has_no_energy():
    model = tiny("uvb_mean")
    y, eps = inputs(0)
    assert model.noise_dim == 0
    torch.testing.assert_close(model.sample_latent(y, eps)[0], model.encode(y)[0])
    assert not isinstance(tiny("direct"), Energy)
    with pytest.raises(UserError, match="has none"):
        build_objective("elbo_y", tiny("direct"))


def test_gradient_records_no_second_graph_without_grad():
    """Under `no_grad`, `gradient` gives the same numbers. It takes at most two operations more than autograd's derivative."""

    class Counted(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func not in (torch.ops.aten.detach.default, torch.ops.aten.view.default)
            return func(*args, **(kwargs or {}))

    model = tiny("uvb")
    y, eps = inputs(model.noise_dim)
    once = y.clone().requires_grad_()
    with Counted() as first_order:
        (expected,) = torch.autograd.grad(model.energy(once, eps).sum(), once)
    with Counted() as differentiable:
        again = model.gradient(y, eps)
    with Counted() as walking, torch.no_grad():
        gradient = model.gradient(y, eps)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(again, expected, rtol=1e-12, atol=1e-12)
    assert (again.requires_grad, gradient.requires_grad) == (True, False)
    assert walking.count <= first_order.count + 2 < differentiable.count, (walking.count, first_order.count)


def test_freeze_unused_finds_only_constant_biases():
    constant = {"deen": ["model.net.layers.7.bias"], "deen_uvb_encoder": ["model.readout.1.bias"]}
    for name in model_names():
        objective = build_objective(get_model(name).objective, tiny(name))
        unused = freeze_unused(objective, torch.rand(2, *SHAPE, dtype=torch.float64))
        assert unused == constant.get(name, []), name


def test_require_one_energy_an_image_refuses_one_for_a_whole_batch():
    class Summed(Energy):
        def energy(self, y, eps):
            return y.square().sum()

    x = torch.rand(2, *SHAPE)
    with pytest.raises(UserError, match=r"Summed.energy gave shape \(\) for 2 images"):
        require_one_energy_an_image(Summed(1.0), x)
    require_one_energy_an_image(tiny("deen"), x.double())


def test_unknown_models_and_activations_list_the_known_ones():
    with pytest.raises(UserError, match="uvb"):
        get_model("gan")
    with pytest.raises(UserError, match="silu"):
        get_model("uvb").build(SHAPE, TINY, "step", 1.0)


@pytest.mark.parametrize("name", model_names())
def test_latent_energy_encodes_to_its_latent_width(name):
    model = tiny(name)
    y, eps = inputs(model.noise_dim)
    assert model(y, eps).shape == y.shape
    if isinstance(model, LatentEnergy):
        mu, lam = model.encode(y)
        assert mu.shape == lam.shape == (3, TINY.latent)


@pytest.mark.parametrize(("name", "noisy"), [("elbo_y", True), ("elbo_x", False)])
def test_elbo_y_is_the_energy_of_y_and_elbo_x_of_x(name, noisy):
    """Eq. 14 is the energy of y = x + σ noise. Eq. 10 is the energy of x, and ignores the noise. Each image has its weight."""
    model = tiny("vae", sigma=0.8)
    noise, eps = inputs(model.noise_dim)
    x, weight = normal((3, *SHAPE), 0, "clean").double().sigmoid(), torch.tensor([0.5, 0.25, 0.0], dtype=torch.float64)
    seen = x + 0.8 * noise if noisy else x
    expected = (weight * model.energy(seen, eps)).sum()
    torch.testing.assert_close(build_objective(name, model)(x, noise, eps, weight), expected)
