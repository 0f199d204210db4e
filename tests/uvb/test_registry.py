"""What other installed packages bring, by entry points."""

from pathlib import Path

import pytest

from uvb.errors import UserError
from uvb.experiments import experiment_names, get_experiment
from uvb.experiments import registry as experiments
from uvb.models import get_model
from uvb.models import registry as models

MODULE = """
from uvb.experiments import register_experiment
from uvb.models import register_model
from uvb.models.deen import DEEN, PAPER_WIDTHS

for name in ("first_of_two", "second_of_two"):
    register_model(name, widths=PAPER_WIDTHS, match="conv")(DEEN)
    register_experiment(name, default=False)(lambda model, spec, context: None)
"""


def test_one_module_may_bring_several_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point need not be called as what its module registers: a process that has not seen it finds both names."""
    (tmp_path / "two_models_of_a_test.py").write_text(MODULE)
    info = tmp_path / "two_models-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: two-models\nVersion: 1\n")
    point = "mine = two_models_of_a_test\n"
    (info / "entry_points.txt").write_text(f"[uvb.models]\n{point}[uvb.experiments]\n{point}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(models, "_MODELS", dict(models._MODELS))
    monkeypatch.setattr(experiments, "_EXPERIMENTS", dict(experiments._EXPERIMENTS))
    assert get_model("second_of_two").match == "conv"
    assert {"first_of_two", "second_of_two"} <= set(experiment_names())
    assert get_experiment("first_of_two").default is False
    with pytest.raises(UserError, match="unknown model 'third'"):
        get_model("third")
