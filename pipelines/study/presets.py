"""Presets: a study writes its options as YAML, and `--config FILE` reads them back."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pipelines.files.masking import masked_json
from uvb.decoding import decoded
from uvb.errors import UserError, one_line
from uvb.regular import regular

Config = TypeVar("Config")

OF_ONE_CALL = ("dry_run", "replan")  # options for one call only; a preset leaves them out
HEADER = "# Run this study again: uvb study --config FILE. Options on the command line override those in this file.\n"


class OnceEach(yaml.SafeLoader):
    """A loader of YAML that refuses a key that is given twice. PyYAML would keep the last value without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of `node`. Raise `yaml.YAMLError` if a key is given twice. `-` and `_` in a key are the same."""
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value).replace("-", "_")
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def preset_text(config: Any) -> str:
    """The options of `config` as YAML. Passwords in addresses are masked."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in sorted(fields.items()) if k not in OF_ONE_CALL}
    return HEADER + yaml.safe_dump(masked_json(plain), allow_unicode=True, sort_keys=True)


def read_preset(path: Path, kind: type[Config]) -> Config:
    """Read options from the YAML file `path`. Options that are not in the file keep their defaults.

    Raises:
        UserError: the file cannot be read, an option is unknown, or a value is of another type.
    """
    try:
        blob = yaml.load(regular(path).read_text(), OnceEach)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise UserError(f"--config {path}: cannot be read ({reason}); give a YAML file such as a study's study.yaml") from error
    blob = {} if blob is None else blob
    if not isinstance(blob, dict):
        raise UserError(f"--config {path}: it must be lines of OPTION: VALUE, e.g. sigmas: [0.5, 1.0]")
    known = list(inspect.signature(kind).parameters)
    named = {str(key).replace("-", "_"): value for key, value in blob.items()}
    if unknown := sorted(named.keys() - set(known)):
        raise UserError(f"--config {path}: no option is called {unknown[0]}; choose from: {', '.join(known)}")
    return decoded(named, kind, f"--config {path}")
