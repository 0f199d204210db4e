"""Registries, which find models, data sets and so on by name. Other installed packages can add to them by entry points."""

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from uvb.errors import UserError, with_type

_Thing = TypeVar("_Thing")


class Registry(Generic[_Thing]):
    """All things of one kind by name, e.g. all models.

    A plug-in is an entry point in `group` that names a module. Importing the module registers its things. The registry imports
    this module when somebody asks for an unknown name. This happens in the driver and in every worker.

    Args:
        kind: what error messages call a thing, e.g. "model".
        group: the entry-point group, e.g. "uvb.models".
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self.known: dict[str, _Thing] = {}

    def add(self, name: str, thing: _Thing) -> None:
        """Register `thing` under `name`, in place of any earlier thing of that name."""
        self.known[name] = thing

    def names(self) -> list[str]:
        """All names, also those of plug-ins that are not loaded yet, sorted."""
        unloaded = [name for name, point in self._plugins().items() if point.module not in sys.modules]
        return sorted({*self.known, *unloaded})

    def get(self, name: str) -> _Thing:
        """The thing called `name`. Raises `UserError` if there is none, or a plug-in cannot be loaded."""
        if name in self.known:
            return self.known[name]
        if point := self._plugins().get(name):
            self.load_plugin(name)
            wrong = f"{name!r}: entry point {point.value!r} registers no {self.kind} of this name; mend {_owner(point)}, or"
        else:  # a plug-in may register other names than its entry point's
            self.load_plugins()
            wrong = f"unknown {self.kind} {name!r};"
        if name not in self.known:
            raise UserError(f"{wrong} choose one of: {', '.join(sorted(self.known))}")
        return self.known[name]

    def plugin_names(self) -> list[str]:
        """The names of the entry points in the group, sorted."""
        return sorted(self._plugins())

    def load_plugin(self, name: str) -> Any:
        """Load the entry point `name` and return its object, or None if no package has that entry point.

        Raises:
            UserError: the import fails. The message says why, and which package to mend.
        """
        point = self._plugins().get(name)
        if point is None:
            return None
        try:
            return point.load()
        except Exception as error:  # a plug-in may do anything when it is imported
            reason = with_type(error)
            raise UserError(
                f"{name!r}: entry point {point.value!r} cannot be loaded ({reason}); mend or uninstall {_owner(point)}"
            ) from error

    def load_plugins(self) -> None:
        """Load every plug-in of the group."""
        for name in self.plugin_names():
            self.load_plugin(name)

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "its package"


def import_files(package: str, path: Iterable[str]) -> None:
    """Import every module of `package`, which has the ``__path__`` `path`. Each module registers its things."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
