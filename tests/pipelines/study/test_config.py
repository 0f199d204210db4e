"""The configuration of a study: what it refuses, and which specs it makes."""

import pytest

from pipelines.study.config import StudyConfig
from pipelines.study.specs import build_recipe, build_specs, chosen_experiments
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models.capacity import parameters


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sigmas": (0.5, 0.0)}, "--sigmas 0: "),
        ({"sigmas": ()}, "--sigmas"),
        ({"models": ()}, "--models"),
        ({"num_workers": -1}, "--num-workers -1"),
        ({"eval_draws": 0}, "--eval-draws 0"),
        ({"scale": 1.5}, "--scale 1.5"),
        ({"eval_images": 1}, "--eval-images 1: .*an error bar needs 2"),
        ({"eval_test_images": 1}, "--eval-test-images 1: .*an error bar needs 2"),
        ({"study": "a/b"}, "plain name"),
        ({"study": "a%20b"}, "plain name"),
        ({"study": "mine's"}, "plain name"),
    ],
)
def test_config_refuses_in_one_line(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        StudyConfig(**wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"models": ("uvv",)}, "unknown model 'uvv'"),
        ({"activation": "tanh"}, "unknown activation 'tanh'"),
        ({"recipe": "slow"}, "unknown recipe 'slow'"),
        ({"train_images": 1501}, "1501: digits has 1500"),
        ({"epochs": 0}, "--epochs 0: "),
    ],
)
def test_specs_refuse_in_one_line(digits: ImageSet, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_specs(StudyConfig(**wrong), digits)


def test_default_study_is_the_papers_comparison(digits: ImageSet) -> None:
    specs = build_specs(StudyConfig(), digits)
    assert len(specs) == len({s.spec_id for s in specs}) == 2 * 8 + 1
    assert [(s.sigma, s.objective) for s in specs if s.model == "vae"] == [(1.0, "elbo_y")]
    counts = {m: parameters(m, digits.shape, next(s.widths for s in specs if s.model == m)) for m in ("uvb", "deen", "vae")}
    assert abs(counts["deen"] / counts["uvb"] - 1) <= 0.01
    assert counts["vae"] == counts["uvb"]


def test_recipe_takes_changes_and_seeds_multiply(digits: ImageSet) -> None:
    config = StudyConfig(epochs=3, batch_size=50, learning_rate=0.1, seeds=(0, 1), sigmas=(0.5,))
    recipe = build_recipe(config)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (3, 50, 0.1)
    assert len(build_specs(config, digits)) == 2 * 3


def test_chosen_experiments_takes_names_and_sets() -> None:
    assert "losses" in chosen_experiments(StudyConfig())
    assert chosen_experiments(StudyConfig(experiments=("losses", "losses"))) == ["losses"]
    assert set(chosen_experiments(StudyConfig())) <= set(chosen_experiments(StudyConfig(experiments=("all",))))
    with pytest.raises(UserError, match="unknown experiment"):
        chosen_experiments(StudyConfig(experiments=("nothing",)))
