"""How much of this machine a process may use."""

import math
import os
from pathlib import Path

CGROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """How many CPUs this process may use: those of its affinity mask, and no more than a container's quota allows."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cpus, cpu_quota()) + 1e-9))


def cpu_quota(cgroups: Path = CGROUPS, mount: Path = MOUNT) -> float:
    """The CPUs that control groups (version 1 or 2) allow this process, which may be a fraction; infinite where none does.

    Every group above ours limits us, too, so the smallest quota counts.
    """
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += [_quota_v2(group) for group in _groups(mount, path)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(group) for group in _groups(mount / controllers, path)]
            quotas += [_quota_v1(group) for group in _groups(mount / "cpu", path)]
    return min(quotas)


def _groups(root: Path, path: str) -> list[Path]:
    """The folder of a group and of those above it. In a container the mount may begin at our own group."""
    group = root / path.strip("/")
    return [group, *[parent for parent in group.parents if parent.is_relative_to(root)]]


def _quota_v2(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _quota_v1(group: Path) -> float:
    try:
        quota = float((group / "cpu.cfs_quota_us").read_text())
        period = float((group / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def usable_memory(cgroups: Path = CGROUPS, mount: Path = MOUNT) -> int:
    """How many bytes of memory this process may use: the machine's, and no more than a container's limit allows."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:  # no Linux
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += [_bytes(group / "memory.max") for group in _groups(mount, path)]
        elif "memory" in controllers.split(","):
            limits += [_bytes(group / "memory.limit_in_bytes") for group in _groups(mount / "memory", path)]
    return min(limit for limit in limits if limit > 0)


def _bytes(file: Path) -> int:
    """The number in a file; 0 where there is none, as where no limit is set."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0
