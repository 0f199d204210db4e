"""Put figures into the page and into files. No figure needs a script, but the page's script can make charts live."""

import base64
import gzip
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import vl_convert
from markupsafe import Markup

from pipelines.files.formats import read_object
from pipelines.files.names import inside
from pipelines.files.study_files import write, write_json
from pipelines.reporting.figures import Picture
from pipelines.reporting.figures.chart import Chart
from pipelines.reporting.figures.svg import file_name, inner, standalone, to_svg
from uvb.errors import UserError
from uvb.machine import at_home

CAPTIONS = "captions.json"


class Captions(TypedDict):
    """captions.json: drawing -> figure -> caption."""

    captions: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Inline:
    """A figure in the page. The page's script makes a live chart from the description `chart`, which is "" for an image."""

    name: str
    caption: str
    svg: Markup
    chart: Markup | str = ""


def inlined(picture: Picture) -> Inline:
    """Turn a picture into a figure in the page."""
    name = file_name(picture.name)
    svg = to_svg(picture.figure, name, picture.alt or picture.caption)
    chart = Markup(picture.figure.to_json()) if isinstance(picture.figure, Chart) else ""
    return Inline(name, picture.caption, Markup(svg), chart)


def store_figures(folder: Path, figures: dict[str, list[Inline]]) -> None:
    """Write the figures of each drawing as files, with a file of captions. Remove figures that are no longer drawn."""
    everything = [figure for some in figures.values() for figure in some]
    for old in {path.stem for path in folder.glob("*.svg")} - {figure.name for figure in everything}:
        (folder / f"{old}.svg").unlink()
    for figure in everything:
        write(folder / f"{figure.name}.svg", standalone(figure.svg).encode())
    if figures:
        captions = {drawing: {figure.name: figure.caption for figure in some} for drawing, some in figures.items()}
        write_json(folder / CAPTIONS, {"captions": captions})


def stored_figures(folder: Path) -> dict[str, list[Inline]]:
    """Drawing -> its figures in the folder. A copy made by `keep.py` has no arrays, so its report shows these figures.

    Raises:
        UserError: the file of captions is damaged, or a name in it leads out of the folder.
    """
    return {
        drawing: [
            Inline(path.stem, caption, Markup(inner(path.read_text())))
            for name, caption in some.items()
            if (path := folder / f"{inside(name)}.svg").is_file()
        ]
        for drawing, some in read_object(folder / CAPTIONS, Captions).get("captions", {}).items()
    }


def viewer(figures: Iterable[Inline]) -> Markup:
    """Vega's code for the page, compressed; empty if no figure is a chart."""
    return Markup(_vega()) if any(figure.chart for figure in figures) else Markup()


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, compressed with gzip, in base64: 0.4 MB.

    Bundling takes seconds, so the script is kept in the user's cache if that can be written.
    """
    kept = at_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "uvb" / f"vega-{version('vl-convert-python')}.js.gz"
    try:
        packed = kept.read_bytes()
    except OSError:
        code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        packed = gzip.compress(code.encode(), 9, mtime=0)
        with suppress(UserError):  # if the cache cannot be written, the next report makes the bundle again
            write(kept, packed)
    return base64.b64encode(packed).decode()
