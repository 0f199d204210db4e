"""Counts as text."""


def counted(count: int, what: str) -> str:
    """``1 epoch``, ``2 epochs``, ``1,000 epochs``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")
