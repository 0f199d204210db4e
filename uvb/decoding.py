"""Read JSON as typed values. An error is one line that says where the JSON is wrong."""

import json
from typing import Any, TypeVar

import msgspec

from uvb.errors import UserError

T = TypeVar("T")


def decoded(blob: Any, kind: type[T], what: str) -> T:
    """Convert `blob`, which has JSON types, to `kind`: a dataclass, a TypedDict, or any other type hint.

    Fields that `kind` does not have are ignored. An integer is accepted where `kind` has a float.

    Raises:
        UserError: a field is missing or has another type. The message begins with `what` and names the field.
    """
    try:
        return msgspec.convert(blob, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UserError(f"{what}: {error or 'nested too deeply'}") from None


def parsed(text: str | bytes, what: str) -> Any:
    """The value of the JSON in `text`. Raises `UserError` if `text` is not JSON, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{what}: nested too deeply") from None
    except ValueError as error:  # includes UnicodeDecodeError
        raise UserError(f"{what} is not valid JSON ({error})") from None
