"""Things by name: what this project registers, and what other installed packages bring by entry points."""

import importlib
import pkgutil
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from uvb.errors import UserError

_Thing = TypeVar("_Thing")


class Registry(Generic[_Thing]):
    """The things of one kind by name, e.g. all models.

    A plug-in is an entry point in `group`. It names a module whose import registers things; it is loaded when a name is
    asked for that is not known yet. So an installed plug-in is found in the driver and in every worker.

    Args:
        kind: what error lines call a thing, e.g. "model".
        group: the entry-point group, e.g. "uvb.models".
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self.known: dict[str, _Thing] = {}

    def add(self, name: str, thing: _Thing) -> None:
        """Make `thing` known by `name`; an earlier thing of that name is replaced."""
        self.known[name] = thing

    def names(self) -> list[str]:
        """All names, sorted; those of plug-ins too, without loading them."""
        return sorted({*self.known, *self._plugins()})

    def find(self, name: str) -> _Thing | None:
        """The thing called `name`, or None.

        Raises:
            UserError: a plug-in cannot be loaded.
        """
        if name not in self.known:
            self._load_for(name)
        return self.known.get(name)

    def get(self, name: str) -> _Thing:
        """The thing called `name`.

        Raises:
            UserError: there is none, or a plug-in cannot be loaded.
        """
        found = self.find(name)
        if found is None:
            raise UserError(f"unknown {self.kind} {name!r}; choose one of: {', '.join(self.names())}")
        return found

    def plugin_names(self) -> list[str]:
        """The names of the entry points in the group, sorted."""
        return sorted(self._plugins())

    def load_plugin(self, name: str) -> Any:
        """Import what the entry point `name` stands for and return it; None if no package has that entry point.

        Raises:
            UserError: the import fails; the line says whose entry point it is and why.
        """
        point = self._plugins().get(name)
        if point is None:
            return None
        try:
            return point.load()
        except Exception as error:  # a plug-in may do anything when it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            owner = point.dist.name if point.dist else "its package"
            raise UserError(
                f"{name!r}: entry point {point.value!r} cannot be loaded ({reason}); mend or uninstall {owner}"
            ) from error

    def load_plugins(self) -> None:
        """Load every plug-in of the group, so that all that they register is known."""
        for name in self.plugin_names():
            self.load_plugin(name)

    def _load_for(self, name: str) -> None:
        """Load the plug-in called `name`; if there is none, load all, since one module may register several names."""
        if name in self._plugins():
            self.load_plugin(name)
        else:
            self.load_plugins()

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def import_files(package: str, path: Iterable[str]) -> None:
    """Import every module of `package`, whose ``__path__`` is `path`, so that each registers what it has."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")
