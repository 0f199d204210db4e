"""TensorBoard and Weights & Biases get the same metrics, steps and numbers as MLflow."""

import json
import sys
from pathlib import Path

import pytest

from pipelines.export import Export, export
from tests.support import fake_study
from uvb.errors import UserError


@pytest.fixture
def study(tmp_path: Path) -> Path:
    for model in ("uvb", "deen"):
        fake_study.add_model(tmp_path / "study", fake_study.spec(model), epochs=3)
    result = {"acceptance": 0.75, "rows": [{"density": "model", "nll": 92.5}]}
    fake_study.write(tmp_path / "study" / "tasks" / "likelihood" / fake_study.spec("uvb").spec_id / "result.json", result)
    return tmp_path / "study"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Metric -> (step, value) of the one event file in `folder`."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.*")
    found: dict[str, list[tuple[int, float]]] = {}
    data = file.read_bytes()
    while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
        data = data[16 + size :]
    return found


def test_tensorboard_has_curves_and_losses_once_after_two_exports(study: Path) -> None:
    for _ in range(2):
        export(Export(study))
    found = scalars(study / "tensorboard" / "uvb_sigma_1")
    curves = json.loads((study / "models" / fake_study.spec("uvb").spec_id / "curves.json").read_text())["rows"]
    assert found["epoch/test_loss"] == [(row["epoch"], pytest.approx(row["test_loss"])) for row in curves]
    stored = json.loads((study / "tasks" / "losses" / fake_study.spec("uvb").spec_id / "result.json").read_text())["rows"]
    (loss,) = (row["loss"] for row in stored if (row["split"], row["estimator"]) == ("test", "energy"))
    assert found["test_loss"] == [(0, pytest.approx(loss))]
    assert {"epoch/kl", "train_loss", "kl_noisy", "parameters"} <= found.keys()
    assert found["likelihood/acceptance"] == [(0, 0.75)]
    assert found["likelihood/nll_model"] == [(0, 92.5)]


def test_tensorboard_has_the_numbers_of_the_study_itself(study: Path) -> None:
    fake_study.add_model(study, fake_study.spec("uvb", 0.5), epochs=3)
    export(Export(study))
    found = scalars(study / "tensorboard" / "study")
    uvb, deen = (scalars(study / "tensorboard" / f"{model}_sigma_1")["test_loss"][0][1] for model in ("uvb", "deen"))
    assert found["test_loss/UVB"] == [(0, pytest.approx(uvb))]
    assert found["difference/UVB-DEEN"] == [(0, pytest.approx(uvb - deen, abs=1e-5))]
    assert [step for step, _ in found["loss_over_sigma/UVB"]] == [50, 100]  # the step is 100 σ
    assert found["loss_over_sigma/UVB"][1][1] == pytest.approx(uvb)


@pytest.mark.slow
def test_wandb_has_offline_runs_once_after_two_exports(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb", reason="the package wandb is not installed")
    for _ in range(2):
        export(Export(study, "wandb"))
    runs = sorted(path.name.rpartition("-")[2] for path in (study / "wandb" / "wandb").glob("offline-run-*"))
    assert runs == sorted(["study", *(fake_study.spec(model).spec_id for model in ("uvb", "deen"))])
    assert "2 trainings for wandb" in capsys.readouterr().out


def test_export_says_in_one_line_that_wandb_is_not_installed(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="not installed: pip install wandb"):
        export(Export(study, "wandb"))
