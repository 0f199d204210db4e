"""RunSpec: what is trained. Frozen, serializable, and named by its own hash."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from uvb.errors import UserError

Shape = tuple[int, int, int]  # (C, H, W)


@dataclass(frozen=True)
class DataRef:
    """Which images: a data set's name, the checksum of its contents, its shape, and how many training images are used."""

    name: str
    checksum: str
    shape: Shape
    train_images: int


@dataclass(frozen=True)
class Widths:
    """Layer widths: `conv` channels, one linear layer of `hidden`; `latent` = d_z and `decoder` where there is one."""

    conv: tuple[int, ...]
    hidden: int
    latent: int = 0
    decoder: int = 0

    def __str__(self) -> str:
        parts = ["-".join(map(str, self.conv)), str(self.hidden)]
        return "/".join(parts + [str(w) for w in (self.latent, self.decoder) if w])


@dataclass(frozen=True)
class Recipe:
    """How the weights are optimized. `paper` is Sec. 3.1.1; `fast` and `muon` are ours (docs/results.md: how they were found).

    `warmup` is a share of all steps; `schedule` decays to zero ("cosine") or not at all ("constant"); `clip` bounds the
    gradient's norm; `ema` averages the weights with this decay (0: the raw weights are the model); `optimizer` is what
    `uvb.training.optimizers` makes of it; `beta2` is how long Adam remembers the squares of gradients, 1 / (1 - beta2) steps.
    """

    name: str
    epochs: int
    batch_size: int = 128
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    clip: float = math.inf
    ema: float = 0.0
    optimizer: Literal["adam", "muon"] = "adam"
    beta2: float = 0.999

    def __post_init__(self) -> None:
        for name in ("learning_rate", "warmup", "clip", "ema", "beta2"):  # 1 and 1.0 are one value, and are to have one hash
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(f"recipe {self.name!r}: epochs={self.epochs}, batch_size={self.batch_size}; both must be 1 or more")
        if not self.learning_rate > 0:
            raise UserError(f"recipe {self.name!r}: learning rate {self.learning_rate} must be above 0")
        if self.schedule not in ("constant", "cosine"):
            raise UserError(f"recipe {self.name!r}: unknown schedule {self.schedule!r}; choose constant or cosine")
        if self.optimizer not in ("adam", "muon"):
            raise UserError(f"recipe {self.name!r}: unknown optimizer {self.optimizer!r}; choose adam or muon")
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
}


@dataclass(frozen=True)
class RunSpec:
    """One training: everything that decides its result, up to rounding. How and where it runs is a `Plan`."""

    data: DataRef
    model: str
    widths: Widths
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

        Adam, and its usual beta2, are not written: specs were named by their hash before there was a choice, and keep
        their names.
        """
        blob = json.loads(json.dumps(dataclasses.asdict(self)))
        for later, usual in (("optimizer", "adam"), ("beta2", 0.999)):
            if blob["recipe"][later] == usual:
                del blob["recipe"][later]
        if math.isinf(self.recipe.clip):
            blob["recipe"]["clip"] = None
        return dict(blob)

    @staticmethod
    def from_json(blob: dict[str, Any]) -> "RunSpec":
        """The inverse of `to_json`.

        Raises:
            UserError: a field is missing or unknown, as in a spec of another version.
        """
        try:
            data, widths, recipe = dict(blob["data"]), dict(blob["widths"]), dict(blob["recipe"])
            data["shape"] = tuple(data["shape"])
            widths["conv"] = tuple(widths["conv"])
            recipe["clip"] = math.inf if recipe["clip"] is None else recipe["clip"]
            rest = {k: v for k, v in blob.items() if k not in ("data", "widths", "recipe")}
            return RunSpec(data=DataRef(**data), widths=Widths(**widths), recipe=Recipe(**recipe), **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"a spec that this version cannot read ({type(error).__name__}: {error})") from error

    def differences(self, other: "RunSpec") -> list[str]:
        """Names and values of the fields in which two specs differ, e.g. ``sigma: 0.5 != 1.0``."""
        return list(_differences(dataclasses.asdict(self), dataclasses.asdict(other)))


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*a, *b}):
        if isinstance(a.get(key), dict) and isinstance(b.get(key), dict):
            found += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a.get(key) != b.get(key):
            found.append(f"{prefix}{key}: {a.get(key)} != {b.get(key)}")
    return found
