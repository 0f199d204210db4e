"""How files come to be known: those of a package of ours, and what other installed packages name by entry points."""

import importlib
import pkgutil
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from uvb.errors import UserError


def import_files(package: str, path: Iterable[str]) -> None:
    """Import every module of `package`, whose ``__path__`` is `path`, so that each registers what it has."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def plugin_names(group: str) -> list[str]:
    """The names in a group, sorted."""
    return sorted(_plugins(group))


def load_plugin(group: str, name: str) -> Any:
    """What the entry point `name` of `group` stands for, imported; None where no package has it.

    Raises:
        UserError: importing it fails; the line says whose entry point it is and why.
    """
    point = _plugins(group).get(name)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:  # whatever somebody's module does when it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        owner = point.dist.name if point.dist else "its package"
        raise UserError(
            f"{name!r}: entry point {point.value!r} cannot be loaded ({reason}); mend or uninstall {owner}"
        ) from error


def load_registering(group: str, name: str) -> None:
    """Import what may register `name`: the entry point of that name, or where there is none all of the group, since one
    module may register several.

    Raises:
        UserError: as `load_plugin`.
    """
    names = plugin_names(group)
    for point in [name] if name in names else names:
        load_plugin(group, point)


def _plugins(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}
