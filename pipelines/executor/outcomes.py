"""Tell how a training ended."""

from pipelines.files.store import Store


def outcome(store: Store, spec_id: str) -> str | None:
    """Return "done", "failed" or "stopped" (by a search), by the file in the training's folder; None if there is none yet."""
    return next((end for end in ("done", "failed", "stopped") if store.exists(f"models/{spec_id}/{end}.json")), None)
