"""The study's drawings. A new one is a new file in this folder: it registers a function, and the report shows it.

```python
@register("my_experiment", title="…", paper="Fig. 9", needs="my_experiment", order=95)
def pictures(study: Study) -> Iterator[Picture]:
    for model, result in study.files.of_models("my_experiment"):
        yield Picture(f"my_experiment_{model.spec_id}", caption, draw(result.arrays["values"]))
```

`draw` is a pure function from arrays or a table to a figure. `pictures` finds what there is to draw. A figure is one of

- a `chart.Chart`, by `chart.lines`, `bars`, `histograms` or `heat`: a reader can hover over it and zoom;
- an SVG element, by `images.rows_of_images`, `images.grid_of_images` or `film.film`;
- a matplotlib figure, in the colours of `style.PALETTE`.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from pipelines.files.study_files import StudyFiles
from pipelines.reporting.figures.svg import Drawn
from uvb.errors import UserError
from uvb.registry import Registry, import_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """What a drawing may look at: the files, and the tables made of them."""

    files: StudyFiles
    tables: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Picture:
    """One figure. `name` is its file's name, unique in a study; `caption` is plain text; `alt` says it to a screen reader."""

    name: str
    caption: str
    figure: Drawn
    alt: str = ""


@dataclass(frozen=True)
class Drawing:
    """A registered kind of figure: its heading, what of the paper it repeats, and the task it `needs`."""

    name: str
    title: str
    paper: str
    needs: str
    order: float
    pictures: Callable[[Study], Iterator[Picture]]


DRAWINGS: Registry[Drawing] = Registry("figure", "uvb.figures")


def register(
    name: str, *, title: str, needs: str, order: float, paper: str = ""
) -> Callable[..., Callable[..., Iterator[Picture]]]:
    """Decorator that adds ``pictures(study)`` to the report. `order` is its place; `paper` names the paper's figure."""

    def add(pictures: Callable[[Study], Iterator[Picture]]) -> Callable[[Study], Iterator[Picture]]:
        DRAWINGS.add(name, Drawing(name, title, paper, needs, order, pictures))
        return pictures

    return add


def drawings() -> list[Drawing]:
    """All drawings in the report's order, those of plug-ins (entry points in group `uvb.figures`) included.

    A plug-in that cannot be loaded is told in the log and costs its own drawings only.
    """
    import_files(__name__, __path__)
    for name in DRAWINGS.plugin_names():
        try:
            DRAWINGS.load_plugin(name)  # importing it registers its drawings
        except UserError as error:
            log.warning("figures of %s", error)
    return sorted(DRAWINGS.known.values(), key=lambda drawing: (drawing.order, drawing.name))
