"""How many of the processor's cores this process may use."""

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OURS = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: those it may run on, or a container's share of them, rounded up."""
    return min(len(os.sched_getaffinity(0)), core_limit() or 2**16)


def core_limit(ours: Path = _OURS, cgroups: Path = _CGROUPS) -> int:
    """A container's or service's limit of cores, rounded up; 0 if it has none, or only one of cgroups version 1.

    Read from `cpu.max` of this process' cgroup and those above it: its own root within a container, as Docker and
    Kubernetes limit it.
    """
    try:
        (mine,) = (line.removeprefix("0::/") for line in ours.read_text().splitlines() if line.startswith("0::/"))
    except (OSError, ValueError):  # no cgroups, or none of version 2
        return 0
    limits = []
    for folder in (cgroups / mine, *(cgroups / mine).parents):
        if not folder.is_relative_to(cgroups):
            break
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):  # the root of all has none
            continue
        if quota != "max":
            limits.append(math.ceil(int(quota) / int(period)))
    return min(limits, default=0)
