"""sample.py and denoise.py on a small model, keep.py and report.py on a study."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.denoise import Denoise, denoise
from pipelines.keep import Keep, keep
from pipelines.reporting.page import build_report
from pipelines.reporting.pictures import grid, put, to_pil
from pipelines.sample import Sample, sample
from tests.support import fake_study
from tests.support.builders import tiny_spec
from uvb.data.readers.pictures import read_pictures
from uvb.errors import UserError
from uvb.models import build_model
from uvb.models.io import save_model
from uvb.sampling.walk_jump import walk_at
from uvb.spec import DataRef


@pytest.fixture
def model(digits, tmp_path):
    spec = tiny_spec(digits)
    return str(save_model(build_model(spec), spec, tmp_path / "model"))


def test_sample_writes_pictures_that_its_seed_decides(model, tmp_path):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample(Sample(model, chains=2, jumps=3, steps_between_jumps=2, seed=seed, out=tmp_path / out))
    a, b, c = (np.load(tmp_path / out / "samples.npz")["jumps"] for out in "abc")
    assert a.shape == (3, 2, 1, 8, 8)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    with Image.open(tmp_path / "a" / "walk.gif") as animation:
        assert animation.n_frames == 3


def test_sample_tells_its_progress_in_a_pipe(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.executor.walking.LINE_SECONDS", 0.0)
    sample(Sample(model, chains=2, jumps=3, steps_between_jumps=2, out=tmp_path / "walk"))
    assert "1 of 3 jumps\n2 of 3 jumps\n3 of 3 jumps\n" in capsys.readouterr().out


@pytest.mark.parametrize(("channels", "pictures"), [(1, True), (2, False), (3, True), (5, False)])
def test_sample_writes_arrays_for_any_number_of_channels(channels, pictures, digits, tmp_path, capsys):
    shape = (channels, 8, 8)
    spec = dataclasses.replace(tiny_spec(digits), data=DataRef("many", "0" * 16, shape, 10))
    folder = str(save_model(build_model(spec), spec, tmp_path / "model"))
    np.save(tmp_path / "own.npy", np.zeros((2, *shape), np.float32))
    sample(Sample(folder, chains=2, jumps=3, steps_between_jumps=1, out=tmp_path / "walk"))
    denoise(Denoise(folder, tmp_path / "own.npy", out=tmp_path / "clean"))
    assert np.load(tmp_path / "walk" / "samples.npz")["jumps"].shape == (3, 2, *shape)
    assert len(list(tmp_path.glob("walk/*.*"))) == (4 if pictures else 1)
    assert (tmp_path / "clean" / "0001.png").exists() == pictures
    if not pictures:
        assert np.load(tmp_path / "clean" / "denoised.npz")["images"].shape == (2, *shape)
        line = f"no pictures are drawn: these images have {channels} channels, and only images of 1 or 3 can be drawn\n"
        assert capsys.readouterr().out.count(line) == 2


def test_denoise_resizes_cleans_and_writes_pictures(model, tmp_path, capsys):
    folder = tmp_path / "own"
    folder.mkdir()
    Image.new("RGB", (40, 30), (255, 255, 255)).save(folder / "white.png")
    Image.new("L", (8, 8), 0).save(folder / "black.png")
    images, names = read_pictures(folder, (1, 8, 8), sigma=1.0)
    assert names == ["black", "white"]
    torch.testing.assert_close(images, torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]))
    denoise(Denoise(model, folder, add_noise=True, out=tmp_path / "out"))
    assert Image.open(tmp_path / "out" / "white.png").size == (8, 8)
    overview = np.asarray(Image.open(tmp_path / "out" / "overview.png"))
    zoom = overview.shape[1] // 17
    assert overview.shape == (26 * zoom, 17 * zoom)  # three rows and two columns of 8×8, one pixel apart
    assert "its rows: clean, noisy, denoised\n" in capsys.readouterr().out
    assert (overview[0, 0], overview[0, -1]) == (0, 255)  # the first row is clean: black, then white
    assert zoom >= 7


def test_denoise_takes_arrays_without_a_channel_axis(model, tmp_path):
    """The .npz of a data set may also lack the channel axis."""
    for name, shape in (("flat", (2, 8, 8)), ("whole", (2, 1, 8, 8))):
        np.save(tmp_path / f"{name}.npy", np.linspace(0, 1, 128, dtype=np.float32).reshape(shape))
        denoise(Denoise(model, tmp_path / f"{name}.npy", out=tmp_path / name))
    assert (tmp_path / "flat" / "0001.png").read_bytes() == (tmp_path / "whole" / "0001.png").read_bytes()


def test_denoise_refuses_other_files_and_shapes_in_one_line(model, tmp_path):
    (tmp_path / "x.png").write_text("not a picture")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 8, 8), dtype=np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, 1, 8, 8), np.nan, dtype=np.float32))
    wrong = {"x.png": "not an image", "x.npy": "this model takes", "nan.npy": "NaN", "no.png": "no picture"}
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message):
            denoise(Denoise(model, tmp_path / name, out=tmp_path / "out"))
    with pytest.raises(UserError, match="no trained model"):
        sample(Sample(str(tmp_path), out=tmp_path / "out"))


@pytest.mark.parametrize("names", [("a.png", "a.jpg"), ("overview.png", "b.png")])
def test_denoise_refuses_to_write_two_pictures_to_one_file(model, tmp_path, names):
    (tmp_path / "in").mkdir()
    for name in names:
        Image.new("L", (8, 8)).save(tmp_path / "in" / name)
    with pytest.raises(UserError, match="several files would be written as"):
        denoise(Denoise(model, tmp_path / "in", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_grid_keeps_every_pixel_in_its_place():
    images = torch.arange(3 * 4, dtype=torch.float32).reshape(3, 1, 2, 2) / 12
    sheet = grid(images, columns=2)
    assert sheet.shape == (1, 5, 5)
    assert torch.equal(sheet[0, 3:, :2], images[2, 0])
    assert to_pil(sheet, zoom=3).size == (15, 15)


def test_walk_takes_step_sizes_in_units_of_the_noise():
    """The paper has δ = 0.2 at σ = 1. BAOAB's friction is a rate, so it is 1/σ."""
    assert (walk_at(1.0).delta, walk_at(0.5).delta) == (0.2, 0.1)
    underdamped = walk_at(0.5, sampler="baoab", jumps=3)
    assert (underdamped.delta, underdamped.settings, underdamped.jumps) == (0.25, {"friction": 2.0}, 3)
    assert walk_at(0.5, delta=0.3).delta == 0.3


def test_keep_copies_a_study_without_weights(tmp_path):
    study = fake_study.make(tmp_path / "digits")
    with pytest.raises(UserError, match=r"no tables, figures, report\.html yet"):
        keep(Keep(study, tmp_path / "results"))
    build_report(study)
    kept = tmp_path / "results" / "digits-full"
    keep(Keep(study, tmp_path / "results"))
    (kept / "README.md").write_text("What was found")
    (kept / "old.txt").write_text("from an older copy")
    keep(Keep(study, tmp_path / "results"))
    assert (kept / "README.md").read_text() == "What was found"
    folders = {"tables", "tasks", "models", "figures"}
    assert {p.name for p in kept.iterdir()} == {*folders, "README.md", "report.html", "study.json", "timings.json"}
    assert (kept / "tables" / "losses.parquet").read_bytes() == (study / "tables" / "losses.parquet").read_bytes()
    numbers = {p.relative_to(study) for p in study.glob("tasks/*/*/result.json")}
    assert numbers
    assert {p.relative_to(kept) for p in kept.glob("tasks/**/*") if p.is_file()} == numbers
    assert not list(kept.rglob("*.safetensors"))
    with pytest.raises(UserError, match="not a study"):
        keep(Keep(tmp_path, tmp_path / "results"))


def test_report_redraws_a_kept_study(tmp_path):
    """The new report has the same tables, headline and figures. Figures that need arrays keep the old drawing."""
    study = fake_study.make(tmp_path / "digits")
    before = build_report(study).read_text()
    keep(Keep(study, tmp_path / "results"))
    kept = tmp_path / "results" / "digits-full"
    tables = {p.name: p.read_bytes() for p in (kept / "tables").iterdir()}
    again = build_report(kept).read_text()
    assert {p.name: p.read_bytes() for p in (kept / "tables").iterdir()} == tables
    assert {p.name for p in (kept / "figures").iterdir()} == {p.name for p in (study / "figures").iterdir()}
    for part in (r'<p class="says">.*?</p>', r"<table.*?</table>", r"<figcaption>.*?</figcaption>"):
        parts = sorted(re.findall(part, before, re.S))
        assert parts
        assert sorted(re.findall(part, again, re.S)) == parts
    assert again.count('role="img"') == before.count('role="img"')


@pytest.mark.parametrize("name", ["../outside", "/etc/x", "..", "a/b"])
def test_keep_refuses_a_name_that_leads_out_of_its_folder(tmp_path, name):
    study = fake_study.make(tmp_path / "outputs" / "digits", experiments=False)
    build_report(study)
    blob = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps(blob | {"name": name}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"must be a plain name, .*; correct it in .*study\.json"):
        keep(Keep(study, tmp_path / "results"))
    assert sorted(tmp_path.rglob("*")) == before


def test_keep_replaces_nothing_but_an_older_copy(tmp_path):
    """keep.py refuses a folder that overlaps the study. It replaces no other study and no other folder of the same name."""
    study = fake_study.make(tmp_path / "outputs" / "digits-full", experiments=False)
    build_report(study)
    before = sorted(study.rglob("*"))
    other = fake_study.make(tmp_path / "others" / "digits-full", experiments=False)
    mine = tmp_path / "mine"
    (mine / "digits-full").mkdir(parents=True)
    for out, said in ((study.parent, "overlap"), (study, "overlap"), (other.parent, "not a copy"), (mine, "not a copy")):
        with pytest.raises(UserError, match=said):
            keep(Keep(study, out))
    (tmp_path / "link").symlink_to(study.parent)
    with pytest.raises(UserError, match="overlap"):
        keep(Keep(study, tmp_path / "link"))
    assert sorted(study.rglob("*")) == before
    assert other.exists()


def test_put_leaves_no_half_written_file(tmp_path, capsys):
    def fails(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        put(tmp_path / "walk.png", fails)
    assert list(tmp_path.iterdir()) == []
    put(tmp_path / "walk.png", lambda path: path.write_text("whole"))
    assert capsys.readouterr().out == f"{tmp_path / 'walk.png'}\n"
    assert (tmp_path / "walk.png").read_text() == "whole"
