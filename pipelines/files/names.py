"""Names that come from users and files, checked before they become paths."""

from uvb.errors import UserError

UNFIT = "/\\:%#?*\"'<>|"  # in a study's name, which is a folder's, part of addresses, and a registered model's


def plain_name(name: str, advice: str) -> str:
    """`name`, if a study may be called so. Raises `UserError`, ending in `advice`, if not."""
    if not name or name in (".", "..") or set(name) & set(UNFIT) or not name.isprintable():
        raise UserError(f"study {name!r}: it must be a plain name, printable and without any of {UNFIT}; {advice}")
    return name


def inside(path: str) -> str:
    """`path` without slashes at its ends, if it stays inside the folder that it is relative to.

    Raises:
        UserError: it has a part "..", or it names a drive.
    """
    parts = path.replace("\\", "/").split("/")
    if ".." in parts or "\0" in path:
        raise UserError(f"the path {path!r} leads out of its folder; the file that names it is damaged or not to be trusted")
    return path.strip("/")
