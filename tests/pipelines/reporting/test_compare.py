"""`report.py` with several studies: one page, and the same axes for all of them."""

import json
import re
from pathlib import Path

import pytest

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.compare import Found, _pairs, build_comparison
from pipelines.reporting.tables import make_tables
from tests.pipelines.reporting.test_report import Checker
from tests.support import fake_study


def test_build_comparison_writes_one_page(study: Path, tmp_path: Path) -> None:
    other = fake_study.make(tmp_path / "b", experiments=False, extra=False)
    out = build_comparison([study, other], tmp_path / "compare.html")
    page = out.read_text()
    checker = Checker()
    checker.feed(page)
    assert page.count('<div class="headline">') == 2
    assert "Test loss on digits" in page
    assert len(checker.ids) == len(set(checker.ids))
    assert not (other / "tables").exists()  # a comparison writes into no study


def test_comparison_draws_all_studies_on_the_same_axes(study: Path, tmp_path: Path) -> None:
    """One study has eight noise levels. The second study has one."""
    for model in ("uvb", "deen"):
        fake_study.add_model(tmp_path / "one", fake_study.spec(model, 0.5))
        fake_study.add_reference(tmp_path / "one", fake_study.spec(model, 0.5))
    page = build_comparison([study, tmp_path / "one"], tmp_path / "compare.html").read_text()
    charts = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', page)]
    axes = [chart["layer"][-1]["encoding"] for chart in charts]
    ends = [json.dumps([axes_of[name]["scale"]["domain"] for name in "xy"]) for axes_of in axes]
    assert len(ends) == 4
    assert len(set(ends)) == 2, "differences share their axes, and so do losses"
    assert all(axes_of["x"]["scale"]["domain"] == [0.3, 1.0] for axes_of in axes)


def test_comparison_scales_its_axes_to_the_pairs_that_it_draws(tmp_path: Path) -> None:
    """The table `pairs` compares the VAE with UVB and with DEEN, but not UVB with DEEN. One of its two pairs is drawn."""
    for model in ("uvb", "deen", "vae"):
        fake_study.add_model(tmp_path, fake_study.spec(model))
    files = StudyFiles(tmp_path)
    tables = make_tables(files)
    pairs = tables["pairs"] = tables["pairs"][tables["pairs"]["first"] == "vae"]
    (picture,) = _pairs([Found("one", files, tables)])
    (drawn,) = pairs[(pairs["split"] == "test") & (pairs["second"] == "deen")].itertuples()
    low, high = min(drawn.low, 0.0), max(drawn.high, 0.0)
    domain = picture.figure.spec["layer"][-1]["encoding"]["x"]["scale"]["domain"]
    assert domain == pytest.approx([low - 0.06 * (high - low), high + 0.06 * (high - low)])
