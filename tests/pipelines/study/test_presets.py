"""Presets: a study reads back the options that it wrote."""

import dataclasses
import sys
from pathlib import Path

import pytest

from pipelines.cli import parsed
from pipelines.study.config import StudyConfig
from pipelines.study.presets import preset_text, read_preset
from pipelines.sweep import SweepConfig
from uvb.errors import UserError


@pytest.mark.parametrize(
    "config",
    [
        StudyConfig(),
        StudyConfig(dataset="mnist", sigmas=(0.5, 1.0), seeds=(0, 1), epochs=3, tracking_uri="sqlite:///a.db", use_gpu=True),
        SweepConfig(space="capacity", models=("uvb",)),
    ],
)
def test_preset_comes_back_as_it_was_written(config: StudyConfig, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(preset_text(config))
    assert read_preset(path, type(config)) == config


def test_preset_masks_a_password(tmp_path: Path) -> None:
    assert "secret" not in preset_text(StudyConfig(tracking_uri="postgresql://me:secret@host/db"))


def test_command_line_wins_over_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sigmas: [0.5]\nmodels: [uvb]\nbatch-size: 32\n")
    monkeypatch.setattr(sys, "argv", ["study", "--config", str(path), "--models", "deen"])
    expected = dataclasses.replace(StudyConfig(), sigmas=(0.5,), models=("deen",), batch_size=32)
    assert parsed(StudyConfig, presets=True) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sigma: [0.5]", "no option is called sigma"),
        ("sigmas: many", "sigmas"),
        ("sigmas: [-1.0]", "--sigmas -1: it must be"),
        ("- 1\n- 2", "OPTION: VALUE"),
        ("a: [", "cannot be read"),
        ("epochs: 1\nepochs: 2", "epochs is given twice"),
        ("eval-draws: 1\neval_draws: 2", "eval_draws is given twice"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_preset_refuses_unknown_options_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_preset(path, StudyConfig)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["--config"], ["--config="], ["--config", "a", "--config", "b"]])
def test_command_refuses_a_missing_or_second_preset_in_one_line(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["study", *words])
    with pytest.raises(UserError, match="--config takes one YAML file"):
        parsed(StudyConfig, presets=True)
