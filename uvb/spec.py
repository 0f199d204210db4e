"""RunSpec: what is trained. A spec is frozen, can be stored as JSON, and gets its name from its hash."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, TypedDict

import msgspec

from uvb.config import Config, UnknownConfig, Widths, config_from_json, config_to_json
from uvb.decoding import decoded
from uvb.errors import UserError

__all__ = ["RECIPES", "DataRef", "Recipe", "RunSpec", "Shape", "Widths"]

Shape = tuple[int, int, int]  # (C, H, W)

OPTIMIZERS = ("adam", "muon", "muon_conv")


@dataclass(frozen=True)
class DataRef:
    """The images: a data set's name, the checksum of its contents, the shape of an image, and the number of training images."""

    name: str
    checksum: str
    shape: Shape
    train_images: int


@dataclass(frozen=True)
class Recipe:
    """How the weights are optimized. `paper` is Sec. 3.1.1; the others are ours (results/recipe-search).

    Attributes:
        schedule: the learning rate decays to zero ("cosine"), or not at all ("constant").
        warmup: the learning rate rises over this share of all steps.
        clip: a gradient of a larger norm is scaled down to this norm.
        ema: the decay of an exponential moving average of the weights. This average becomes the model. 0: no average.
        optimizer: see `uvb.training.optimizers`.
        beta2: Adam remembers the squares of gradients for 1 / (1 - beta2) steps.
        weight_decay: each step multiplies the matrices of "muon_conv" by 1 - `learning_rate` * `weight_decay`.
    """

    name: str
    epochs: int
    batch_size: int = 128
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    clip: float = math.inf
    ema: float = 0.0
    optimizer: Literal["adam", "muon", "muon_conv"] = "adam"
    beta2: float = 0.999
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "warmup", "clip", "ema", "beta2", "weight_decay"):  # 1 and 1.0 must give the same hash
            object.__setattr__(self, name, float(getattr(self, name)))
        for holds, line in (
            (self.epochs >= 1 and self.batch_size >= 1,
             f"epochs={self.epochs}, batch_size={self.batch_size}; both must be 1 or more"),
            (self.learning_rate > 0, f"learning_rate={self.learning_rate}; it must be above 0"),
            (self.schedule in ("constant", "cosine"), f"unknown schedule {self.schedule!r}; choose constant or cosine"),
            (self.optimizer in OPTIMIZERS, f"unknown optimizer {self.optimizer!r}; choose {' or '.join(OPTIMIZERS)}"),
            (0 <= self.weight_decay < math.inf, f"weight_decay={self.weight_decay}; it must be 0 or more, and finite"),
            (self.weight_decay == 0 or self.optimizer == "muon_conv",
             f"weight_decay={self.weight_decay}; only muon_conv decays weights, so choose 0 for {self.optimizer}"),
            (0 <= self.beta2 < 1, f"beta2={self.beta2}; it must lie in [0, 1), e.g. 0.999"),
            (0 <= self.warmup <= 1, f"warmup={self.warmup}; it must lie in [0, 1]"),
            (self.clip > 0, f"clip={self.clip}; it must be above 0"),
            (0 <= self.ema < 1, f"ema={self.ema}; it must lie in [0, 1)"),
        ):  # fmt: skip
            if not holds:
                raise UserError(f"recipe {self.name!r}: {line}")

    def changed(self, **changes: Any) -> "Recipe":
        """A copy of this recipe with some fields changed. Its name says which, e.g. ``fast, learning_rate=0.001``.

        The name leaves out epochs and batch size, because tables have separate columns for them.
        """
        new = dataclasses.replace(self, **changes)
        named = {k: v for k, v in changes.items() if k not in ("name", "epochs", "batch_size") and v != getattr(self, k)}
        said = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in named.items()]
        return dataclasses.replace(new, name=", ".join([new.name, *said]))

    def learning_rate_at(self, step: int, total: int) -> float:
        """The learning rate of optimizer step `step` (from 0) of `total`."""
        warm = int(self.warmup * total)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


_FAST = Recipe("fast", epochs=11, batch_size=64, learning_rate=2e-3, schedule="cosine", warmup=0.05, clip=100.0, ema=0.999)
RECIPES = {
    "paper": Recipe("paper", epochs=400),
    "fast": _FAST,
    "muon": dataclasses.replace(_FAST, name="muon", learning_rate=4e-3, optimizer="muon"),
    "muon_conv": dataclasses.replace(_FAST, name="muon_conv", learning_rate=4e-3, optimizer="muon_conv"),
}

# Recipes of older specs lack these fields. So the JSON, and with it the hash, leaves out a field that has its default value.
LATER_FIELDS = {"optimizer": "adam", "beta2": 0.999, "weight_decay": 0.0}


class _SpecJson(TypedDict, total=False):
    """The types of the fields in a spec's JSON, except `recipe`. `from_json` checks that field with `Recipe`."""

    data: DataRef
    model: str
    widths: dict[str, Any]
    sigma: float
    objective: str
    activation: str
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # so that tables can hold it


@dataclass(frozen=True)
class RunSpec:
    """One training: everything that decides its result, up to rounding. A `Plan` says how and where it runs.

    `widths` is the config of the model: the paper's `Widths`, or a frozen dataclass that the model declares.
    """

    data: DataRef
    model: str
    widths: Config
    sigma: float
    objective: str
    recipe: Recipe
    activation: str = "silu"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", float(self.sigma))
        if not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise UserError(f"sigma = {self.sigma}: the noise level must be a finite number above 0, e.g. 1.0")

    @cached_property
    def spec_id(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """A short name for people, e.g. ``uvb σ=1``."""
        return f"{self.model} σ={self.sigma:g}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types. A `clip` of inf becomes null.

        A field in `LATER_FIELDS` is left out if it has its default value, so that older specs keep their hash.
        """
        blob = json.loads(json.dumps(self._fields()))
        for name, usual in LATER_FIELDS.items():
            if blob["recipe"][name] == usual:
                del blob["recipe"][name]
        if math.isinf(self.recipe.clip):
            blob["recipe"]["clip"] = None
        return dict(blob)

    @staticmethod
    def from_json(blob: dict[str, Any]) -> "RunSpec":
        """The inverse of `to_json`. If the model is not installed, a config unlike `Widths` becomes an `UnknownConfig`.

        Raises:
            UserError: a field is missing or unknown, as in a spec of another version, or has another type.
        """
        decoded(blob, _SpecJson, "this version cannot read the stored spec")
        try:
            data, recipe = dict(blob["data"]), dict(blob["recipe"])
            data["shape"] = tuple(data["shape"])
            recipe["clip"] = math.inf if recipe["clip"] is None else recipe["clip"]
            decoded(recipe, Recipe, "this version cannot read the stored spec, recipe")
            widths = _config(str(blob["model"]), dict(blob["widths"]))
            rest = {k: v for k, v in blob.items() if k not in ("data", "widths", "recipe")}
            return RunSpec(data=DataRef(**data), widths=widths, recipe=Recipe(**recipe), **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this version cannot read the stored spec ({type(error).__name__}: {error})") from error

    def differences(self, other: "RunSpec") -> list[str]:
        """The fields in which two specs differ, with both values, e.g. ``sigma: 0.5 != 1.0``."""
        return list(_differences(self._fields(), other._fields()))

    def _fields(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"widths": config_to_json(self.widths)}


def _config(model: str, blob: dict[str, Any]) -> Config:
    from uvb.models.registry import get_model  # imported here, because that module imports this one

    try:
        return config_from_json(type(get_model(model).widths), blob)
    except UserError:  # the package of the model may no longer be installed
        known = blob.keys() == {f.name for f in dataclasses.fields(Widths)}
        return config_from_json(Widths, blob) if known else UnknownConfig(json.dumps(blob, sort_keys=True))


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*a, *b}):
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            found += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a.get(key) != b.get(key):
            found.append(f"{prefix}{key}: {a.get(key)} != {b.get(key)}")
    return found
