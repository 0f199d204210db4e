"""docs/file_formats.md names every task whose results a study may have."""

import pytest

from tests.support.builders import ROOT
from uvb.experiments import experiment_names

TEXT = (ROOT / "docs" / "file_formats.md").read_text()
SAMPLERS = "walk_jump_"  # each sampler has an experiment walk_jump_<name>; the page has one row for all of them


@pytest.mark.parametrize("task", ["reference", *(n for n in experiment_names() if not n.startswith(SAMPLERS))])
def test_file_formats_name_every_task(task: str) -> None:
    first = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")]
    assert any(f"`{task}`" in cell for cell in first)
