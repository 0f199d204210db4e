"""How many CPUs and how much memory a process may use, from made-up control groups."""

import math
import os
import tempfile
from pathlib import Path

import pytest

from uvb import machine
from uvb.machine import at_home, cpu_quota, usable_cpus


def groups(folder: Path, lines: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write a file like Linux's /proc/self/cgroup, and a folder of control groups. Return both paths."""
    mount = folder / "fs"
    mount.mkdir()
    for name, text in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(text)
    (folder / "cgroup").write_text(lines)
    return folder / "cgroup", mount


V1 = "4:cpu,cpuacct:/pods/a\n1:name=systemd:/\n"
CASES = {
    "version 2": ("0::/pods/a\n", {"pods/a/cpu.max": "200000 100000\n"}, 2.0),
    "a fraction": ("0::/pods/a\n", {"pods/a/cpu.max": "150000 100000\n"}, 1.5),
    "no limit": ("0::/pods/a\n", {"pods/a/cpu.max": "max 100000\n"}, math.inf),
    "a group above": ("0::/pods/a\n", {"pods/a/cpu.max": "400000 100000\n", "pods/cpu.max": "50000 100000\n"}, 0.5),
    "in a container": ("0::/\n", {"cpu.max": "300000 100000\n"}, 3.0),
    "version 1": (V1, {"cpu,cpuacct/pods/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/pods/a/cpu.cfs_period_us": "100000"}, 2.5),
    "version 1, no limit": (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
    "version 1 in a container": (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
    "nonsense": ("0::/\n", {"cpu.max": "all of it"}, math.inf),
}


@pytest.mark.parametrize("case", CASES)
def test_cpu_quota_is_the_smallest_of_all_groups(case: str, tmp_path: Path) -> None:
    lines, files, quota = CASES[case]
    assert cpu_quota(*groups(tmp_path, lines, files)) == quota


def test_cpu_quota_is_infinite_without_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cpus"), [(2.0, 2), (2.9, 2), (0.5, 1), (1000.0, 64), (math.inf, 64)])
def test_usable_cpus_are_whole_and_within_the_quota(quota: float, cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert usable_cpus() == cpus


@pytest.mark.parametrize(
    ("lines", "files", "limit"),
    [
        ("0::/pods/a\n", {"pods/a/memory.max": "1000000\n", "pods/memory.max": "500000\n"}, 500_000),
        ("0::/pods/a\n", {"pods/a/memory.max": "max\n"}, None),
        ("3:memory:/pods/a\n", {"memory/pods/a/memory.limit_in_bytes": "700000\n"}, 700_000),
        ("3:memory:/pods/a\n", {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, None),
    ],
)
def test_usable_memory_is_the_smallest_limit(lines: str, files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    whole = machine.usable_memory(tmp_path / "none", tmp_path)
    assert whole > 2**28
    assert machine.usable_memory(*groups(tmp_path, lines, files)) == (limit or whole)


def test_at_home_takes_a_temporary_folder_where_there_is_no_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/.cache/uvb") == tmp_path / ".cache" / "uvb"
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user id that /etc/passwd does not have
    assert at_home("~/.cache/uvb") == Path(tempfile.gettempdir()) / f"uvb-{os.getuid()}" / ".cache" / "uvb"
    assert at_home("~nobody/cache") == Path(tempfile.gettempdir()) / f"uvb-{os.getuid()}" / "cache"
    assert at_home("/data/cache") == Path("/data/cache")
