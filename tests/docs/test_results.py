"""The results pages have the numbers of the committed results, and their links lead to existing files."""

import re
import runpy
from pathlib import Path

import pandas as pd
import pytest

from tests.support.builders import ROOT

TABLES = runpy.run_path(str(ROOT / "docs" / "tables.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "tests" / "README.md", *TABLES["pages"]()]


def test_tables_have_the_numbers_of_the_committed_results() -> None:
    assert [path.name for path in TABLES["stale"]()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_existing_files(page: Path) -> None:
    text = page.read_text()
    links = {link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
    assert sorted(link for link in links if link and not (page.parent / link).exists()) == []


def test_every_study_says_what_it_is() -> None:
    folders = [path.parent for path in (ROOT / "results" / "studies").glob("*/study.json")]
    assert [folder.name for folder in folders if not (folder / "README.md").exists()] == []


NUMBERS = [
    (16.77649, 0.05812, "16.776 ± 0.058"),
    (-0.1075, 0.0099, "−0.1075 ± 0.0099"),
    (104.449, 0.42, "104.45 ± 0.42"),
    (3.0, None, "3.000"),
]


@pytest.mark.parametrize(("value", "error", "text"), NUMBERS)
def test_number_has_two_digits_of_its_error(value: float, error: float | None, text: str) -> None:
    assert TABLES["number"](value, error) == text


@pytest.mark.parametrize(("known", "width"), [((), 5), ((0.3,), 6)])
def test_losses_has_the_papers_column_if_the_paper_has_a_loss(
    monkeypatch: pytest.MonkeyPatch, known: tuple[float, ...], width: int
) -> None:
    monkeypatch.setattr("uvb.paper.loss", lambda data, model, sigma, split: 1.0 if sigma in known else None)
    lines = TABLES["losses"]("mnist-eight-sigmas", "test")
    assert {line.count("|") for line in lines} == {width + 1}


def test_levels_names_only_the_ends_of_many_levels() -> None:
    assert TABLES["levels"]([0.5, 1.0]) == "0.5, 1"
    assert TABLES["levels"]([2.0, 0.1, *(0.2 + 0.1 * i for i in range(6))]) == "0.1 to 2"


def test_table_two_has_the_losses_of_the_parquet_file() -> None:
    found = pd.read_parquet(ROOT / "results" / "studies" / "mnist-eight-sigmas" / "tables" / "losses.parquet")
    lines = [line.split(" | ") for line in TABLES["losses"]("mnist-eight-sigmas", "test")[2:]]
    assert len(lines) == 8
    for line in lines:
        sigma = float(line[0].strip("| "))
        for model, cell in (("uvb", line[1]), ("deen", line[2])):
            chosen = (found.model == model) & (found.split == "test") & (found.estimator == "energy") & (found.sigma == sigma)
            (loss,) = found[chosen].loss
            assert float(cell.split(" ")[0]) == pytest.approx(loss, abs=6e-4)
