"""Spaces by name. A space is a function from a base configuration to a list of trainings."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from uvb.models import get_model
from uvb.models.capacity import widths_at
from uvb.registry import Registry
from uvb.spec import DataRef, Recipe, RunSpec

_widths = lru_cache(widths_at)  # a space asks for the same few widths many times


@dataclass(frozen=True)
class Base:
    """The configuration from which a space makes its trainings. A training differs from it only in what the space varies.

    The user sets `sigmas` and `seeds`. A space that does not vary sigma uses the largest.
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
        spec = RunSpec(
            self.data, model, _widths(model, self.data.shape, self.width), self.largest_sigma if sigma is None else sigma,
            get_model(model).objective, self.recipe, self.activation, self.seeds[0],
        )  # fmt: skip
        return dataclasses.replace(spec, **changes)


Kind = Literal["table", "choice", "search"]


@dataclass(frozen=True)
class Space:
    """A registered space, of one of three kinds.

    - A "table" finishes every training, and compares the models by the test set.
    - A "choice" finishes every training, and compares them by held-out training images, in order to choose one.
    - A "search" is a choice that stops the worst trainings early (ASHA).
    """

    name: str
    specs: Callable[[Base], list[RunSpec]]
    kind: Kind


SPACES: Registry[Space] = Registry("space", "uvb.spaces")
space_names = SPACES.names
"""All names, sorted, with those of installed plug-ins."""
get_space = SPACES.get
"""The space called `name`, perhaps from a plug-in. Raises `UserError` if there is none."""
SpecsOf = Callable[[Base], list[RunSpec]]


def register_space(name: str, *, kind: Kind = "table") -> Callable[[SpecsOf], SpecsOf]:
    """Function decorator that registers a space by `name`."""

    def add(specs: SpecsOf) -> SpecsOf:
        SPACES.add(name, Space(name, specs, kind))
        return specs

    return add
