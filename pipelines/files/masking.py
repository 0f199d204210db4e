"""Mask the secrets in addresses before they are printed or stored."""

import re
from typing import Any

# A user's name and password. Match up to the last @, since a password may contain / # ? and @.
_WITH_PASSWORD = re.compile(r"://[^\s/@:]*:[^\s]*@")
_WITH_NAME = re.compile(r"://[^/?#\s]*@")
# Parameters in an address, as in ?region=us-west-2, that hold no secret. Some are of stores, some of MLflow's pages.
_HARMLESS = r"region|scheme|endpoint_override|allow_\w+|viewStateShareKey|compareRunsMode|workflowType"
_PARAMETER = re.compile(rf"([?&](?!(?:{_HARMLESS})=)[^=&\s]+=)[^&\s\"']+")


def masked(text: str) -> str:
    """In addresses, replace user names, passwords and the values of parameters by ``***``. Keep harmless parameters."""
    if "://" not in text:  # no address
        return text
    return _PARAMETER.sub(r"\1***", _WITH_NAME.sub("://***@", _WITH_PASSWORD.sub("://***@", text)))


def masked_json(value: Any) -> Any:
    """Mask every string in a JSON value."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked_json(inner) for inner in value]
    return value
