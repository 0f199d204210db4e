"""Figures in a page: still ones that need no script, and beside a chart its data, which a script brings to life."""

import base64
import gzip
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import vl_convert
from markupsafe import Markup

from pipelines.files.study_files import write
from pipelines.reporting.figures import Picture
from pipelines.reporting.figures.chart import Chart
from pipelines.reporting.figures.svg import file_name, to_svg
from uvb.errors import UserError


@dataclass(frozen=True)
class Inline:
    """A figure in the page. `chart` is the description of one that can be looked into, else ""."""

    name: str
    caption: str
    svg: Markup
    chart: Markup | str = ""


def inlined(picture: Picture) -> Inline:
    """A picture as the page shows it."""
    name = file_name(picture.name)
    svg = to_svg(picture.figure, name, picture.alt or picture.caption)
    chart = Markup(picture.figure.to_json()) if isinstance(picture.figure, Chart) else ""
    return Inline(name, picture.caption, Markup(svg), chart)


def viewer(figures: Iterable[Inline]) -> Markup:
    """Vega's code for the page, compressed, where one of the figures is a chart; else nothing."""
    return Markup(_vega()) if any(figure.chart for figure in figures) else Markup()


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, compressed with gzip, in base64: 0.4 MB.

    Bundling takes seconds, so what was made is kept in the user's cache, where that can be written.
    """
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = cache_home / "uvb" / f"vega-{version('vl-convert-python')}.js.gz"
    try:
        packed = kept.read_bytes()
    except OSError:
        code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        packed = gzip.compress(code.encode(), 9, mtime=0)
        with suppress(UserError):  # a home that cannot be written: bundled again next time
            write(kept, packed)
    return base64.b64encode(packed).decode()
