"""Spaces by name: functions from a base configuration to the trainings it stands for."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from uvb.models import get_model
from uvb.models.capacity import widths_at
from uvb.registry import Registry
from uvb.spec import DataRef, Recipe, RunSpec

_widths = lru_cache(widths_at)  # a space asks for the same few many times


@dataclass(frozen=True)
class Base:
    """What all trainings of a space share, apart from what it varies.

    `sigmas` and `seeds` are those asked for. A space that does not vary sigma takes the largest.
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
        """The training of `model` at `sigma` (the largest, if None), with fields of RunSpec changed."""
        spec = RunSpec(
            self.data, model, _widths(model, self.data.shape, self.width), self.largest_sigma if sigma is None else sigma,
            get_model(model).objective, self.recipe, self.activation, self.seeds[0],
        )  # fmt: skip
        return dataclasses.replace(spec, **changes)


Kind = Literal["table", "choice", "search"]


@dataclass(frozen=True)
class Space:
    """A registered space, of one of three kinds.

    A "table" trains everything to its end and is judged by the test set. The other two choose something, so they are judged by
    held-out training images and the test set stays unseen: a "choice" trains everything to its end, a "search" stops the
    worst trainings early (ASHA).
    """

    name: str
    specs: Callable[[Base], list[RunSpec]]
    kind: Kind

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (self.specs.__doc__ or "").strip().split("\n")[0]


SPACES: Registry[Space] = Registry("space", "uvb.spaces")
SpecsOf = Callable[[Base], list[RunSpec]]


def register_space(name: str, *, kind: Kind = "table") -> Callable[[SpecsOf], SpecsOf]:
    """Function decorator that makes a space known by `name`."""

    def add(specs: SpecsOf) -> SpecsOf:
        SPACES.add(name, Space(name, specs, kind))
        return specs

    return add


def space_names() -> list[str]:
    """All names, sorted; those of installed plug-ins too."""
    return SPACES.names()


def get_space(name: str) -> Space:
    """The space called `name`, loaded from a plug-in if need be.

    Raises:
        UserError: if there is none.
    """
    return SPACES.get(name)
