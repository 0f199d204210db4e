"""Figures that were drawn before, with their captions: what a copy without the experiments' images shows again."""

from pathlib import Path
from typing import TypedDict

from markupsafe import Markup

from pipelines.files.formats import read_object
from pipelines.files.study_files import write_json
from pipelines.reporting.figures.svg import inner
from pipelines.reporting.inline import Inline

CAPTIONS = "captions.json"  # {drawing: {figure: caption}}


class Captions(TypedDict):
    """The file."""

    captions: dict[str, dict[str, str]]


def store_captions(folder: Path, figures: dict[str, list[Inline]]) -> None:
    """Write which drawing each figure of the folder is of, and its caption."""
    captions = {drawing: {figure.name: figure.caption for figure in some} for drawing, some in figures.items()}
    if captions:
        write_json(folder / CAPTIONS, {"captions": captions})


def stored_figures(folder: Path) -> dict[str, list[Inline]]:
    """Drawing -> its figures as they lie in the folder. Raises UserError where the captions' file is damaged."""
    captions = read_object(folder / CAPTIONS, Captions).get("captions", {})
    return {
        drawing: [
            Inline(name, caption, Markup(inner(path.read_text())))
            for name, caption in some.items()
            if (path := folder / f"{name}.svg").is_file()
        ]
        for drawing, some in captions.items()
    }
