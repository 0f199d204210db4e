"""docs/gallery.md is what `python docs/gallery.py` writes."""

import runpy

from tests.support.builders import ROOT


def test_gallery_is_current() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "gallery.py"))["page"]
    assert (ROOT / "docs" / "gallery.md").read_text() == page()
