"""Samplers by name: how chains take one step in Y, and the settings for a noise level."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uvb.errors import UserError
from uvb.sampling.chains import Info, WalkState

Step = Callable[..., tuple[WalkState, Info]]  # (energy, state, seed, *, batch, **settings)
Settings = Callable[[float], Mapping[str, float]]  # sigma -> settings
Count = Callable[[Mapping[str, float]], int]  # settings -> gradients a step


@dataclass(frozen=True)
class Sampler:
    """A registered sampler.

    Attributes:
        step: one step of every chain, ``(energy, state, seed, *, batch, **settings) -> (state, info)``.
        settings: its settings at a noise level by name, the step size ``delta`` among them; each finite and above 0.
        gradients: how many gradients of the energy a step with these settings costs.
        exact: whether a Metropolis test makes exp(-f) its stationary density. Such a sampler holds the energy's ε fixed.
    """

    name: str
    step: Step
    settings: Settings
    gradients: Count
    exact: bool


_SAMPLERS: dict[str, Sampler] = {}


def register_sampler(
    name: str, *, settings: Settings, gradients: Count = lambda settings: 1, exact: bool = False
) -> Callable[[Step], Step]:
    """Register a step function as the sampler `name`, and with it the experiment ``walk_jump_<name>``. A decorator."""

    def add(step: Step) -> Step:
        _SAMPLERS[name] = Sampler(name, step, settings, gradients, exact)
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
