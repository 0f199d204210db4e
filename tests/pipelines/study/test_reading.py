"""A study prints what it has read, and keeps these facts for its report."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.study.config import StudyConfig
from pipelines.study.provenance import provenance
from pipelines.study.reading import read_images
from pipelines.study.screen import Screen
from tests.support.data_helpers import put_classes
from uvb.data.report import ReadReport
from uvb.errors import UserError


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UVB_CACHE", str(tmp_path / "cache"))
    put_classes(tmp_path / "set" / "training", 10, "ant", "bee")
    put_classes(tmp_path / "set" / "testing", 3, "ant", "bee")  # the same pictures again
    return tmp_path / "set"


def said(config: StudyConfig, held_out: bool = False) -> list[str]:
    written = io.StringIO()
    read_images(config, Screen(Console(file=written, width=200)), held_out)
    return written.getvalue().splitlines()


def test_reading_says_splits_counts_classes_and_doubts(pictures: Path) -> None:
    said_lines = said(StudyConfig(dataset=str(pictures)))
    *lines, values, doubt = [line.strip() for line in said_lines if not line.startswith("converting")]
    assert lines == [
        f"data: {pictures} (a folder of pictures), 4×4 grey",
        "train: 20 images from training/",
        "test: 6 images from testing/",
        "2 classes: ant, bee",
    ]
    assert "pixel values from 0 to 255 (255 means 1.0)" in values
    assert doubt == "warning: 6 of 6 test images are identical to training images, so the test loss is too low"


def test_reading_says_what_a_search_holds_out(pictures: Path) -> None:
    lines = said(StudyConfig(dataset=str(pictures)), held_out=True)
    assert any("test: 4 images from training/: held out to choose models by" in line for line in lines)


def test_reading_describes_named_sets() -> None:
    lines = said(StudyConfig(dataset="digits"))
    assert "  train: 1,500 images from the data set's own split" in lines
    assert "  10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in lines
    assert any("pixel values from 0 to 16 (16 means 1.0)" in line for line in lines)


def test_provenance_keeps_what_was_read(pictures: Path) -> None:
    images = read_images(StudyConfig(dataset=str(pictures)), Screen(Console(file=io.StringIO())))
    kept = provenance(images, [])["data"]
    assert kept["classes"] == ["ant", "bee"]
    assert ReadReport.from_json(kept["read"]) == images.report


def test_reading_passes_its_options_to_the_reader(pictures: Path) -> None:
    lines = said(StudyConfig(dataset=str(pictures), split=("train=training",), resize=6))
    assert any("6×6 grey" in line for line in lines)
    assert any("18 images from training/ (a random nine tenths)" in line for line in lines)
    with pytest.raises(UserError, match="only Parquet and Arrow have columns"):
        said(StudyConfig(dataset=str(pictures), image_column="photo"))
