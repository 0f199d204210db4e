"""Check names from users and files before they become paths."""

from uvb.errors import UserError

UNFIT = "/\\:%#?*\"'<>|"  # forbidden in a study's name, since paths, URLs and names of registered models contain that name


def plain_name(name: str, advice: str) -> str:
    """Return `name` if it is fit for a study. Otherwise raise a `UserError` that ends with `advice`."""
    if not name or name in (".", "..") or set(name) & set(UNFIT) or not name.isprintable():
        raise UserError(f"study {name!r}: it must be a plain name, printable and without any of {UNFIT}; {advice}")
    return name


def inside(path: str) -> str:
    """Check that `path` stays inside its folder, and return it without slashes at its ends.

    Raises:
        UserError: the path contains ".." or a null character.
    """
    parts = path.replace("\\", "/").split("/")
    if ".." in parts or "\0" in path:
        raise UserError(f"the path {path!r} leads out of its folder; the file that names it is damaged or not to be trusted")
    return path.strip("/")
