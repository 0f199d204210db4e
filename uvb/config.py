"""A model's configuration: any frozen dataclass of numbers, strings, booleans, None and tuples of these."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from uvb.errors import UserError

Config = Any  # a frozen dataclass; each model declares its class
_Config = TypeVar("_Config")


@dataclass(frozen=True)
class Widths:
    """The config of the paper's networks.

    Attributes:
        conv: channels of each convolution.
        hidden: units of the linear layer after the convolutions.
        latent: d_z, the dimension of z. 0: the network has no latent variable.
        decoder: units of the decoder's hidden layer. 0: there is no decoder.
    """

    conv: tuple[int, ...]
    hidden: int
    latent: int = 0
    decoder: int = 0

    def __str__(self) -> str:
        parts = ["-".join(map(str, self.conv)), *map(str, (self.hidden, self.latent, self.decoder))]
        return "/".join(part for part in parts if part not in ("", "0"))

    def scaled(self, factor: float) -> "Widths":
        """Multiply every width except `latent` by `factor`, and round to a whole number of at least 1."""
        conv = tuple(max(1, round(c * factor)) for c in self.conv)
        decoder = max(1, round(self.decoder * factor)) if self.decoder else 0
        return Widths(conv, max(1, round(self.hidden * factor)), self.latent, decoder)


@dataclass(frozen=True)
class UnknownConfig:
    """The config of a model that is not installed here. It keeps the JSON text, so the spec keeps its spec_id."""

    text: str

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in json.loads(self.text).items())


def config_to_json(config: Config) -> dict[str, Any]:
    """The fields of a config as plain JSON types."""
    blob = json.loads(config.text) if isinstance(config, UnknownConfig) else dataclasses.asdict(config)
    return dict(json.loads(json.dumps(blob)))


def config_from_json(kind: type[_Config], blob: dict[str, Any]) -> _Config:
    """The inverse of `config_to_json`. Raises TypeError if `kind` has other fields."""
    return kind(**{name: _as_tuples(value) for name, value in blob.items()})


def require_config(model: str, config: Any) -> None:
    """Raise `UserError` unless `config` is a frozen dataclass that can be written to JSON and read back unchanged."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type) or not _is_frozen(config):
        raise UserError(
            f"model {model!r}: its config is {config!r}; it must be an instance of a frozen dataclass: @dataclass(frozen=True)"
        )
    try:
        hash(config)  # raises TypeError if a field is mutable
        same = config_from_json(type(config), config_to_json(config)) == config
    except (TypeError, ValueError):
        same = False
    if not same:
        raise UserError(
            f"model {model!r}: its {type(config).__name__} would change when it is stored as JSON and read again; "
            "its fields must be numbers, strings, booleans, None, or tuples of these"
        )


def _is_frozen(config: Any) -> bool:
    return bool(config.__dataclass_params__.frozen)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
