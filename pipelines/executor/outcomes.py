"""How a training ended, read from the files it left."""

from pipelines.files.store import Store


def outcome(store: Store, spec_id: str) -> str | None:
    """Return "done", "failed", or "stopped" (by a search): the file of that name says so. None while it has not ended."""
    return next((end for end in ("done", "failed", "stopped") if store.exists(f"models/{spec_id}/{end}.json")), None)
