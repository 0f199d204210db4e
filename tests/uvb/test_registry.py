"""Registries find what this project registers, and what other installed packages register by entry points."""

from pathlib import Path

import pytest
import torch

from uvb.data import load_dataset
from uvb.errors import UserError
from uvb.experiments import experiment_names, get_experiment
from uvb.experiments.registry import EXPERIMENTS
from uvb.models import build_model, get_model, model_names
from uvb.models.registry import MODELS
from uvb.registry import Registry
from uvb.spec import DataRef, Recipe, RunSpec, Widths
from uvb.training.objectives import OBJECTIVES, build_objective

MODULE = """
from uvb.experiments import register_experiment
from uvb.models import register_model
from uvb.models.deen import DEEN, PAPER_WIDTHS

for name in ("first_of_two", "second_of_two"):
    register_model(name, widths=PAPER_WIDTHS, match=("conv", "hidden"))(DEEN)
    register_experiment(name, default=False)(lambda model, spec, context: None)
"""


def install(folder: Path, package: str, module: str, text: str, **points: str) -> None:
    """Lay out an installed package in `folder`: one module, and an entry point in each group of `points`."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{package}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (info / "entry_points.txt").write_text("".join(f"[{group}]\n{point}\n" for group, point in points.items()))


def test_registry_finds_all_names_that_one_plugin_module_registers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point is called `mine`, and its module registers two other names. The registry finds both."""
    point = "mine = two_models_of_a_test"
    groups = {"uvb.models": point, "uvb.experiments": point}
    install(tmp_path, "two-models", "two_models_of_a_test", MODULE, **groups)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(MODELS, "known", dict(MODELS.known))
    monkeypatch.setattr(EXPERIMENTS, "known", dict(EXPERIMENTS.known))
    assert "mine" in model_names()
    assert get_model("second_of_two").match == ("conv", "hidden")
    assert {"first_of_two", "second_of_two"} <= set(model_names())
    assert "mine" not in model_names(), "the module is loaded, and it registers no model of this name"
    assert {"first_of_two", "second_of_two"} <= set(experiment_names())
    assert get_experiment("first_of_two").default is False
    with pytest.raises(UserError, match=r"unknown model 'third'; choose one of: .*second_of_two") as caught:
        get_model("third")
    assert "mine" not in str(caught.value)
    with pytest.raises(UserError, match=r"'mine': entry point .* registers no model of this name; .*second_of_two"):
        get_model("mine")


OBJECTIVE = """
from uvb.training.objectives import Denoise, register_objective

@register_objective("twice")
class Twice(Denoise):
    def per_image(self, x, noise, eps):
        return 2 * super().per_image(x, noise, eps)
"""


def test_objective_of_another_package_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "twice", "objective_of_a_test", OBJECTIVE, **{"uvb.objectives": "twice = objective_of_a_test"})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(OBJECTIVES, "known", dict(OBJECTIVES.known))
    shape = (1, 8, 8)
    widths = Widths(conv=(2, 2, 2), hidden=4)
    model = build_model(RunSpec(DataRef("random", "0" * 64, shape, 2), "deen", widths, 1.0, "twice", Recipe("test", epochs=1)))
    x, noise, eps, weight = torch.full((2, *shape), 0.5), torch.ones(2, *shape), torch.zeros(2, 0), torch.full((2,), 0.5)
    once, twice = (build_objective(name, model)(x, noise, eps, weight) for name in ("denoise", "twice"))
    torch.testing.assert_close(twice, 2 * once)
    with pytest.raises(UserError, match="unknown objective 'thrice'; choose one of: denoise, elbo_x, elbo_y, twice"):
        build_objective("thrice", model)


def test_registry_lists_its_names_and_says_whose_plugin_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hats: Registry[int] = Registry("hat", "uvb.hats")
    hats.add("bowler", 1)
    assert hats.get("bowler") == 1
    with pytest.raises(UserError, match=r"^unknown hat 'top'; choose one of: bowler$"):
        hats.get("top")
    install(tmp_path, "hatter", "hats_of_a_test", "raise RuntimeError('no\\nfelt')", **{"uvb.hats": "top = hats_of_a_test"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert hats.names() == ["bowler", "top"]
    with pytest.raises(UserError, match=r"^'top': entry point .* \(RuntimeError: no felt\); mend or uninstall hatter$"):
        hats.get("top")


def test_registry_names_the_entry_point_whose_module_does_not_register_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hats: Registry[int] = Registry("hat", "uvb.hats")
    hats.add("bowler", 1)
    groups = {"uvb.hats": "top = nothing_of_a_test", "uvb.datasets": "plain = nothing_of_a_test"}
    install(tmp_path, "hatter", "nothing_of_a_test", "", **groups)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = r"^'{}': entry point 'nothing_of_a_test' registers no {} of this name; mend hatter, or choose one of: .*{}"
    with pytest.raises(UserError, match=said.format("top", "hat", "bowler$")):
        hats.get("top")
    with pytest.raises(UserError, match=said.format("plain", "data set", "digits")):
        load_dataset("plain")
