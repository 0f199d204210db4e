"""Names of data sets, and how each name or path becomes an ImageSet."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from uvb.data.image_set import ImageSet
from uvb.data.readers.own import load_path
from uvb.errors import UserError
from uvb.plugins import load_plugin, plugin_names

_Loader = TypeVar("_Loader", bound=Callable[..., ImageSet])
_loaders: dict[str, Callable[..., ImageSet]] = {}


def register_dataset(name: str) -> Callable[[_Loader], _Loader]:
    """Decorator: makes ``fn(data_dir: Path) -> ImageSet`` the loader of `name`.

    A loader that uses the network also takes a keyword ``download: bool`` and stays offline where it is False. Another
    package registers by an entry point in group ``uvb.datasets``, name to function, without importing this one.

    Raises:
        UserError: another function already has the name.
    """

    def register(loader: _Loader) -> _Loader:
        taken = _loaders.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (loader.__module__, loader.__qualname__):
            raise UserError(f"data set name {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another")
        _loaders[name] = loader
        return loader

    return register


def dataset_names() -> list[str]:
    """All names that `load_dataset` knows, sorted."""
    return sorted({*_loaders, *plugin_names("uvb.datasets")})


def load_dataset(
    name_or_path: str, data_dir: str | Path = "data", *, download: bool = True, label_column: str | None = None
) -> ImageSet:
    """The images of a registered name, or of one's own files (`uvb.data.readers.own.load_path`); a name goes before a path.

    Args:
        name_or_path: e.g. ``"digits"``, or a path such as ``"./faces"``.
        data_dir: where named data sets keep their files.
        download: False forbids the network.
        label_column: the column of labels in one's own Parquet; by default ``label``, if there.

    Raises:
        UserError: neither a name nor a path, or the files are absent, damaged or unfit.
    """
    loader = _loaders.get(name_or_path) or _plugin(name_or_path)
    if loader is None:
        path = Path(name_or_path).expanduser()
        if not name_or_path or not path.exists():
            raise UserError(
                f"no data set {name_or_path!r}: neither a known name ({', '.join(dataset_names())}) nor an existing "
                "path to a Parquet file or folder, an .npz, or a folder of images"
            )
        return load_path(path, label_column=label_column)
    if label_column is not None:
        raise UserError(
            f"label_column = {label_column!r} is for one's own Parquet files; data set {name_or_path!r} brings its labels"
        )
    takes_download = "download" in inspect.signature(loader).parameters
    images = loader(Path(data_dir), **({"download": download} if takes_download else {}))
    if not isinstance(images, ImageSet):
        raise UserError(f"data set {name_or_path!r}: its loader returned {type(images).__name__}, not an ImageSet")
    return images


def _plugin(name: str) -> Callable[..., ImageSet] | None:
    """An entry point names the loader itself, or a module whose import registers it."""
    found = load_plugin("uvb.datasets", name)
    return _loaders.get(name) if found is None or not callable(found) else found
