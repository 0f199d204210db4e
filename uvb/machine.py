"""How much of this machine a process may use."""

import math
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def at_home(path: str) -> Path:
    """Replace ``~`` in `path` by the user's home folder. Without a home, take the user's folder in the temporary folder."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):  # the user has no home folder
        return Path(tempfile.gettempdir()) / f"uvb-{os.getuid()}" / path.partition("/")[2]
    return Path(expanded)


def usable_cpus() -> int:
    """The number of CPUs that this process may use: the CPUs in its affinity mask, but no more than a container's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, math.floor(min(cpus, cpu_quota())))


def cpu_quota(cgroups: Path = CGROUPS, mount: Path = MOUNT) -> float:
    """The number of CPUs that control groups (version 1 or 2) allow. It may be a fraction, and is infinite without a limit."""
    quotas = [math.inf]
    for version, group in _groups("cpu", cgroups, mount):
        try:
            if version == 2:
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and float(quota) > 0:
                quotas.append(float(quota) / float(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return min(quotas)


def usable_memory(cgroups: Path = CGROUPS, mount: Path = MOUNT) -> int:
    """The bytes of memory that this process may use: the machine's, or fewer if a container or a shell sets a limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    for version, group in _groups("memory", cgroups, mount):
        try:
            limits.append(int((group / ("memory.max" if version == 2 else "memory.limit_in_bytes")).read_text()))
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    return min(limit for limit in limits if limit > 0)  # RLIM_INFINITY is -1


def _groups(controller: str, cgroups: Path, mount: Path) -> Iterator[tuple[int, Path]]:
    """Yield the version and the folder of this process's control group, and of each group above it. All limit the process."""
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            version, roots = 2, [mount]
        elif controller in controllers.split(","):
            version, roots = 1, [mount / controllers, mount / controller]
        else:
            continue
        for root in roots:  # in a container `group` may not exist, because `root` itself is the process's group
            group = root / path.strip("/")
            yield from ((version, each) for each in [group, *group.parents] if each.is_relative_to(root))
