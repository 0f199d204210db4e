"""Muon's step through the Gram matrix equals the usual step."""

import math

import pytest
import torch

from tests.support.builders import tiny_spec
from uvb.errors import UserError
from uvb.models import build_model
from uvb.plan import Plan
from uvb.spec import Recipe
from uvb.training.muon import COEFFICIENTS, STEPS, GramMuon, iterated, orthogonalized, through_gram
from uvb.training.optimizers import build_optimizers
from uvb.training.state import TrainState

MUON = Recipe("m", epochs=1, batch_size=64, learning_rate=1e-2, optimizer="muon_conv")


def random_matrix(rows, columns, dtype, falling=0.0):
    """A random matrix. Its singular values fall by `falling` orders of magnitude."""
    generator = torch.Generator().manual_seed(rows * columns)
    u, _, vh = torch.linalg.svd(torch.randn(rows, columns, generator=generator, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -falling, min(rows, columns), dtype=torch.float64)
    return (u @ torch.diag(values) @ vh).to(dtype)


def quintic(value):
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        value = a * value + b * value**3 + c * value**5
    return value


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16), (20, 24)])
@pytest.mark.parametrize("way", [iterated, through_gram, orthogonalized])
def test_orthogonalized_keeps_singular_vectors_and_maps_values_by_the_quintic(way, shape):
    matrix = random_matrix(*shape, torch.float64, falling=2.0)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    expected = u @ torch.diag(quintic(s / s.norm())) @ vh
    torch.testing.assert_close(way(matrix), expected, rtol=0, atol=1e-10)


def test_orthogonalized_singular_values_are_near_one():
    values = torch.linalg.svdvals(orthogonalized(random_matrix(30, 200, torch.float64, falling=1.5)))
    assert float(values.min()) > 0.65
    assert float(values.max()) < 1.25


def test_orthogonalized_has_no_scale_and_maps_zero_to_zero():
    matrix = random_matrix(6, 30, torch.float64)
    torch.testing.assert_close(orthogonalized(1e4 * matrix), orthogonalized(matrix))
    torch.testing.assert_close(orthogonalized(torch.zeros(3, 9)), torch.zeros(3, 9))


@pytest.mark.parametrize(
    ("shape", "falling", "rounding"), [((50, 15488), 0.0, 2e-6), ((500, 100), 1.0, 4e-6), ((50, 2000), 3.0, 1e-3)]
)
def test_gram_form_equals_direct_iteration_to_float32_rounding(shape, falling, rounding):
    """If singular values fall to a thousandth, the Gram form is less exact, as their squares are near float32's rounding."""
    matrix = random_matrix(*shape, torch.float32, falling=falling)
    apart = (through_gram(matrix) - iterated(matrix)).norm() / iterated(matrix).norm()
    assert float(apart) < rounding


def test_step_of_a_rank_one_gradient_is_known():
    """The only singular value is 1 after division by the norm, so the step is 0.2 lr sqrt(4) quintic(1) u v'."""
    weight = torch.nn.Parameter(torch.zeros(2, 4, dtype=torch.float64))
    weight.grad = torch.tensor([[3.0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    GramMuon([weight], lr=0.1).step()
    expected = torch.zeros(2, 4, dtype=torch.float64)
    expected[0, 0] = -0.2 * 0.1 * math.sqrt(4) * quintic(1.0)
    torch.testing.assert_close(weight.detach(), expected)


def test_convolution_steps_as_its_matrix_of_output_channels():
    torch.manual_seed(0)
    gradient = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    kernel = torch.nn.Parameter(torch.zeros(4, 3, 3, 3, dtype=torch.float64))
    matrix = torch.nn.Parameter(torch.zeros(4, 27, dtype=torch.float64))
    kernel.grad, matrix.grad = gradient, gradient.reshape(4, 27)
    GramMuon([kernel, matrix], lr=0.1).step()
    torch.testing.assert_close(kernel.detach().reshape(4, 27), matrix.detach())


def test_nesterov_momentum_adds_up_over_two_steps():
    """The gradients are parallel, with sizes 1 and 3. So the direction stays, and the buffer is 0.95 * 0.05 * 1 + 0.05 * 3."""
    direction = random_matrix(3, 5, torch.float64)
    weight = torch.nn.Parameter(torch.zeros(3, 5, dtype=torch.float64))
    muon = GramMuon([weight], lr=0.1)
    for size in (1.0, 3.0):
        weight.grad = size * direction
        muon.step()
    torch.testing.assert_close(muon.state[weight]["momentum_buffer"], (0.95 * 0.05 + 0.05 * 3) * direction)
    expected = -2 * 0.2 * 0.1 * math.sqrt(5) * orthogonalized(direction)
    torch.testing.assert_close(weight.detach(), expected)


def test_weight_decay_shrinks_weights_before_the_step():
    weight = torch.nn.Parameter(torch.full((2, 3), 2.0, dtype=torch.float64))
    weight.grad = torch.zeros(2, 3, dtype=torch.float64)
    GramMuon([weight], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 3), 2.0 * 0.95, dtype=torch.float64))


def test_muon_refuses_a_vector():
    with pytest.raises(ValueError, match=r"two axes or more, not one of shape \(3,\)"):
        GramMuon([torch.nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("name", ["uvb", "deen"])
def test_muon_conv_takes_all_matrices_and_convolutions_of_a_model(digits, name):
    model = build_model(tiny_spec(digits, name))
    adam, muon = build_optimizers(model, MUON)
    assert type(muon) is GramMuon
    own = {id(p) for group in muon.param_groups for p in group["params"]}
    others = {id(p) for group in adam.param_groups for p in group["params"]}
    for parameter_name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and len(parameter) > 1  # Adam takes a matrix of one row
        assert (id(parameter) in own) is matrix, parameter_name
        assert (id(parameter) in others) is not matrix, parameter_name


def test_state_of_muon_is_saved_and_loaded_by_name(digits, tmp_path):
    spec = tiny_spec(digits, "uvb", recipe=MUON)
    state = TrainState.fresh(spec, Plan())
    torch.manual_seed(1)
    for optimizer in state.optimizers:
        for parameter in state.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    state.save(tmp_path / "state", Plan())
    loaded = TrainState.load(tmp_path / "state", spec, Plan()).tensors()
    own = state.tensors()
    assert "grammuon.momentum_buffer/decoder.layers.0.weight" in own
    assert own.keys() == loaded.keys()
    assert all(torch.equal(own[name], loaded[name]) for name in own)


def test_spec_without_weight_decay_keeps_its_identity(digits):
    spec = tiny_spec(digits, "uvb")
    assert "weight_decay" not in spec.to_json()["recipe"]
    decaying = tiny_spec(digits, "uvb", recipe=MUON.changed(weight_decay=0.1))
    assert decaying.to_json()["recipe"]["weight_decay"] == 0.1
    assert type(spec).from_json(decaying.to_json()) == decaying


def test_recipe_refuses_weight_decay_where_nothing_decays():
    with pytest.raises(UserError, match="only muon_conv decays weights"):
        Recipe("r", epochs=1, weight_decay=0.1)
    with pytest.raises(UserError, match="must be 0 or more"):
        MUON.changed(weight_decay=-1.0)
