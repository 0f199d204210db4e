"""Read from a training's files how it ended."""

from pipelines.files.store import Store


def outcome(store: Store, spec_id: str) -> str | None:
    """Return "done", "failed" or "stopped" (by a search), whichever file the training left; None if it left none yet."""
    return next((end for end in ("done", "failed", "stopped") if store.exists(f"models/{spec_id}/{end}.json")), None)
