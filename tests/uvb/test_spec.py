"""RunSpec and Recipe: identity, serialization, schedule, bad values."""

import dataclasses
import json
import math

import pytest

from tests.support.builders import ROOT, tiny_spec
from uvb.errors import UserError
from uvb.spec import RECIPES, Recipe, RunSpec


def test_spec_keeps_its_identity_through_json(digits):
    spec = tiny_spec(digits, recipe=RECIPES["paper"])
    again = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.spec_id == spec.spec_id
    assert math.isinf(again.recipe.clip)


@pytest.mark.parametrize(
    "change",
    [
        {"sigma": 0.5},
        {"seed": 1},
        {"activation": "relu"},
        {"objective": "elbo_y"},
        {"recipe": RECIPES["paper"]},
        {"recipe": RECIPES["muon"]},
    ],
)
def test_spec_id_changes_with_a_field_and_differences_names_the_field(digits, change):
    spec = tiny_spec(digits)
    other = dataclasses.replace(spec, **change)
    assert other.spec_id != spec.spec_id
    assert all(line.split(":")[0].split(".")[0] in change for line in spec.differences(other))  # "recipe.clip: 10.0 != 1.0"
    assert spec.differences(other)
    assert spec.differences(spec) == []


def test_learning_rate_is_constant_or_warms_up_and_decays_to_zero():
    assert {RECIPES["paper"].learning_rate_at(s, 1000) for s in range(1000)} == {1e-4}
    recipe = Recipe("r", epochs=1, learning_rate=2.0, schedule="cosine", warmup=0.1)
    rates = [recipe.learning_rate_at(s, 100) for s in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[55] == pytest.approx(1.0)  # half-way between the end of the warm-up and the end of the training
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_spec_refuses_a_noise_level_that_is_not_positive_and_finite(digits, sigma):
    with pytest.raises(UserError, match="sigma"):
        tiny_spec(digits, sigma=sigma)


def test_spec_id_is_the_same_for_1_and_1_0(digits):
    """People and Parquet columns may write 1 for 1.0."""
    recipe = Recipe("r", epochs=1, learning_rate=1, clip=100, ema=0)
    same = Recipe("r", epochs=1, learning_rate=1.0, clip=100.0, ema=0.0)
    assert tiny_spec(digits, sigma=1, recipe=recipe).spec_id == tiny_spec(digits, sigma=1.0, recipe=same).spec_id


@pytest.mark.parametrize("change", [{"momentum": 0.9}, {"recipe": {"name": "x"}}, {"data": 3}])
def test_spec_of_another_version_is_refused_in_one_line(digits, change):
    with pytest.raises(UserError, match="this version cannot read the stored spec"):
        RunSpec.from_json(tiny_spec(digits).to_json() | change)


def test_spec_id_of_a_committed_training_is_its_folders_name():
    """If a field is added to the spec, the ids of older trainings must stay."""
    folders = [path.parent for path in (ROOT / "results" / "h200" / "models").glob("*/spec.json")]
    assert len(folders) >= 3
    for folder in folders:
        assert RunSpec.from_json(json.loads((folder / "spec.json").read_text())).spec_id == folder.name
