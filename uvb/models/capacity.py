"""Capacity: parameter counts (Table 1), and configs whose counts match."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from uvb.config import Config
from uvb.errors import UserError, one_line
from uvb.models.base import Estimator
from uvb.models.registry import Builder, Model, get_model
from uvb.spec import Shape

TOLERANCE = 0.01  # the largest relative difference between a matched count and UVB's
MOST = 1 << 24  # a field of a config is not tried above this


def count_parameters(module: nn.Module) -> int:
    """dim(ϑ), as in Table 1: all parameters, including DEEN's output bias, which is not trained."""
    return sum(p.numel() for p in module.parameters())


def parameters(model: str, shape: Shape, widths: Config) -> int:
    """dim(ϑ) of a model on images of `shape`, without allocating weights. Raises `UserError` if it cannot be built so."""
    return _count(get_model(model).build, shape, widths)


def skeleton(model: str, shape: Shape, widths: Config) -> Estimator:
    """The model on the meta device, which allocates nothing; on the CPU if its constructor reads values of tensors."""
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
        name, reason = getattr(build, "__name__", "the model"), f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{name} cannot be built with {widths!r} on images of shape {shape} ({reason})") from error


@lru_cache(maxsize=4096)
def _count(build: Builder, shape: Shape, widths: Config) -> int:
    return count_parameters(_skeleton(build, shape, widths))


def scaled_widths(widths: Any, factor: float) -> Any:
    """A config whose network is `factor` times as wide. Raises `UserError` if it has no method ``scaled(factor)``."""
    if factor == 1:
        return widths
    if not hasattr(widths, "scaled"):
        raise UserError(
            f"{type(widths).__name__} cannot be made wider or narrower: give it a method scaled(factor), "
            "or register its model with match="
        )
    return widths.scaled(factor)


def matched_widths(model: str, shape: Shape, target: int, tolerance: float = TOLERANCE, start: Any = None) -> Any:
    """The config of `model` on images of `shape` whose parameter count is within `tolerance` of `target`.

    Only the fields that the model names in `match` change. A single field gets the value whose count is nearest. A second,
    finer field stays as near to its default as possible, between half and twice of it, and the first gets the value whose
    count is nearest then. The count must not fall when a field grows. Counts are those of built models.

    Args:
        start: the config in which a single field changes. None: the model's default.

    Raises:
        UserError: no value fits.
    """
    entry = get_model(model)
    if not entry.match:
        return entry.widths
    for variants in _fine_variants(entry, start or entry.widths):
        nearest = [found for config in variants for found in _nearest(entry, shape, target, config)]
        error, _, config = min(nearest, key=lambda found: found[:2])
        if error <= tolerance:
            return config
    advice = ", or name a second, finer field in its match=" if len(entry.match) == 1 else ""
    raise UserError(
        f"no widths of {model} on {shape} images come within {100 * tolerance:g} % of UVB's {target:,} parameters; "
        f"choose another --width, or leave it out{advice}"
    )


def _fine_variants(entry: Model, start: Config) -> Iterator[list[Config]]:
    """`start` with other values of the finer field, if there is one: its default first, then pairs farther and farther away."""
    if len(entry.match) == 1:
        yield [start]
        return
    default = _first(start, entry.match[1])
    for distance in range(default + 1):
        values = {default - distance, default + distance}
        yield [_with(start, entry.match[1], value) for value in sorted(values) if value >= max(1, default // 2)]


def _nearest(entry: Model, shape: Shape, target: int, config: Config) -> list[tuple[float, int, Config]]:
    """The two configs between whose counts `target` lies, by the first field of `match`: (error, value, config) each."""

    def count(value: int) -> int:
        return _count(entry.build, shape, _with(config, entry.match[0], value))

    high = _first(config, entry.match[0])
    while count(high) < target and high < MOST and count(2 * high) > count(high):
        high *= 2
    above = 1 + bisect_left(range(1, high), target, key=count)
    values = [value for value in (above - 1, above) if value]
    return [(abs(count(value) / target - 1), value, _with(config, entry.match[0], value)) for value in values]


def _first(config: Config, name: str) -> int:
    value = getattr(config, name)
    return int(value[0] if isinstance(value, tuple) else value)


def _with(config: Any, name: str, value: int) -> Config:
    """`config` with `value` for the field `name`. A tuple keeps its proportions, and `value` becomes its first number."""
    before = getattr(config, name)
    after = tuple(max(1, round(part / before[0] * value)) for part in before) if isinstance(before, tuple) else value
    changed: Config = replace(config, **{name: after})
    return changed


def default_widths(model: str, shape: Shape) -> Any:
    """The config of `model` on images of `shape`, matched to UVB's count unless the model keeps its own config there.

    DEEN keeps the paper's widths on the paper's two image shapes.

    Raises:
        UserError: the model cannot be built so, or no width fits.
    """
    entry = get_model(model)
    if not entry.match or shape in entry.keep_on:
        parameters(model, shape, entry.widths)  # raises if, say, the convolutions leave no pixel
        return entry.widths
    return matched_widths(model, shape, parameters("uvb", shape, get_model("uvb").widths))


def widths_at(model: str, shape: Shape, factor: float) -> Any:
    """The config of `model` at the capacity of UVB with `factor` times its widths. Factor 1 gives `default_widths`.

    A model without `match` is scaled by `factor`. The others are matched to UVB's count; those with one field to match are
    scaled first.

    Raises:
        UserError: no width fits.
    """
    if factor == 1:
        return default_widths(model, shape)
    if not get_model(model).match:
        return scaled_widths(default_widths(model, shape), factor)
    # A model with one field to match is scaled first: else its other layers would keep the paper's width.
    start = scaled_widths(get_model(model).widths, factor) if len(get_model(model).match) == 1 else None
    target = parameters("uvb", shape, scaled_widths(default_widths("uvb", shape), factor))
    return matched_widths(model, shape, target, start=start)
