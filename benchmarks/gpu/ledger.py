"""Remember in files what was measured on this kind of machine, so that no later call measures it again."""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Row, commit, machine, require_alive
from pipelines.files import study_files
from uvb.errors import first_line, with_type

Check = dict[str, Any]  # {"ok": bool, ...numbers}

say = partial(print, flush=True)


class Ledger:
    """Rows of benchmarks (bench.json), checks (checks.json) and failures (failures.json).

    A job is one check or one benchmark. Every job updates these files.

    Args:
        folders: the folders of earlier calls, the newest last. The ledger writes to the last one.
        left: returns the seconds until work must stop. A job that needs more seconds does not begin.
        send: called after each job, with the job's name.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        device: str,
        left: Callable[[], float] = lambda: math.inf,
        send: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.folder, self.device, self.left, self.send = folders[-1], device, left, send
        self.rows: list[Row] = newest(folders, "bench.json") or []
        self.checks: dict[str, Check] = (newest(folders, "checks.json") or {}).get("checks", {})
        self.failures: dict[str, str] = newest(folders, "failures.json") or {}  # "<machine>: <job>" -> why

    def known(self, job: str) -> bool:
        """Whether a job ran or failed on this kind of machine. A job like "exact/" ran if a row's name begins with "exact/"."""
        names = {row["name"] for row in self.rows if row["machine"] == machine()}
        names |= {name for name, check in self.checks.items() if check["machine"] == machine()}
        names |= {name.removeprefix(f"{machine()}: ") for name in self.failures}
        return job in names or (job.endswith("/") and any(name.startswith(job) for name in names))

    def check(self, job: str, run: Callable[[], Check]) -> None:
        """Run a check unless it is known or the time is up. A check that raises is recorded as not ok, with the reason."""
        if self.known(job) or self.left() < 0:
            return
        started = time.monotonic()
        try:
            found = run()
        except Exception as error:  # record the error, so that the other checks still run
            found = {"ok": False, "error": f"{type(error).__name__}: {error}"}
        seconds = round(time.monotonic() - started, 2)
        say(f"{'ok  ' if found['ok'] else 'FAIL'} {job} ({seconds} s) {json.dumps(found)[:400]}")
        self.checks[job] = found | {"seconds": seconds, "machine": machine(), "commit": commit()}
        self._written(job)

    def measure(self, job: str, run: Callable[[], Iterable[Row]], seconds: float = 0.0) -> None:
        """Run a benchmark unless it is known or fewer than `seconds` are left. An exception is recorded as a failure."""
        if self.known(job) or self.left() < seconds:
            return
        try:
            for row in run():
                ratio = f"  {row['ratio']:.2f}x {row['reference']}" if row["ratio"] else ""
                say(f"{row['name']:<62} {row['value']:.4g} {row['unit']}{ratio}")
                self.rows.append(row)
        except Exception as error:
            why = self.failures[f"{machine()}: {job}"] = with_type(error, first_line)
            say(f"{job}: {why}")
        self._written(job)

    def _written(self, job: str) -> None:
        write_json(self.folder / "bench.json", self.rows)
        write_json(self.folder / "checks.json", {"machine": machine_json(self.device), "checks": self.checks})
        write_json(self.folder / "failures.json", self.failures)
        self.send(job)
        require_alive(self.device)


def newest(folders: Sequence[Path], name: str) -> Any:
    """The content of the file `name` in the last folder that has it, or None."""
    found = [folder / name for folder in folders if (folder / name).exists()]
    return json.loads(found[-1].read_text()) if found else None


def machine_json(device: str) -> dict[str, Any]:
    blob: dict[str, Any] = {"machine": machine(), "commit": commit()}
    blob |= {"python": platform.python_version(), "cpus": os.cpu_count()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        blob |= {"gpu": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda}
        blob |= {"cudnn": torch.backends.cudnn.version(), "multiprocessors": properties.multi_processor_count}
    return blob


def write_json(path: Path, value: Any) -> None:
    """Write a file atomically. Numbers that are not finite become null."""
    study_files.write_json(path, json.loads(json.dumps(value), parse_constant=lambda _: None))
