"""The models by name: how to build one, what it is trained with, and how wide it is by default."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import torch

from uvb.errors import UserError
from uvb.estimator import Estimator
from uvb.noise import key_to_seed
from uvb.plugins import load_registering, plugin_names
from uvb.spec import RunSpec, Shape, Widths

Builder = Callable[[Shape, Widths, str, float], Estimator]  # (shape, widths, activation, sigma) -> module


@dataclass(frozen=True)
class Model:
    """A registered model.

    Attributes:
        build: ``(shape, widths, activation, sigma) -> Estimator``.
        widths: the paper's widths (or this model's own default).
        objective: the objective it is trained with by default (`uvb.objective`).
        match: the family by which widths are matched: "latent" nets keep `widths`; "conv" nets scale theirs until the
            parameter count is that of UVB, "hidden" nets widen their hidden layer (`uvb.capacity`).
    """

    name: str
    build: Builder
    widths: Widths
    objective: str = "denoise"
    match: str = "latent"


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


def code_of(model: str) -> str | None:
    """A hash of the source that `model` is built by, its comments, layout and docstrings aside; None where there is none to
    read. Trained weights are of one code: with another they are another function."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(get_model(model).build)))
    except (OSError, TypeError, SyntaxError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]


def build_model(spec: RunSpec) -> Estimator:
    """A freshly initialized model (torch's default initialization), keyed by ``spec.seed`` alone."""
    with torch.random.fork_rng(devices=[]):  # torch's initializers draw from the global generator; keep that in here
        torch.manual_seed(key_to_seed(spec.seed, "init"))
        return get_model(spec.model).build(spec.data.shape, spec.widths, spec.activation, spec.sigma)
