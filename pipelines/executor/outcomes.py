"""How a training ended."""

from pipelines.files.store import Store


def outcome(store: Store, spec_id: str) -> str | None:
    """Return how the training of `spec_id` ended: "done", "failed" or "stopped" (by a search); None if it has not ended."""
    return next((end for end in ("done", "failed", "stopped") if store.exists(f"models/{spec_id}/{end}.json")), None)
