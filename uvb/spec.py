"""RunSpec: what is trained. Frozen, serializable, and named by its own hash."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from uvb.config import Config, Widths, config_from_json, config_to_json, unknown_config
from uvb.errors import UserError

__all__ = ["RECIPES", "DataRef", "Recipe", "RunSpec", "Shape", "Widths"]

Shape = tuple[int, int, int]  # (C, H, W)


OPTIMIZERS = ("adam", "muon", "muon_conv")


@dataclass(frozen=True)
class DataRef:
    """Which images: a data set's name, the checksum of its contents, its shape, and how many training images are used."""

    name: str
    checksum: str
    shape: Shape
    train_images: int


@dataclass(frozen=True)
class Recipe:
    """How the weights are optimized. `paper` is Sec. 3.1.1; the others are ours (results/recipe-search).

    `warmup` is a share of all steps; `schedule` decays to zero ("cosine") or not at all ("constant"); `clip` bounds the
    gradient's norm; `ema` averages the weights with this decay (0: the raw weights are the model); `optimizer` is what
    `uvb.training.optimizers` makes of it; `beta2` is how long Adam remembers the squares of gradients, 1 / (1 - beta2) steps;
    `weight_decay` shrinks what "muon_conv" trains as matrices, by `learning_rate` times it a step.
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
        for name in ("learning_rate", "warmup", "clip", "ema", "beta2", "weight_decay"):  # 1 and 1.0 must have one hash
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"recipe {self.name!r}: epochs={self.epochs}, batch_size={self.batch_size}; both must be 1 or more")
        if not self.learning_rate > 0:
            raise UserError(f"recipe {self.name!r}: learning rate {self.learning_rate} must be above 0")
        if self.schedule not in ("constant", "cosine"):
            raise UserError(f"recipe {self.name!r}: unknown schedule {self.schedule!r}; choose constant or cosine")
        if self.optimizer not in OPTIMIZERS:
            raise UserError(f"recipe {self.name!r}: unknown optimizer {self.optimizer!r}; choose {' or '.join(OPTIMIZERS)}")
        if not 0 <= self.weight_decay < math.inf or (self.weight_decay and self.optimizer != "muon_conv"):
            raise UserError(
                f"recipe {self.name!r}: weight_decay={self.weight_decay}; "
                "it must be 0 or more, and only muon_conv decays weights"
            )
        if not 0 <= self.beta2 < 1:
            raise UserError(f"recipe {self.name!r}: beta2={self.beta2}; it must lie in [0, 1), e.g. 0.999")
        if not (0 <= self.warmup <= 1 and self.clip > 0 and 0 <= self.ema < 1):
            raise UserError(
                f"recipe {self.name!r}: warmup={self.warmup}, clip={self.clip}, ema={self.ema}; "
                "warmup must lie in [0, 1], clip above 0, ema in [0, 1)"
            )

    def changed(self, **changes: Any) -> "Recipe":
        """The recipe with fields changed, and a name that says so, e.g. ``fast, learning_rate=0.001``.

        Tables tell recipes apart by name, epochs and batch size, so these two need no mention in it.
        """
        new = dataclasses.replace(self, **changes)
        quiet = ("name", "epochs", "batch_size")
        said = [
            f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}"
            for k, v in changes.items()
            if k not in quiet and v != getattr(self, k)
        ]
        return dataclasses.replace(new, name=", ".join([new.name, *said]))

    def learning_rate_at(self, step: int, total: int) -> float:
        """The learning rate of optimizer step `step` (from 0) of `total`."""
        warm = int(self.warmup * total)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


RECIPES = {
    "paper": Recipe("paper", epochs=400),
    "fast": Recipe("fast", epochs=11, batch_size=64, learning_rate=2e-3, schedule="cosine", warmup=0.05, clip=100.0, ema=0.999),
    "muon": Recipe(
        "muon",
        epochs=11,
        batch_size=64,
        learning_rate=4e-3,
        schedule="cosine",
        warmup=0.05,
        clip=100.0,
        ema=0.999,
        optimizer="muon",
    ),
    "muon_conv": Recipe(
        "muon_conv",
        epochs=11,
        batch_size=64,
        learning_rate=4e-3,
        schedule="cosine",
        warmup=0.05,
        clip=100.0,
        ema=0.999,
        optimizer="muon_conv",
    ),
}


# Fields of a recipe that the first specs did not have.
LATER_FIELDS = {"optimizer": "adam", "beta2": 0.999, "weight_decay": 0.0}


@dataclass(frozen=True)
class RunSpec:
    """One training: everything that decides its result, up to rounding. How and where it runs is a `Plan`.

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
        """A short human name, e.g. ``uvb σ=1.0``."""
        return f"{self.model} σ={self.sigma:g}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `clip` = inf is written as null.

        Fields that came later are left out at their usual value, so that older specs keep their hash.
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
        """The inverse of `to_json`. A model that is not installed here keeps its config as an `UnknownConfig`.

        Raises:
            UserError: a field is missing or unknown, as in a spec of another version.
        """
        try:
            data, recipe = dict(blob["data"]), dict(blob["recipe"])
            data["shape"] = tuple(data["shape"])
            recipe["clip"] = math.inf if recipe["clip"] is None else recipe["clip"]
            widths = _config(str(blob["model"]), dict(blob["widths"]))
            rest = {k: v for k, v in blob.items() if k not in ("data", "widths", "recipe")}
            return RunSpec(data=DataRef(**data), widths=widths, recipe=Recipe(**recipe), **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"a spec that this version cannot read ({type(error).__name__}: {error})") from error

    def differences(self, other: "RunSpec") -> list[str]:
        """Names and values of the fields in which two specs differ, e.g. ``sigma: 0.5 != 1.0``."""
        return list(_differences(self._fields(), other._fields()))

    def _fields(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"widths": config_to_json(self.widths)}


def _config(model: str, blob: dict[str, Any]) -> Config:
    from uvb.models.registry import get_model  # which itself imports this module

    try:
        return config_from_json(type(get_model(model).widths), blob)
    except UserError:  # files outlive the package that a model came from
        known = blob.keys() == {f.name for f in dataclasses.fields(Widths)}
        return config_from_json(Widths, blob) if known else unknown_config(blob)


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*a, *b}):
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            found += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a.get(key) != b.get(key):
            found.append(f"{prefix}{key}: {a.get(key)} != {b.get(key)}")
    return found
