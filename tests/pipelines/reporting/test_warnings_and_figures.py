"""The report's warnings, and the drawing of its figures."""

import base64
import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from pipelines.files.study_files import Model, StudyFiles
from pipelines.reporting.facts import falling
from pipelines.reporting.figures import Drawing, Picture, Study, drawings, loss_over_sigma, nebula, style
from pipelines.reporting.figures.chart import Series, lines
from pipelines.reporting.figures.images import grid_of_images, rows_of_images
from pipelines.reporting.figures.likelihood import EXACT, identity_rows
from pipelines.reporting.figures.svg import to_svg
from pipelines.reporting.figures.walk_jump import _moves, draw_classes, draw_transitions
from pipelines.reporting.page import build_report, draw_all
from pipelines.reporting.tables import build_tables
from tests.support import fake_study
from uvb.data.report import ReadReport, SplitRead
from uvb.errors import UserError


def test_report_warns_of_short_trainings_and_of_models_worse_than_a_constant(tmp_path: Path) -> None:
    """A training was too short if the loss still fell in its last tenth. The constant is the mean image, with loss 4.74."""
    good, short, bad = (fake_study.spec("uvb", sigma) for sigma in (0.5, 0.6, 1.0))
    for spec, epochs, over in ((good, 12, 0.4), (short, 2, 0.4), (bad, 12, 2.0)):
        fake_study.add_model(tmp_path, spec, epochs=epochs, excess=(over, 0.0))
        fake_study.add_reference(tmp_path, spec)
    page = build_report(tmp_path).read_text()
    warnings = re.findall(r'<p class="warning">(.*?)</p>', page)
    assert [w.partition(":")[0] for w in warnings] == [
        "Trained too briefly",
        "Worse than always answering the mean image, by test loss",
    ]
    assert re.findall(r"UVB σ=\S+ by", warnings[0]) == ["UVB σ=0.6 by"]
    assert "UVB at σ = 1.0 (5.25 against 4.74)" in warnings[1]


def test_falling_names_a_model_whose_name_has_a_space() -> None:
    spec = dataclasses.replace(fake_study.spec("uvb", 0.5), model="my_own model", seed=2)
    model = Model(spec, {"epochs": 2}, [{"test_loss": 3.0}, {"test_loss": 2.0}], {})
    assert "(my own model σ=0.5 seed=2 by 50.0 %)" in falling([model])


def test_loss_over_sigma_names_only_the_lines_that_it_draws(tmp_path: Path) -> None:
    """The mean image's loss is 4.74: an axis that ends at 1 does not show it, and an axis that ends at 6 does."""
    for sigma in (0.5, 1.0):
        fake_study.add_model(tmp_path, fake_study.spec("uvb", sigma))
        fake_study.add_reference(tmp_path, fake_study.spec("uvb", sigma))
    losses = Study(StudyFiles(tmp_path), build_tables(tmp_path)).main_losses
    for top, named in ((1.0, False), (6.0, True)):
        chart = loss_over_sigma.draw(losses, "test", domain=(0.0, top))
        assert ("mean image" in json.dumps(chart.spec["layer"], ensure_ascii=False)) is named


def test_report_says_what_was_read_and_what_is_doubtful(tmp_path: Path) -> None:
    fake_study.add_model(tmp_path, fake_study.spec("uvb"))
    splits = tuple(SplitRead(role, "mine/", count, (count,)) for role, count in (("train", 1500), ("test", 297)))
    doubts = ("two classes have the same images",)
    read = ReadReport("mine", "a folder", splits, (1, 8, 8), 255, 0, 255, 0.3, classes=("a",), warnings=doubts)
    fake_study.write(tmp_path / "study.json", {"provenance": {"data": {"name": "mine", "read": read.to_json()}}})
    page = build_report(tmp_path).read_text()
    assert "train: 1,500 images from mine/" in page
    assert '<p class="warning">two classes have the same images</p>' in page
    fake_study.write(tmp_path / "study.json", {"provenance": {"data": {"read": {"source": 3}}}})
    with pytest.raises(UserError, match="its record of what was read is damaged"):
        build_report(tmp_path)


def test_curves_draw_one_epoch_as_a_point(tmp_path: Path) -> None:
    fake_study.add_model(tmp_path, fake_study.spec("deen"), epochs=1)
    study = Study(StudyFiles(tmp_path), build_tables(tmp_path))
    charts = [picture.figure for d in drawings() if d.name == "curves" for picture in d.pictures(study)]
    losses, gap = (chart.spec["data"]["values"] for chart in charts)
    assert (len(losses), len(gap)) == (2, 1)  # test and training loss, and their difference
    points = charts[0].spec["layer"][-1]["encoding"]
    assert 1 in points["strokeOpacity"]["scale"]["range"]


def test_report_says_which_drawing_lacks_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(_: Study) -> Iterator[Picture]:
        yield Picture("whole", "The first.", ElementTree.fromstring("<svg/>"), "a picture")
        raise KeyError("second")

    two = Drawing("two", "Two pictures", "", "losses", 0, pictures)
    fake_study.add_model(tmp_path, fake_study.spec("uvb"))
    monkeypatch.setattr("pipelines.reporting.page.drawings", lambda: [two])
    sections, missing = draw_all(Study(StudyFiles(tmp_path), build_tables(tmp_path)))
    assert [figure.name for section in sections for figure in section.figures] == ["whole"]
    assert missing == ["Two pictures: some of its results could not be drawn (KeyError: 'second')."]


def test_strip_of_a_copy_without_arrays_is_not_drawn_again(tmp_path: Path) -> None:
    """The strip (drawing "legible") needs the arrays of `denoise_rows`. A copy made by keep.py has only their numbers."""
    study = fake_study.make(tmp_path / "digits")
    strip = next(d for d in drawings() if d.name == "legible")
    assert list(strip.pictures(Study(StudyFiles(study), build_tables(study))))
    for arrays in study.glob("tasks/denoise_rows/*/*.safetensors"):
        arrays.unlink()
    assert list(strip.pictures(Study(StudyFiles(study), build_tables(study)))) == []


def test_report_of_a_copy_without_a_strip_begins_with_its_denoised_rows(tmp_path: Path) -> None:
    study = fake_study.make(tmp_path / "digits")
    build_report(study)
    captions = json.loads((study / "figures/captions.json").read_text())
    del captions["captions"]["legible"]
    fake_study.write(study / "figures/captions.json", captions)
    for arrays in study.glob("tasks/*/*/*.safetensors"):
        arrays.unlink()
    for weights in study.glob("models/*/model"):
        shutil.rmtree(weights)
    page = build_report(study).read_text()
    first = re.search(r'<figure id="(denoise_[^"]*)"', page)
    assert first is not None
    assert first.start() < page.index('<h2 id="run">')
    assert "What the models see and answer: no arrays of “denoise_rows”." in page


def test_style_gives_no_two_models_the_same_colour_and_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plug-ins get the spare colours in turn. When a colour comes again, its marker is another one."""
    names = [f"mine_{i}" for i in range(40)]
    monkeypatch.setattr(style, "model_names", lambda: ["uvb", *names])
    style._spare_place.cache_clear()
    looks = {(style.shade(name), style.marker(name)) for name in [*style.KNOWN, *names, "gone"]}
    style._spare_place.cache_clear()
    assert len(looks) == len(style.KNOWN) + 41


def test_walk_jump_draws_the_most_frequent_of_many_classes(tmp_path: Path) -> None:
    counts = np.zeros((2000, 2000), int)
    counts[7, 1999] = counts[1999, 7] = 5
    chart = draw_transitions(counts)
    assert {row["from"] for row in chart.spec["data"]["values"]} == {"7", "1999"}
    few, classes = _moves({"transition": None, "moves": [[7, 1999, 5], [1999, 7, 5]]}) or ((), [])
    assert (few.tolist(), classes) == ([[0, 5], [5, 0]], [7, 1999])
    assert draw_transitions(few, classes).spec["data"] == chart.spec["data"]
    labels = np.random.default_rng(0).integers(0, 2000, (1000, 64))
    rows = draw_classes(labels, 10).spec["data"]["values"]
    assert len(rows) == 8 * 200
    first = {row["step"]: row["class"] for row in rows if row["chain"] == "the first chain"}
    assert first == {10 * (t + 1): labels[t, 0] for t in range(0, 1000, 5)}


@pytest.mark.parametrize("size", [(28, 28), (8, 12)])
def test_images_have_square_pixels(size: tuple[int, int]) -> None:
    images = np.zeros((7, 1, *size), np.float32)
    for drawn in (rows_of_images([("a", images)]), grid_of_images(images, columns=3)):
        for image in drawn.iter("image"):
            data = base64.b64decode(image.get("href", "").partition(",")[2])
            pixels = int.from_bytes(data[16:20], "big") / int.from_bytes(data[20:24], "big")
            assert float(image.get("width", 0)) / float(image.get("height", 1)) == pytest.approx(pixels, rel=1e-4)


def test_flow_of_many_classes_is_drawn_in_bounded_size() -> None:
    """The figure has a row for each image: its class along the gradient flow. If classes change often, few images are drawn."""
    random = np.random.default_rng(0)
    chart = nebula.draw_classes(random.integers(0, 2000, (500, 512)))
    rows = chart.spec["data"]["values"]
    assert 0 < len(rows) <= nebula.SHOWN_STAYS
    assert {row["image"] for row in rows} == {1, 2}
    calm = nebula.draw_classes(np.zeros((500, 512), int))
    assert [row["image"] for row in calm.spec["data"]["values"]] == list(range(1, 21))


def test_lines_without_a_finite_value_say_so_in_a_small_picture() -> None:
    svg = to_svg(lines([Series("a", [1.0], [float("nan")], colour="#123456")], "x", "y"), "name")
    assert "no finite value to draw" in svg
    width, height = map(float, re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0])
    assert width < 600
    assert height < 200


def test_lines_at_one_noise_level_are_rows_that_cannot_overlap() -> None:
    """Two models and a reference have the same loss, and each has a row. A loss outside the domain has none."""
    losses = [Series(name, [1.0], [3.5], [3.4], [3.6]) for name in ("UVB", "DEEN")]
    others = [Series("exact", [1.0], [3.5], colour="faint"), Series("VAE", [1.0], [30.0])]
    spec = lines([*losses, *others], "σ", "loss", domain=(3.0, 4.0), zero=True).spec
    shown = next(layer for layer in spec["layer"] if "params" in layer)
    assert shown["encoding"]["y"]["field"] == "series"
    assert shown["encoding"]["x"]["title"] == ["loss, σ = 1"]
    assert [row["series"] for row in spec["data"]["values"]] == ["UVB", "DEEN", "exact"]
    svg = to_svg(lines([*losses, *others], "σ", "loss", domain=(3.0, 4.0), sides=("one ahead", "other ahead")), "name")
    heights = re.findall(r'<path transform="translate\(120,(\d+)\)"', svg)  # 120 of 240 px: 3.5 is halfway from 3 to 4
    assert heights == ["11", "33", "55"]
    assert "← one ahead · other ahead →" in svg


def test_lines_at_one_x_keep_a_title_that_has_an_equals_sign() -> None:
    (layer,) = lines([Series("UVB", [1.0], [3.5])], "b = σ", "loss").spec["layer"]
    assert [each["title"] for each in layer["encoding"]["tooltip"]] == [" ", "b = σ", "loss"]


def test_lines_say_beside_the_axis_who_is_ahead() -> None:
    svg = to_svg(lines([Series("a", [1.0, 2.0], [-1.0, 1.0])], "σ", "difference", sides=("a ahead", "b ahead")), "name")
    assert "← a ahead · b ahead →" in svg


def test_identity_rows_gives_each_density_the_error_of_its_own_loss() -> None:
    """With the same -log p for every image, only the losses' errors are left: 0.1 for the model, 0.3 for the exact density."""
    specs = {sigma: fake_study.spec("uvb", sigma) for sigma in (0.5, 1.0)}
    losses = pd.DataFrame(
        [{"spec_id": s.spec_id, "split": "test", "estimator": "energy", "loss": 4.0, "stderr": 0.1} for s in specs.values()]
    )
    references = pd.DataFrame(
        [
            {"checksum": s.data.checksum, "train_images": s.data.train_images, "sigma": sigma, "nonparametric": 3.5,
             "nonparametric_stderr": 0.3}
            for sigma, s in specs.items()
        ]
    )  # fmt: skip
    result = SimpleNamespace(arrays={"model": np.ones(9), "exact": np.ones(9)}, values={"stderr": 0.0})
    found = [(SimpleNamespace(spec_id=s.spec_id, spec=s), result) for s in specs.values()]
    between, over_all = identity_rows(losses, references, found)
    rows = {row["density"]: row["stderr"] for row in between}
    of_losses = 0.5 * (1 / 0.5**2 + 1 / 1.0**2) * math.log(1.0 / 0.5)  # the trapezoid rule over log σ
    assert rows == pytest.approx({"uvb": 0.1 * of_losses, EXACT: 0.3 * of_losses})
    assert over_all == between  # there are only two levels


def test_identity_rows_adds_the_errors_of_all_levels_because_they_share_images() -> None:
    """Over three levels the losses' errors add up. The error of log Z counts at the two ends only."""
    specs = {sigma: fake_study.spec("uvb", sigma) for sigma in (0.25, 0.5, 1.0)}
    losses = pd.DataFrame(
        [{"spec_id": s.spec_id, "split": "test", "estimator": "energy", "loss": 4.0, "stderr": 0.1} for s in specs.values()]
    )
    result = SimpleNamespace(arrays={"model": np.ones(9)}, values={"stderr": 0.2})
    found = [(SimpleNamespace(spec_id=s.spec_id, spec=s), result) for s in specs.values()]
    references = pd.DataFrame(columns=["checksum", "train_images", "sigma", "nonparametric", "nonparametric_stderr"])
    _, (row,) = identity_rows(losses, references, found)
    of_losses = 0.1 * 0.5 * math.log(2) * (1 / 0.25**2 + 2 / 0.5**2 + 1 / 1.0**2)
    assert row["stderr"] == pytest.approx(math.hypot(of_losses, 0.2, 0.2))
