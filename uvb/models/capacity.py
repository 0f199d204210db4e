"""Capacity: count parameters (Table 1), and find configs that give different models the same count."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from uvb.config import Config
from uvb.errors import UserError, with_type
from uvb.models.base import Estimator
from uvb.models.registry import Builder, Model, get_model
from uvb.spec import Shape

TOLERANCE = 0.01  # the largest allowed relative difference between a matched count and UVB's
MOST = 1 << 24  # the search tries values of a field up to about this


def count_parameters(module: nn.Module) -> int:
    """dim(ϑ) as in Table 1: the number of all parameters, including DEEN's output bias, which is not trained."""
    return sum(p.numel() for p in module.parameters())


def parameters(model: str, shape: Shape, widths: Config) -> int:
    """dim(ϑ) of a model for images of `shape`. Raises `UserError` if the model cannot be built for them."""
    return _count(get_model(model).build, shape, widths)


def skeleton(model: str, shape: Shape, widths: Config) -> Estimator:
    """Build the model on the meta device, which allocates no memory. If that fails, build it on the CPU."""
    return _skeleton(get_model(model).build, shape, widths)


def _skeleton(build: Builder, shape: Shape, widths: Config) -> Estimator:
    try:
        with torch.device("meta"):
            return build(shape, widths, "silu", 1.0)
    except UserError:
        raise
    except Exception:  # perhaps the constructor reads values, which the meta device does not have
        pass
    try:
        with torch.random.fork_rng(devices=[]):
            return build(shape, widths, "silu", 1.0)
    except UserError:
        raise
    except Exception as error:  # a plug-in may raise anything
        name, reason = getattr(build, "__name__", "the model"), with_type(error)
        raise UserError(f"{name} cannot be built with {widths!r} on images of shape {shape} ({reason})") from error


@lru_cache(maxsize=4096)
def _count(build: Builder, shape: Shape, widths: Config) -> int:
    return count_parameters(_skeleton(build, shape, widths))


def scaled_widths(widths: Any, factor: float) -> Any:
    """A config for a network that is `factor` times as wide. Raises `UserError` if `widths` has no method ``scaled``."""
    if factor == 1:
        return widths
    if not hasattr(widths, "scaled"):
        raise UserError(
            f"{type(widths).__name__} cannot be made wider or narrower: give it a method scaled(factor), "
            "or register the model with match="
        )
    return widths.scaled(factor)


def matched_widths(model: str, shape: Shape, target: int, start: Any = None) -> Any:
    """The config with which `model` has `target` parameters on images of `shape`, up to `TOLERANCE`.

    Only the fields in the model's `match` change. The first field gets the value that brings the count nearest to `target`. If
    there is a second, finer field, the search does this for several values of the finer field: first its default, then values
    ever farther from the default, down to its half and up to its double. The search stops when the count comes within the
    tolerance. The count must not fall when a field grows.

    Args:
        start: the config in which the fields change. None: the model's default.

    Raises:
        UserError: no value comes within the tolerance.
    """
    entry = get_model(model)
    if not entry.match:
        return entry.widths
    for variants in _fine_variants(entry, start or entry.widths):
        nearest = [found for config in variants for found in _nearest(entry, shape, target, config)]
        error, _, config = min(nearest, key=lambda found: found[:2])
        if error <= TOLERANCE:
            return config
    advice = ", or name a second, finer field in its match=" if len(entry.match) == 1 else ""
    raise UserError(
        f"no widths of {model} on {shape} images come within {100 * TOLERANCE:g} % of UVB's {target:,} parameters; "
        f"choose another --width, or leave the model out{advice}"
    )


def _fine_variants(entry: Model, start: Config) -> Iterator[list[Config]]:
    """Yield configs like `start` with other values of the finer field: first the default, then pairs ever farther from it.

    Without a finer field yield only `start`.
    """
    if len(entry.match) == 1:
        yield [start]
        return
    default = _first(start, entry.match[1])
    for distance in range(default + 1):
        values = {default - distance, default + distance}
        yield [_with(start, entry.match[1], value) for value in sorted(values) if value >= max(1, default // 2)]


def _nearest(entry: Model, shape: Shape, target: int, config: Config) -> list[tuple[float, int, Config]]:
    """Find the two neighbouring values of the first field of `match` between which the count passes `target`.

    Returns:
        For each value: the relative error of the count, the value itself, and the config.
    """

    def count(value: int) -> int:
        return _count(entry.build, shape, _with(config, entry.match[0], value))

    high = _first(config, entry.match[0])
    while count(high) < target and high < MOST and count(2 * high) > count(high):
        high *= 2
    above = 1 + bisect_left(range(1, high), target, key=count)
    values = [value for value in (above - 1, above) if value > 0]
    return [(abs(count(value) / target - 1), value, _with(config, entry.match[0], value)) for value in values]


def _first(config: Config, name: str) -> int:
    value = getattr(config, name)
    return int(value[0] if isinstance(value, tuple) else value)


def _with(config: Any, name: str, value: int) -> Config:
    """`config` with the field `name` set to `value`. A tuple's first number becomes `value`; the others scale alike."""
    before = getattr(config, name)
    after = tuple(max(1, round(part / before[0] * value)) for part in before) if isinstance(before, tuple) else value
    changed: Config = replace(config, **{name: after})
    return changed


def default_widths(model: str, shape: Shape) -> Any:
    """The config of `model` on images of `shape`, matched to UVB's parameter count.

    Without `match`, and on the shapes in `keep_on`, this is the model's default. So DEEN keeps the paper's widths on the two
    image shapes of the paper.

    Raises:
        UserError: the model cannot be built, or no widths come within the tolerance.
    """
    entry = get_model(model)
    if not entry.match or shape in entry.keep_on:
        parameters(model, shape, entry.widths)  # raises if the model cannot be built for these images
        return entry.widths
    return matched_widths(model, shape, parameters("uvb", shape, get_model("uvb").widths))


def widths_at(model: str, shape: Shape, factor: float) -> Any:
    """Scale UVB's widths by `factor`. Return the config with which `model` has the same parameter count.

    Factor 1 gives `default_widths`. A model without `match` is scaled by `factor`, but its count is not matched.

    Raises:
        UserError: no widths come within the tolerance.
    """
    if factor == 1:
        return default_widths(model, shape)
    if not get_model(model).match:
        return scaled_widths(default_widths(model, shape), factor)
    # If only one field is matched, scale all widths first. Without this, the other layers would keep the paper's widths.
    start = scaled_widths(get_model(model).widths, factor) if len(get_model(model).match) == 1 else None
    target = parameters("uvb", shape, scaled_widths(default_widths("uvb", shape), factor))
    return matched_widths(model, shape, target, start=start)
