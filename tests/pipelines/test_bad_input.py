"""A command answers each mistake of a user by one line and exit code 2, before it writes or starts anything."""

import dataclasses
import re
import sys

import numpy as np
import pytest
from PIL import Image

from pipelines import denoise, restore, sample
from pipelines.cli import command
from pipelines.full_study import full_study
from pipelines.study.config import StudyConfig
from pipelines.sweep import SweepConfig, sweep
from tests.support.builders import tiny_spec
from uvb.errors import UserError
from uvb.machine import usable_cpus
from uvb.models import build_model
from uvb.models.io import save_model
from uvb.models.registry import get_model
from uvb.spec import DataRef

COMMANDS = {
    "full_study": (StudyConfig, full_study),
    "sweep": (SweepConfig, sweep),
    "sample": (sample.Sample, sample.sample),
    "denoise": (denoise.Denoise, denoise.denoise),
    "restore": (restore.Restore, restore.restore),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with damaged data, and with a file where a command expects a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 cut off")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    (tmp_path / "good").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "good" / "mine.png")
    (tmp_path / "file").write_text("in the way")
    np.savez(tmp_path / "nan.npz", images=np.full((4, 8, 8), np.nan, np.float32))
    np.save(tmp_path / "clean.npy", np.zeros((1, 1, 8, 8), np.float32))
    return tmp_path


def refused(place, monkeypatch, capsys, name: str, *arguments: str) -> str:
    """Run a command that must fail with one line and write nothing. Return the line."""
    before = sorted(place.rglob("*"))
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as end:
        command(*COMMANDS[name])
    line = capsys.readouterr().err
    assert end.value.code == 2, line
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert sorted(place.rglob("*")) == before
    return line


STUDY = {
    "--dataset nowhere": r"no data set 'nowhere'.*digits",
    "--dataset bad.npz": "bad.npz.*damaged",
    "--dataset bad.parquet": "bad.parquet.*damaged",
    "--dataset pictures": "number of images: 1; at least four are needed",
    "--dataset empty": "no images .*; give a folder of pictures",
    "--dataset nan.npz": "NaN",
    "--models uvb nonesuch": r"unknown model 'nonesuch'; choose one of: .*deen",
    "--models --extra-models": "no model asked for",
    "--models": "no model asked for",
    "--sigms 1.0": r"Unrecognized options: --sigms, 1\.0; Perhaps you meant: --sigmas",
    "--precision fp8": r"invalid choice 'fp8' for argument '--precision'. Expected one of \('auto', 'fp32', 'bf16', 'fp64'\)",
    "--epochs few": r"Error parsing --epochs: .*'few'.*--help",
    "--sigmas 0": "--sigmas 0: it must be from 0.0001 to 10,000, where pixels are in",
    "--sigmas 0.5 -1": "--sigmas -1: ",
    "--sigmas nan": "--sigmas nan: ",
    "--sigmas": "no noise level asked for",
    "--seeds": "no seed asked for",
    "--activation step": "unknown activation 'step'; choose one of: .*silu",
    "--recipe quick": "unknown recipe 'quick'; choose one of: .*fast",
    "--experiments tea": "unknown experiment 'tea'; choose",
    "--epochs 0": "--epochs 0: it must be from 1 to 1,000,000",
    "--batch-size -1": "--batch-size -1: ",
    "--batch-size 6000": "--batch-size 6000: there are 1500 training images; choose at most 1500",
    "--learning-rate nan": "--learning-rate nan: ",
    "--train-images 99999": r"digits has 1500; choose 2 to 1500",
    "--num-workers 999": rf"asked for 999 workers.*ask for at most {usable_cpus()} \(--num-workers\)",
    "--num-workers -1": "--num-workers -1: it must be from 0 to 10,000",
    "--cpus-per-worker 999": "asked for",
    "--scale 2": "--scale 2: it must be from 0.001 to 1",
    "--eval-draws 0": "--eval-draws 0",
    "--study a/b": "it must be a plain name",
    "--study a\nb": r"study 'a\\nb': it must be a plain name",
    "--address 127.0.0.1:9": "no Ray cluster answers at 127.0.0.1:9",
    "--address nowhere.invalid:6379": "no Ray cluster answers at nowhere.invalid:6379",
    "--storage file/studies": r"cannot write .*file/studies.*choose another",
    "--storage ": "--storage is empty",
    "--storage nope://x": "cannot open nope://",
    "--tracking-uri ftp://x": "cannot use 'ftp://x' as MLflow tracking URI",
    "--tracking-uri sqlite:///file/mlflow.db": "cannot write the MLflow store .*choose another --tracking-uri",
    "--label-column y": "label_column: only for your own images",
    "--width 50": r"uvb .*needs at least [\d,.]+ GB.*, but this machine has [\d,.]+ GB: choose a smaller --width",
    "--address auto": "no running Ray cluster was found",
}


@pytest.mark.parametrize("arguments", STUDY)
def test_full_study_refuses_in_one_line(arguments, place, monkeypatch, capsys):
    if arguments == "--address auto":
        monkeypatch.setattr("pipelines.cluster.compat.read_ray_address", lambda _: None)
    storage = () if "--storage" in arguments else ("--storage", "outputs")
    # Other models would first be matched to UVB in size.
    one_model = () if "--models" in arguments else ("--models", "uvb", "--extra-models")
    line = refused(place, monkeypatch, capsys, "full_study", *arguments.split(" "), *storage, *one_model)
    assert re.search(STUDY[arguments], line), line


def test_sweep_refuses_an_unknown_space(place, monkeypatch, capsys):
    assert "unknown space 'outer'; choose one of: " in refused(place, monkeypatch, capsys, "sweep", "--space", "outer")


def test_sample_and_denoise_refuse_in_one_line(place, monkeypatch, capsys, digits):
    spec = tiny_spec(digits, "direct")
    direct = str(save_model(build_model(spec), spec, place / "model"))
    energy = str(save_model(build_model(tiny_spec(digits)), tiny_spec(digits), place / "energy"))
    damaged = save_model(build_model(spec), spec, place / "damaged")
    (damaged / "model.safetensors").write_bytes(b"cut off")
    wrong = {
        ("sample", "empty"): "empty holds no trained model",
        ("sample", "damaged"): "the weights in damaged cannot be loaded",
        ("sample", direct): "without an energy",
        ("sample", direct, "--jumps", "0"): "--jumps 0: it must be from 1 to 1,000,000",
        ("sample", direct, "--device", "mps"): "invalid choice 'mps' for argument '--device'",
        ("sample", direct, "--device", "cuda"): "device cuda: this machine shows no CUDA device; choose another",
        ("sample", energy, "--chains", "1000000", "--jumps", "1000000"): r"need at least 512,\d+ GB, .* has \d+ GB",
        ("denoise", direct, "nowhere.png"): "no picture there",
        ("denoise", direct, "pictures"): "not an image that can be read",
        ("denoise", direct, "clean.npy", "--jumps", "0"): "--jumps 0: it must be from 1 to 1,000,000",
        ("denoise", direct, "clean.npy", "--out", "file/out"): "cannot write into file/out: .*choose another --out",
    }
    for arguments, message in wrong.items():
        line = refused(place, monkeypatch, capsys, *arguments)
        assert re.search(message, line), line


def test_denoise_and_restore_overwrite_no_input(place, monkeypatch, capsys, digits):
    """Without --out, the results go to the folders `denoised` and `restored`, where the inputs may be."""
    spec = tiny_spec(digits)
    wide = dataclasses.replace(spec, data=DataRef("many", "0" * 16, (2, 8, 8), 10))  # its images cannot be drawn
    model, many = (str(save_model(build_model(each), each, place / each.spec_id)) for each in (spec, wide))
    for folder in ("denoised", "restored"):
        (place / folder).mkdir()
        Image.new("L", (8, 8)).save(place / folder / "overview.png")
    np.savez(place / "denoised" / "denoised.npz", np.zeros((1, 2, 8, 8), np.float32))
    np.savez(place / "restored" / "restored.npz", np.zeros((1, 1, 8, 8), np.float32))
    (place / "good" / "linked.png").symlink_to(place / "restored" / "overview.png")
    (place / "link").symlink_to(place / "good")
    wrong = {
        ("denoise", model, "good/mine.png", "--out", "good"): "good/mine.png",
        ("denoise", model, "good", "--out", "link"): "link/linked.png",
        ("denoise", many, "denoised/denoised.npz"): "denoised/denoised.npz",
        ("restore", model, "restored/restored.npz"): "restored/restored.npz",
        ("restore", model, "restored"): "restored/overview.png",
        ("restore", model, "good"): "restored/overview.png",
    }
    for arguments, file in wrong.items():
        line = refused(place, monkeypatch, capsys, *arguments)
        assert line == f"error: {file} is an input and would be overwritten; choose another --out\n"


def test_get_model_names_a_plug_in_that_cannot_be_imported(tmp_path, monkeypatch):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uvb.models]\nhalf_done = half_done_model_of_a_test\n")
    (tmp_path / "half_done_model_of_a_test.py").write_text("raise RuntimeError('not\\nyet')\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = r"^'half_done': entry point .* cannot be loaded \(RuntimeError: not yet\); mend or"
    with pytest.raises(UserError, match=line) as caught:
        get_model("half_done")
    assert "\n" not in str(caught.value)
