"""Models that come with the package."""

import json

import pytest
import torch

import uvb
from uvb.errors import UserError
from uvb.models.pretrained import SHIPPED
from uvb.noise import normal


@pytest.mark.parametrize("name", uvb.pretrained_names())
def test_pretrained_denoises_better_than_the_noise_itself(name: str) -> None:
    """The squared error of x̂(y) is less than half of the squared error of y, which is σ² per pixel."""
    model = uvb.pretrained(name)
    x = torch.zeros(4, *model.spec.data.shape)
    y = x + model.sigma * normal(tuple(x.shape), 0, "test")
    x_hat = model(y, normal((4, model.noise_dim), 0, "test latent"))
    assert (x_hat - x).square().sum() < 0.5 * (y - x).square().sum()
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", uvb.pretrained_names())
def test_pretrained_card_states_its_losses_with_errors(name: str) -> None:
    folder = SHIPPED / name
    assert (folder / "README.md").is_file()
    rows = json.loads((folder / "card.json").read_text())["losses"]
    assert {row["split"] for row in rows} == {"train", "test"}
    assert all(row["loss"] > 0 and row["stderr"] > 0 for row in rows)


def test_pretrained_weights_take_at_most_10_mb_together() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 10_000_000


def test_pretrained_rejects_an_unknown_name_in_one_line() -> None:
    with pytest.raises(UserError, match=r"no shipped model 'mnist-gan'; choose one of: ") as caught:
        uvb.pretrained("mnist-gan")
    assert "\n" not in str(caught.value)
