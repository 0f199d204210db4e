"""The models by name: how to build one, what it is trained with, and how wide it is by default."""

import ast
import hashlib
import inspect
import textwrap
import tokenize
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from uvb.errors import UserError
from uvb.models.base import Estimator
from uvb.noise import key_to_seed
from uvb.plugins import load_registering, plugin_names
from uvb.spec import RunSpec, Shape, Widths

_BASES = ("uvb.models.base", "torch.", "builtins", "abc", "typing")  # whose classes are no part of a model's own code
Builder = Callable[[Shape, Widths, str, float], Estimator]  # (shape, widths, activation, sigma) -> module


@dataclass(frozen=True)
class Model:
    """A registered model.

    Attributes:
        build: ``(shape, widths, activation, sigma) -> Estimator``.
        widths: the paper's widths (or this model's own default).
        objective: the objective it is trained with by default (`uvb.training.objectives`).
        match: the family by which widths are matched: "latent" nets keep `widths`; "conv" nets scale theirs until the
            parameter count is that of UVB, "hidden" nets widen their hidden layer (`uvb.models.capacity`).
        code: a hash of the source of `build`, read when it is registered; None where there is none to read.
    """

    name: str
    build: Builder
    widths: Widths
    objective: str = "denoise"
    match: str = "latent"
    code: str | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", _code_of(self.build))


_MODELS: dict[str, Model] = {}


def register_model(
    name: str, *, widths: Widths, objective: str = "denoise", match: str = "latent"
) -> Callable[[Builder], Builder]:
    """Class or function decorator that makes a model known by `name`; the arguments are those of `Model`.

    A study compares two models image by image where their parameter counts match within 25 %. ``match="hidden"`` widens
    this one's hidden layer (``widths.hidden``) until its count is UVB's.
    """

    def add(build: Builder) -> Builder:
        _MODELS[name] = Model(name, build, widths, objective, match)
        return build

    return add


def model_names() -> list[str]:
    """All registered names, those of installed plug-ins included."""
    return sorted({*_MODELS, *plugin_names("uvb.models")})


def get_model(name: str) -> Model:
    """The model called `name`, loaded from a plug-in if need be.

    Raises:
        UserError: if there is none.
    """
    if name not in _MODELS:
        load_registering("uvb.models", name)  # importing it registers its model
    if name not in _MODELS:
        raise UserError(f"unknown model {name!r}; choose one of: {', '.join(model_names())}")
    return _MODELS[name]


def code_changed(model: str, before: str | None) -> bool:
    """Whether `model` has another code than `before`; False where either is not known.

    Trained weights are of one code: with another they are another function.
    """
    return None not in (before, get_model(model).code) and before != get_model(model).code


def _code_of(build: Builder) -> str | None:
    """A hash of the source of a builder, of a class with its parents up to `uvb`'s own bases: decorators, comments, layout
    and docstrings aside, and what it calls. None where there is no source to read."""
    ours = [each for each in getattr(build, "__mro__", [build]) if not each.__module__.startswith(_BASES)]
    found = []
    for each in ours:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
        except (OSError, TypeError, SyntaxError, tokenize.TokenError):
            return None
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                node.decorator_list = [] if node in tree.body else node.decorator_list
                if ast.get_docstring(node) is not None:
                    node.body = node.body[1:] or [ast.Pass()]
        found.append(ast.unparse(tree))
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:12] if found else None


def build_model(spec: RunSpec) -> Estimator:
    """A freshly initialized model (torch's default initialization), keyed by ``spec.seed`` alone."""
    with torch.random.fork_rng(devices=[]):  # torch's initializers draw from the global generator; keep that in here
        torch.manual_seed(key_to_seed(spec.seed, "init"))
        return get_model(spec.model).build(spec.data.shape, spec.widths, spec.activation, spec.sigma)
