"""Check names from users and files before they become paths."""

from uvb.errors import UserError

UNFIT = "/\\:%#?*\"'<>|"  # not in a study's name, which also names a folder, parts of addresses and registered models


def plain_name(name: str, advice: str) -> str:
    """Return `name` if a study may have this name. Otherwise raise a `UserError` that ends with `advice`."""
    if not name or name in (".", "..") or set(name) & set(UNFIT) or not name.isprintable():
        raise UserError(f"study {name!r}: it must be a plain name, printable and without any of {UNFIT}; {advice}")
    return name


def inside(path: str) -> str:
    """`path` without slashes at its ends, if it stays inside its folder.

    Raises:
        UserError: the path has a part "..", or a null character.
    """
    parts = path.replace("\\", "/").split("/")
    if ".." in parts or "\0" in path:
        raise UserError(f"the path {path!r} leads out of its folder; the file that names it is damaged or not to be trusted")
    return path.strip("/")
