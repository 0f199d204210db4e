"""Spaces by name. A space is a function that lists the trainings of a sweep, made from a base configuration."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from uvb.models import get_model
from uvb.models.capacity import widths_at
from uvb.registry import Registry
from uvb.spec import DataRef, Recipe, RunSpec

_widths = lru_cache(widths_at)  # a space needs the same few widths many times


@dataclass(frozen=True)
class Base:
    """The configuration from which a space makes its trainings. The trainings differ only in what the space varies.

    A space that does not vary sigma uses the largest of `sigmas`.
    """

    data: DataRef
    models: tuple[str, ...]
    sigmas: tuple[float, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    activation: str = "silu"
    width: float = 1.0

    @property
    def largest_sigma(self) -> float:
        return max(self.sigmas)

    def spec(self, model: str, sigma: float | None = None, **changes: Any) -> RunSpec:
        """The spec for training `model` at `sigma` (None: the largest sigma). `changes` replace fields of the spec."""
        sigma = self.largest_sigma if sigma is None else sigma
        widths, objective = _widths(model, self.data.shape, self.width), get_model(model).objective
        spec = RunSpec(self.data, model, widths, sigma, objective, self.recipe, self.activation, self.seeds[0])
        return dataclasses.replace(spec, **changes)


Kind = Literal["table", "choice", "search"]


@dataclass(frozen=True)
class Space:
    """A registered space, of one of three kinds.

    - A "table" finishes every training, and compares the models on the test set.
    - A "choice" finishes every training, and chooses the best on held-out training images.
    - A "search" is a choice that stops the worst trainings early, by ASHA.
    """

    name: str
    specs: Callable[[Base], list[RunSpec]]
    kind: Kind


SPACES: Registry[Space] = Registry("space", "uvb.spaces")
space_names = SPACES.names
"""All names, sorted. Installed plug-ins are included."""
get_space = SPACES.get
"""The space called `name`, perhaps from a plug-in. Raises `UserError` if there is none."""
SpecsOf = Callable[[Base], list[RunSpec]]


def register_space(name: str, *, kind: Kind = "table") -> Callable[[SpecsOf], SpecsOf]:
    """A decorator that registers a function as the space `name`."""

    def add(specs: SpecsOf) -> SpecsOf:
        SPACES.add(name, Space(name, specs, kind))
        return specs

    return add
