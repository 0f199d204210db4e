"""The spaces for the paper's remarks and questions: what they vary, and what they leave the same."""

import dataclasses
import math

import pytest

from tune_spaces import Base, get_space, space_names
from uvb.data import ImageSet
from uvb.models import build_model, get_model, model_names
from uvb.models.capacity import parameters
from uvb.noise import normal
from uvb.spec import RECIPES, DataRef, RunSpec
from uvb.training.objectives import build_objective, freeze_unused


@pytest.fixture
def base(digits: ImageSet) -> Base:
    data = DataRef(digits.name, digits.checksum, digits.shape, 1500)
    return Base(data, ("uvb", "deen"), (0.5, 1.0), (0, 1), RECIPES["fast"])


def specs_of(name: str, base: Base) -> list[RunSpec]:
    specs = get_space(name).specs(base)
    assert len({spec.spec_id for spec in specs}) == len(specs)
    assert {spec.sigma for spec in specs} == {1.0}
    assert {spec.seed for spec in specs} == {0, 1}
    return specs


def test_train_size_varies_the_images_with_equal_steps(base: Base) -> None:
    specs = specs_of("train_size", base)
    assert sorted({s.data.train_images for s in specs}) == [188, 375, 750, 1500]
    steps = {s.data.train_images: s.recipe.epochs * math.ceil(s.data.train_images / s.recipe.batch_size) for s in specs}
    assert all(abs(count / steps[1500] - 1) <= 0.01 for count in steps.values())
    assert {s.model for s in specs} == {"uvb", "deen"}
    whole = [s for s in specs if s.data.train_images == 1500]
    assert all(s == base.spec(s.model, seed=s.seed) for s in whole)  # a study on all images shares these trainings


def test_remark4_and_questions_change_only_the_model(base: Base) -> None:
    for name in ("remark4", "questions"):
        specs = specs_of(name, base)
        assert "uvb" in {s.model for s in specs}
        for spec in specs:
            assert spec == base.spec(spec.model, seed=spec.seed)
    for model, scale in (("uvb_laplace", 1.0), ("uvb_laplace_matched", 1 / math.sqrt(2))):
        built = get_model(model).build((1, 8, 8), base.spec(model).widths, "silu", 1.0)
        assert built.scale_over_sigma == scale


def test_questions_has_matched_capacity(base: Base) -> None:
    specs = specs_of("questions", base)
    counts = {s.model: parameters(s.model, s.data.shape, s.widths) for s in specs}
    assert len(counts) == 5
    assert all(abs(count / counts["uvb"] - 1) <= 0.01 for count in counts.values())


def test_sec311_uses_the_papers_optimizer(base: Base) -> None:
    specs = specs_of("sec311", base)
    settings = {(s.model, s.recipe.learning_rate, s.recipe.batch_size) for s in specs}
    assert settings == {(m, r, b) for m in ("uvb", "deen") for r in (1e-4, 1e-3) for b in (32, 64, 128)}
    of_paper = dataclasses.replace(RECIPES["paper"], epochs=base.recipe.epochs)
    for spec in specs:
        changed = dataclasses.replace(
            of_paper, name=spec.recipe.name, learning_rate=spec.recipe.learning_rate, batch_size=spec.recipe.batch_size
        )
        assert spec.recipe == changed
    # Tables show only the recipe's name and the batch size, so each rate must have its own name.
    assert len({(s.model, s.recipe.name, s.recipe.batch_size) for s in specs}) == len(settings)


def test_every_space_trains_a_step_with_finite_gradients(digits: ImageSet) -> None:
    """At full width the gradients of every network, activation and objective are finite. Only frozen parameters have none."""
    data = DataRef(digits.name, digits.checksum, digits.shape, 4)
    base = Base(data, ("uvb", "deen"), (1.0,), (0,), RECIPES["fast"])
    kinds = {(s.model, s.widths, s.activation, s.objective): s for name in space_names() for s in get_space(name).specs(base)}
    specs = [*kinds.values(), *(base.spec(model) for model in model_names())]
    assert len(specs) > 20
    x = digits.to_unit(digits.train[:4])
    noise = normal(tuple(x.shape), 0, "noise")
    for spec in specs:
        model = build_model(spec)
        objective = build_objective(spec.objective, model)
        idle = freeze_unused(objective, x)
        loss = objective(x, noise, normal((4, model.noise_dim), 0, "eps"), x.new_full((4,), 0.25))
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        assert bool(loss.isfinite()), spec.label
        assert all(g is None or bool(g.isfinite().all()) for g in gradients.values()), spec.label
        assert sum(g is None for g in gradients.values()) == len(idle) <= 4, spec.label
