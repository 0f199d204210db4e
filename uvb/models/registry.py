"""Models by name: how to build one, its objective, and its default widths."""

import ast
import hashlib
import inspect
import textwrap
import tokenize
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from uvb.config import Config, require_config
from uvb.errors import UserError
from uvb.models.base import Estimator
from uvb.noise import key_to_seed
from uvb.registry import Registry
from uvb.spec import RunSpec, Shape

_BASES = ("uvb.models.base", "torch.", "builtins", "abc", "typing")  # parents from here do not count as a model's code
# Code that was rewritten but computes the same: old hash -> new hash. Weights from the old code stay valid.
# 2026-11-30: UVB's energy takes its KL from a method; quadratic energies share a base class.
_SAME_CODE = {
    "f6bfc28f5fbf": "172df70e16fc",  # uvb
    "140e6e40ff26": "d0f8f9bffabc",  # uvb_mean
    "f0b18e3160cb": "7047ed5d5edf",  # uvb_laplace
    "45966848acdf": "293e1d5db14a",  # uvb_laplace_matched
    "617a83424c0e": "f9e2a0e23ffb",  # vae
    "a0e1fa12bb5e": "d995f56da9b6",  # sigma_vae
    "0dd271ae829c": "5831694dc2ce",  # quadratic_ae
}

Builder = Callable[[Shape, Any, str, float], Estimator]  # (shape, config, activation, sigma) -> module


@dataclass(frozen=True)
class Model:
    """A registered model.

    Attributes:
        build: ``(shape, config, activation, sigma) -> Estimator``.
        widths: the default config: the paper's `Widths`, or a frozen dataclass of the model's own.
        objective: the default training objective (`uvb.training.objectives`).
        match: the config fields that change until the parameter count is UVB's (`uvb.models.capacity`). It names one field,
            or a coarse and a fine field. Each is a whole number, or a tuple of whole numbers that keeps its proportions.
            Empty: the count is not matched.
        keep_on: image shapes (C, H, W) on which `match` has no effect.
        code: a hash of the source code of `build`, computed when the model is registered. None: there is no source code.

    Raises:
        UserError: the config is not a frozen dataclass of plain values, or `match` names a field that cannot grow.
    """

    name: str
    build: Builder
    widths: Config
    objective: str = "denoise"
    match: tuple[str, ...] = ()
    keep_on: tuple[Shape, ...] = ()
    code: str | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        require_config(self.name, self.widths)
        _require_match(self.name, self.widths, self.match)
        object.__setattr__(self, "code", _code_of(self.build))


MODELS: Registry[Model] = Registry("model", "uvb.models")
model_names = MODELS.names
"""All registered names and the names of installed plug-ins, sorted."""
get_model = MODELS.get
"""The model called `name`, perhaps from a plug-in. Raises `UserError` if there is none."""


def register_model(
    name: str, *, widths: Config, objective: str = "denoise", match: str | tuple[str, ...] = (), keep_on: tuple[Shape, ...] = ()
) -> Callable[[Builder], Builder]:
    """Class or function decorator that registers a model by `name`. `Model` explains the arguments.

    A study compares two models image by image only if their parameter counts differ by at most 25 %. `match`
    makes them equal: ``match="hidden"`` changes the field `hidden` of the config until the parameter count is UVB's.
    """

    def add(build: Builder) -> Builder:
        MODELS.add(name, Model(name, build, widths, objective, (match,) if isinstance(match, str) else tuple(match), keep_on))
        return build

    return add


def build_model(spec: RunSpec) -> Estimator:
    """Build an untrained model. The weights have torch's default initialization, drawn with ``spec.seed``.

    Raises:
        UserError: the spec's config is not of the class that the model declares.
    """
    model = get_model(spec.model)
    if not isinstance(spec.widths, type(model.widths)):
        raise UserError(f"model {spec.model!r} takes a {type(model.widths).__name__}, not {spec.widths!r}")
    with torch.random.fork_rng(devices=[]):  # torch's initializers draw from the global generator
        torch.manual_seed(key_to_seed(spec.seed, "init"))
        return model.build(spec.data.shape, spec.widths, spec.activation, spec.sigma)


def code_changed(model: str, before: str | None) -> bool:
    """Whether the code of `model` has changed since its hash was `before`. Then weights from that time are not valid.

    If either hash is unknown, the result is False.
    """
    now = get_model(model).code
    if before is None or now is None:
        return False
    return now not in (before, _SAME_CODE.get(before))


def _code_of(build: Builder) -> str | None:
    """A hash of the source code of a builder. None if there is no source code.

    The hash of a class includes its parents, except those in `_BASES`. It does not depend on comments, layout, docstrings, the
    decorators of the class or function itself, or the functions that the code calls.
    """
    ours = [each for each in getattr(build, "__mro__", [build]) if not each.__module__.startswith(_BASES)]
    found = []
    for each in ours:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
        except (OSError, TypeError, SyntaxError, tokenize.TokenError):
            return None
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                if node in tree.body:
                    node.decorator_list = []
                if ast.get_docstring(node) is not None:
                    node.body = node.body[1:] or [ast.Pass()]
        found.append(ast.unparse(tree))
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:12] if found else None


def _require_match(model: str, config: Config, match: tuple[str, ...]) -> None:
    """Raise `UserError` unless `match` names at most two fields, and both can grow."""
    able = [f.name for f in fields(config) if _can_grow(getattr(config, f.name))]
    if len(match) > 2 or not set(match) <= set(able):
        raise UserError(
            f"model {model!r}: match={match!r}; name one field of {type(config).__name__}, or two (coarse, fine), out of: "
            f"{', '.join(able) or '(none: a field must be a whole number above 0, or a tuple of such numbers)'}"
        )


def _can_grow(value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return bool(numbers) and all(type(number) is int and number > 0 for number in numbers)
