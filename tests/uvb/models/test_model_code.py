"""Trained weights belong to one version of the code of the model's class and its parents."""

import dataclasses
import importlib.util
import inspect
import sys
import warnings

import pytest

from tests.support.builders import tiny_spec
from uvb.errors import UserError
from uvb.models import Model, code_changed, get_model, model_names
from uvb.models.io import load, save_model
from uvb.models.registry import _SAME_CODE, MODELS
from uvb.plan import Plan
from uvb.training.state import TrainState

FP64 = Plan(precision="fp64")


CODE = """
from torch import nn
from uvb import Energy

class Mine(Energy):
    def __init__(self, shape, widths, activation, sigma):
        super().__init__(sigma)
        self.layer = nn.Linear(64, 1)

    def energy(self, y, eps):
        return self.layer(y.flatten(1)).{what}().sum(1)
"""


def test_load_warns_and_resume_refuses_when_the_code_changed(digits, tmp_path, monkeypatch):
    """A change of comments or layout does not count. After a change of a method, resuming refuses, and loading warns."""
    spec = dataclasses.replace(tiny_spec(digits, "deen"), model="mine")

    def write(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        found = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        module = importlib.util.module_from_spec(found)
        monkeypatch.setitem(sys.modules, name, module)
        found.loader.exec_module(module)
        monkeypatch.setitem(MODELS.known, "mine", Model("mine", module.Mine, spec.widths))

    first = CODE.format(what="square")
    write("mine_1", first)
    before = get_model("mine").code
    state = TrainState.fresh(spec, FP64)
    state.save(tmp_path / "state", FP64)
    save_model(state.averaged, spec, tmp_path / "model")
    second = first.replace("(self, y, eps):", "(\n  self, y, eps):\n        'Said.'\n        # more")
    assert second != first
    write("mine_2", second)
    assert get_model("mine").code == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path / "model")
    TrainState.load(tmp_path / "state", spec, FP64)
    write("mine_3", CODE.format(what="abs"))
    with pytest.warns(UserWarning, match="the code of mine has changed since"):
        load(tmp_path / "model")
    with pytest.raises(UserError, match="the code of mine has changed since the checkpoint"):
        TrainState.load(tmp_path / "state", spec, FP64)


def test_code_hash_is_of_the_class_and_its_parents(monkeypatch):
    """Decorators and the base classes of `uvb` and torch do not count. Without source code there is no hash."""
    codes = {name: get_model(name).code for name in ("uvb", "uvb_mean", "deen", "vae")}
    assert None not in codes.values()
    assert len(set(codes.values())) >= 3
    source = inspect.getsource

    def another(what):
        return source(what) + "    more = 1\n" if what.__name__ == "UVB" else source(what)

    monkeypatch.setattr(inspect, "getsource", another)
    changed = {name for name in codes if dataclasses.replace(get_model(name)).code != codes[name]}
    assert "uvb" in changed
    assert "uvb_mean" in changed
    assert "deen" not in changed
    monkeypatch.setattr(inspect, "getsource", lambda what: "@register(match='hidden')\n" + source(what))
    assert dataclasses.replace(get_model("deen")).code == codes["deen"]
    monkeypatch.setattr(inspect, "getsource", lambda what: "class Half(")
    assert dataclasses.replace(get_model("deen")).code is None
    assert not code_changed("deen", None)


def test_code_changed_accepts_code_that_was_only_rewritten():
    """`_SAME_CODE` maps old hashes to hashes of current models. An old hash counts for its own model, but not for DEEN."""
    now = {get_model(name).code: name for name in model_names()}
    assert set(_SAME_CODE.values()) <= set(now)
    for before, after in _SAME_CODE.items():
        assert not code_changed(now[after], before)
        assert code_changed("deen", before)
