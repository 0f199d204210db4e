"""torch.compile's step against ours on a CPU, both bf16: why a plan compiles on GPUs alone, unless it is told to.

python benchmarks/compiled.py [--quick]

Each side runs in a process of its own, and they step in turn, as in step.py. The compiler takes about a minute more.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from measure import Row, Side, in_turn, row
from step import side

from uvb.plan import has_fast_bf16, usable_cpus


def compiled_row(name: str, data: str, repeats: int) -> Row:
    """How many times faster the compiled step is (below 1: slower)."""
    ours, compiled = (Side(side, kind, name, data, usable_cpus()) for kind in ("bf16", "compiled"))
    first, second = in_turn([(ours, "step"), (compiled, "step")], repeats=repeats)
    for each in (ours, compiled):
        each.close()
    return row(f"step/{name}/{data}/cpu-compile-bf16", second, f"step/{name}/{data}/cpu-bf16", first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if not has_fast_bf16("cpu"):
        print("this CPU has no bf16 arithmetic; nothing to compare")
        return
    for name in ("uvb",) if args.quick else ("uvb", "deen"):
        print(json.dumps(compiled_row(name, "mnist", 2 if args.quick else 5)), flush=True)


if __name__ == "__main__":
    main()
