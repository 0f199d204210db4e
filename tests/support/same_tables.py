"""Compare two studies' tables to the last bit: `python -m tests.support.same_tables outputs/a outputs/b`."""

import sys
from pathlib import Path

import pandas as pd

VOLATILE = {"run_id", "images_per_s", "images_per_second", "seconds", "time", "host"}
KEYS = {
    "losses": ["spec_id", "split", "estimator"],
    "internals": ["spec_id", "quantity"],
    "curves": ["spec_id", "epoch"],
    "capacity": ["model"],
}


def compare(one: Path, other: Path) -> str:
    """Compare every table cell by cell, without run ids, times and hosts; return which tables were equal.

    Raises:
        AssertionError: a table differs, is missing or is empty.
    """
    said = []
    names = sorted(path.stem for path in (one / "tables").glob("*.parquet"))
    if not {"losses", "internals", "curves"} <= set(names):
        raise AssertionError(f"tables are missing: {names}")
    for name in names:
        a, b = (pd.read_parquet(study / "tables" / f"{name}.parquet") for study in (one, other))
        kept = [column for column in a.columns if column not in VOLATILE]
        keys = KEYS.get(name) or kept
        a, b = (frame[kept].sort_values(keys, ignore_index=True) for frame in (a, b))
        pd.testing.assert_frame_equal(a, b, check_exact=True, obj=name)
        if a.empty and name in ("losses", "internals", "curves"):
            raise AssertionError(f"table {name} is empty")
        if not a.empty:
            said.append(f"{name} ({len(a)} x {len(kept)})")
    return ", ".join(said)


if __name__ == "__main__":
    print("equal:", compare(*map(Path, sys.argv[1:3])))
