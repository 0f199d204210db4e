"""Capacity: parameter counts (Table 1), and configs whose counts match."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from uvb.config import Config
from uvb.errors import UserError
from uvb.models.base import Estimator
from uvb.models.registry import Builder, Model, get_model
from uvb.spec import Shape

TOLERANCE = 0.01  # how far a matched count may be from UVB's, relative
MOST = 1 << 24  # no field of a config is tried above this


def count_parameters(module: nn.Module) -> int:
    """dim(ϑ), the figure of Table 1: every parameter, DEEN's untrained output bias included."""
    return sum(p.numel() for p in module.parameters())


def parameters(model: str, shape: Shape, widths: Config) -> int:
    """dim(ϑ) of a model on images of `shape`, counted without allocating its weights.

    Raises:
        UserError: the model cannot be built with this config.
    """
    return _count(get_model(model).build, shape, widths)


def skeleton(model: str, shape: Shape, widths: Config) -> Estimator:
    """The model on the meta device, which allocates nothing; on the CPU if its constructor needs real numbers.

    Raises:
        UserError: the model cannot be built with this config.
    """
    return _skeleton(get_model(model).build, shape, widths)


def _skeleton(build: Builder, shape: Shape, widths: Config) -> Estimator:
    try:
        with torch.device("meta"):
            return build(shape, widths, "silu", 1.0)
    except UserError:
        raise
    except Exception:  # perhaps a constructor that looks at values, which the meta device has not
        pass
    try:
        with torch.random.fork_rng(devices=[]):
            return build(shape, widths, "silu", 1.0)
    except UserError:
        raise
    except Exception as error:  # a plug-in may raise anything
        name, reason = getattr(build, "__name__", "the model"), " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{name} cannot be built with {widths!r} on images of shape {shape} ({reason})") from error


@lru_cache(maxsize=4096)
def _count(build: Builder, shape: Shape, widths: Config) -> int:
    return count_parameters(_skeleton(build, shape, widths))


def scaled_widths(widths: Any, factor: float) -> Any:
    """A config whose network is `factor` times as wide.

    Raises:
        UserError: the config has no method ``scaled(factor)``.
    """
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

    `start` is the config whose one field changes, where the model names one; by default the model's own.

    The fields that the model names in `match` are changed. One field: the value whose count is nearest. A coarse and a fine
    field: of all pairs that fit, the one whose fine field is nearest to its default, from half to twice that. The count must
    not fall when a field grows; each candidate's count is that of the built model.

    Raises:
        UserError: no value fits.
    """
    entry = get_model(model)
    if not entry.match:
        return entry.widths
    found = _one_field(entry, shape, target, start) if len(entry.match) == 1 else _two_fields(entry, shape, target, tolerance)
    if found is None or abs(parameters(model, shape, found) / target - 1) > tolerance:
        advice = ", or name a second, finer field in its match=" if len(entry.match) == 1 else ""
        raise UserError(
            f"no widths of {model} on {shape} images come within {100 * tolerance:g} % of UVB's {target:,} parameters; "
            f"choose another --width, or leave it out{advice}"
        )
    return found


def _one_field(entry: Model, shape: Shape, target: int, start: Any) -> Config:
    def config(value: int) -> Config:
        return _with(start or entry.widths, entry.match[0], value)

    def count(value: int) -> int:
        return _count(entry.build, shape, config(value))

    above = _first_reaching(target, count, _first(entry.widths, entry.match[0]))
    return config(min((v for v in (above - 1, above) if v), key=lambda value: abs(count(value) - target)))


def _two_fields(entry: Model, shape: Shape, target: int, tolerance: float) -> Config | None:
    coarse, fine = entry.match
    middle = _first(entry.widths, fine)
    choices = range(max(1, middle // 2), 2 * middle + 1)

    def count(unit: int, value: int) -> int:
        return _count(entry.build, shape, _with(_with(entry.widths, coarse, unit), fine, value))

    def best_of(unit: int) -> tuple[int, float, int, int] | None:
        """How far the fine field is from its default, the error of the count, and the two values."""
        least = bisect_left(choices, target * (1 - tolerance), key=lambda value: count(unit, value))
        most = bisect_left(choices, True, key=lambda value: count(unit, value) > target * (1 + tolerance)) - 1
        if least > most:
            return None
        value = min(max(middle, choices[least]), choices[most])
        return abs(value - middle), abs(count(unit, value) / target - 1), unit, value

    def nearest(units: Iterable[int]) -> list[tuple[int, float, int, int]]:
        """The best pairs as the coarse field moves away from where its default partner would fit."""
        found: list[tuple[int, float, int, int]] = []
        for unit in units:
            if count(unit, choices[0]) > target * (1 + tolerance) or count(unit, choices[-1]) < target * (1 - tolerance):
                break  # so it is for all units that are farther away
            best = best_of(unit)
            if best and found and best[0] > found[0][0]:
                break
            found += [best] if best else []
        return found

    above = _first_reaching(target, lambda unit: count(unit, middle), _first(entry.widths, coarse))
    best = min(nearest(range(above - 1, 0, -1)) + nearest(range(above, 4 * above + 64)), default=None)
    return best and _with(_with(entry.widths, coarse, best[2]), fine, best[3])


def _first_reaching(target: int, count: Callable[[int], int], start: int) -> int:
    """The least value whose count is at least `target`; some value above `start` if the count does not reach it."""
    high = start
    while count(high) < target and high < MOST and count(2 * high) > count(high):
        high *= 2
    return 1 + bisect_left(range(1, high), target, key=count)


def _first(config: Config, name: str) -> int:
    value = getattr(config, name)
    return int(value[0] if isinstance(value, tuple) else value)


def _with(config: Any, name: str, value: int) -> Config:
    """`config` with `value` for the field `name`; a tuple keeps its proportions, and `value` is its first number."""
    before = getattr(config, name)
    after = tuple(max(1, round(part / before[0] * value)) for part in before) if isinstance(before, tuple) else value
    changed: Config = replace(config, **{name: after})
    return changed


def default_widths(model: str, shape: Shape) -> Any:
    """The config of `model` on images of `shape`: matched to UVB's count, or its own if it keeps that.

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
    """The config of `model` at the capacity that UVB has with `factor` times its widths. Factor 1 is `default_widths`.

    A model that names no `match` is scaled by `factor`. Others are matched to UVB's count, those with one field to match after
    they were scaled.

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
