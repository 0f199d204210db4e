"""Samplers by name: how chains take one step in Y, and with what settings at a noise level."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uvb.errors import UserError
from uvb.sampling.chains import Info, WalkState

Step = Callable[..., tuple[WalkState, Info]]  # (energy, state, seed, *, batch, **settings)
Settings = Callable[[float], Mapping[str, float]]  # sigma -> settings


@dataclass(frozen=True)
class Sampler:
    """A registered sampler.

    Attributes:
        step: one step of every chain, ``(energy, state, seed, *, batch, **settings) -> (state, info)``.
        settings: its settings at a noise level by name, the step size ``delta`` among them; each finite and above 0.
    """

    name: str
    step: Step
    settings: Settings


_SAMPLERS: dict[str, Sampler] = {}


def register_sampler(name: str, *, settings: Settings) -> Callable[[Step], Step]:
    """Function decorator that makes a sampler known by `name`, and with it the experiment ``walk_jump_<name>``."""

    def add(step: Step) -> Step:
        _SAMPLERS[name] = Sampler(name, step, settings)
        return step

    return add


def sampler_names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_SAMPLERS)


def get_sampler(name: str) -> Sampler:
    """The sampler called `name`.

    Raises:
        UserError: if there is none.
    """
    if name not in _SAMPLERS:
        raise UserError(f"unknown sampler {name!r}; choose one of: {', '.join(sampler_names())}")
    return _SAMPLERS[name]
