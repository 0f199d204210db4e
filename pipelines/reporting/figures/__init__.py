"""The report's drawings. To add a drawing, add a file to this folder that registers a function:

```python
@register("my_experiment", title="…", paper="Fig. 9", needs="my_experiment", order=95)
def pictures(study: Study) -> Iterator[Picture]:
    for model, result in study.of_models("my_experiment"):
        yield Picture(f"my_experiment_{model.spec_id}", f"{named(model.spec)}.", draw(result.arrays["values"]))
```

`draw` is a pure function from arrays or a table to a figure. `pictures` finds the results to draw. A figure is one of

- a `chart.Chart`, by `chart.lines`, `bars`, `histograms` or `heat`: a reader can point at it and zoom;
- an SVG element, by `images.rows_of_images`, `images.grid_of_images` or `film.film`;
- a matplotlib figure, in the colours of `style.PALETTE`.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from pipelines.files.study_files import Model, Result, StudyFiles, order
from pipelines.reporting.figures.style import label
from pipelines.reporting.figures.svg import Drawn
from pipelines.reporting.numbers import level
from pipelines.reporting.statistics import main_group, over_seeds, own_estimator
from uvb.errors import UserError
from uvb.registry import Registry, import_files
from uvb.spec import RunSpec

log = logging.getLogger(__name__)
Found = list[tuple[Model, Result]]


@dataclass(frozen=True)
class Study:
    """What a drawing can use: the study's files, and the tables made from them."""

    files: StudyFiles
    tables: dict[str, pd.DataFrame]

    def of_models(self, *tasks: str) -> Found:
        """Each model that has a result of one of `tasks`, and the result. If it has several, the task named last counts."""
        found = {model.spec_id: (model, result) for task in tasks for model, result in self.files.of_models(task)}
        return sorted(found.values(), key=lambda pair: order(pair[0].spec))

    def by_data(self, *tasks: str) -> Iterator[tuple[str, int, Found]]:
        """The groups of `of_models`: (data set, seed, models and results)."""
        groups: dict[tuple[str, int], Found] = {}
        for model, result in self.of_models(*tasks):
            groups.setdefault((model.spec.data.name, model.spec.seed), []).append((model, result))
        for (data, seed), found in groups.items():
            yield data, seed, found

    @cached_property
    def losses(self) -> pd.DataFrame:
        """The loss of each model by its own estimator (see `own_estimator`), as a mean over seeds."""
        return over_seeds(own_estimator(self.tables["losses"]))

    @cached_property
    def main_losses(self) -> pd.DataFrame:
        """`losses`, but only of each data set's main condition (see `main_group`)."""
        return over_seeds(own_estimator(main_group(self.tables["losses"], self.files.asked)))


@dataclass(frozen=True)
class Picture:
    """One figure. `name` is its file's name, unique in a study; `caption` is plain text; `alt` is for screen readers."""

    name: str
    caption: str
    figure: Drawn
    alt: str = ""


@dataclass(frozen=True)
class Drawing:
    """A registered kind of figure.

    `paper` is the figure or section of the paper that it reproduces. `needs` says which results it draws: the name of a task,
    or a few words.
    """

    name: str
    title: str
    paper: str
    needs: str
    order: float
    pictures: Callable[[Study], Iterator[Picture]]


def named(spec: RunSpec) -> str:
    """A model as captions name it: ``UVB on digits, σ = 1.0``."""
    return f"{label(spec.model)} on {spec.data.name}, σ = {level(spec.sigma)}"


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
    """All drawings in the report's order, with those of plug-ins (entry points in group `uvb.figures`).

    If a plug-in cannot be loaded, its drawings are left out and the log says why.
    """
    import_files(__name__, __path__)
    for name in DRAWINGS.plugin_names():
        try:
            DRAWINGS.load_plugin(name)  # importing it registers its drawings
        except UserError as error:
            log.warning("figures of %s", error)
    return sorted(DRAWINGS.known.values(), key=lambda drawing: (drawing.order, drawing.name))
