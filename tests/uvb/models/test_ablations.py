"""UVB and DEEN with one part removed or replaced, and the U-Net energy: what each computes, and its parameter count."""

import pytest
import torch

from uvb.models import build_model, get_model
from uvb.models.ablations import UNet, UNetConfig
from uvb.models.capacity import parameters, widths_at
from uvb.models.kl import kl_to_standard_normal
from uvb.spec import RECIPES, DataRef, RunSpec

SHAPE = (1, 14, 14)
NAMES = ("uvb_no_kl", "uvb_no_reconstruction", "deen_uvb_encoder", "unet")


def model_of(name: str, factor: float = 0.125) -> torch.nn.Module:
    data = DataRef("noise", "0" * 16, SHAPE, 100)
    spec = RunSpec(data, name, widths_at(name, SHAPE, factor), 0.8, get_model(name).objective, RECIPES["fast"])
    return build_model(spec).double()


@pytest.mark.parametrize("factor", [0.125, 0.25])
@pytest.mark.parametrize("name", NAMES)
def test_ablation_has_uvbs_capacity(name: str, factor: float) -> None:
    ours, uvb = (parameters(one, SHAPE, widths_at(one, SHAPE, factor)) for one in (name, "uvb"))
    assert abs(ours / uvb - 1) < 0.01


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_uvb_without_kl_has_uvbs_energy_less_its_kl() -> None:
    uvb, without = model_of("uvb"), model_of("uvb_no_kl")
    without.load_state_dict(uvb.state_dict())
    y, eps = drawn(5, *SHAPE), drawn(5, 100)
    mu, lam = uvb.encode(y)
    assert torch.allclose(uvb.energy(y, eps) - without.energy(y, eps), kl_to_standard_normal(mu, lam))


def test_uvb_without_reconstruction_is_the_kl_of_its_encoders() -> None:
    model, y = model_of("uvb_no_reconstruction"), drawn(5, *SHAPE)
    expected = kl_to_standard_normal(model.encoder_mu(y), model.encoder_lambda(y))
    assert torch.equal(model.energy(y, drawn(5, 0)), expected)
    assert not any("decoder" in name for name, _ in model.named_parameters())


def test_deen_with_uvbs_encoder_reads_out_a_number_for_each_image() -> None:
    model, y = model_of("deen_uvb_encoder"), drawn(5, *SHAPE)
    assert model.energy(y, drawn(5, 0)).shape == (5,)
    assert model.encoder.layers[0].weight.shape[0] == 4  # an eighth of the paper's 32


def test_unet_energy_vanishes_where_the_network_gives_the_image_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, y = model_of("unet"), drawn(5, *SHAPE)
    monkeypatch.setattr(model.g, "forward", lambda image: image)
    assert torch.equal(model.energy(y, drawn(5, 0)), torch.zeros(5, dtype=torch.float64))
    monkeypatch.setattr(model.g, "forward", torch.zeros_like)
    assert torch.allclose(model.energy(y, drawn(5, 0)), y.square().flatten(1).sum(1) / (2 * 0.8**2))


@pytest.mark.parametrize("side", [8, 13, 14, 28])
def test_unet_keeps_the_images_shape(side: int) -> None:
    net = UNet((3, side, side), UNetConfig((2, 3, 4), 5), "silu")
    assert net(torch.zeros(2, 3, side, side)).shape == (2, 3, side, side)
