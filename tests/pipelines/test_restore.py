"""restore.py on a small model: the files it writes, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.restore import Restore, restore
from tests.support.builders import tiny_spec
from uvb.data import ImageSet
from uvb.errors import UserError
from uvb.models import build_model
from uvb.models.io import save_model


@pytest.fixture
def model(digits: ImageSet, tmp_path: Path) -> str:
    spec = tiny_spec(digits)
    return str(save_model(build_model(spec), spec, tmp_path / "model"))


@pytest.fixture
def pictures(digits: ImageSet, tmp_path: Path) -> Path:
    np.save(tmp_path / "own.npy", digits.to_unit(digits.test[:3]).numpy())
    return tmp_path / "own.npy"


@pytest.mark.parametrize(("task", "side"), [("inpaint", 8), ("enlarge", 4)])
def test_restore_writes_means_spreads_and_measurements(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, side: int
) -> None:
    options = {"chains": 2, "draws": 8, "warm_up": 2, "out": tmp_path / "out"}
    restore(Restore(model, pictures, task, **options))
    found = np.load(tmp_path / "out" / "restored.npz")
    assert found["mean"].shape == found["spread"].shape == (3, 1, 8, 8)
    assert found["measured"].shape == (3, 1, side, side)
    assert (found["spread"] > 0).all()
    assert (tmp_path / "out" / "overview.png").exists()
    assert "split-R̂" in capsys.readouterr().out


def test_restore_of_few_draws_says_that_agreement_is_unknown(
    model: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restore(Restore(model, pictures, chains=1, draws=2, warm_up=1, out=tmp_path / "out"))
    assert "too few draws to tell whether the chains agree" in capsys.readouterr().out
    assert (tmp_path / "out" / "overview.png").exists()


def test_restore_refuses_bad_options_in_one_line(model: str, pictures: Path) -> None:
    for options, line in (({"chains": 0}, "--chains 0"), ({"tau": -1.0}, "--tau -1:")):
        with pytest.raises(UserError, match=line):
            restore(Restore(model, pictures, **options))
