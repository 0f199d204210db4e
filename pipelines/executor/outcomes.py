"""How a training ended, read from the files it left."""

from typing import Any

from pipelines.files.store import Store


def outcome(store: Store, spec_id: str) -> str | None:
    """Return "done", "failed", or "stopped" (by a search): the file of that name says so. None while it has not ended."""
    return next((end for end in ("done", "failed", "stopped") if store.exists(f"models/{spec_id}/{end}.json")), None)


def read_json(store: Store, path: str) -> dict[str, Any]:
    """Return a JSON object, or {} where the file is absent or damaged: for files that the reader can do without."""
    try:
        blob = store.read_json(path)
    except (OSError, ValueError):
        return {}
    return blob if isinstance(blob, dict) else {}
