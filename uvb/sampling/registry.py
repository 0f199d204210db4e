"""Samplers by name: how chains take a step in Y, and the usual settings at a noise level."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from uvb.registry import Registry
from uvb.sampling.chains import WalkState

Step = Callable[..., WalkState]  # (energy, state, seed, *, batch, **settings)
Settings = Callable[[float], Mapping[str, float]]  # sigma -> settings
Count = Callable[[Mapping[str, float]], int]  # settings -> gradients per step


@dataclass(frozen=True)
class Sampler:
    """A registered sampler.

    Attributes:
        step: a function that takes one step of every chain, ``(energy, state, seed, *, batch, **settings) -> state``.
        settings: a function of σ that returns the usual settings by name, each finite and above 0. "delta" is the step size.
        gradients: a function of the settings that returns how many gradients of the energy a step costs.
        exact: whether a Metropolis test makes exp(-f) the stationary density. Such a sampler uses one ε for the whole walk.
    """

    name: str
    step: Step
    settings: Settings
    gradients: Count
    exact: bool


SAMPLERS: Registry[Sampler] = Registry("sampler", "uvb.samplers")


def register_sampler(
    name: str, *, settings: Settings, gradients: Count = lambda settings: 1, exact: bool = False
) -> Callable[[Step], Step]:
    """Decorator that registers a step function as the sampler `name`. The experiment ``walk_jump_<name>`` then exists too."""

    def add(step: Step) -> Step:
        SAMPLERS.add(name, Sampler(name, step, settings, gradients, exact))
        return step

    return add


get_sampler, sampler_names = SAMPLERS.get, SAMPLERS.names
