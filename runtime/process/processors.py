"""How many processors this process may use: less than the machine has where a container or service is limited."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Processors:
    """What limits the processors."""

    there: int
    """Of the machine."""
    allowed: int
    """By the affinity mask (``taskset``, cpusets)."""
    quota: float | None
    """Processors' worth of time in each period that the control group may use; None: not limited."""

    @property
    def usable(self) -> int:
        """Threads that can run all the time. A thread more would be stopped for the rest of a period: a late frame."""
        return max(1, min(self.allowed, math.floor(self.quota) if self.quota is not None else self.allowed))


def processors(root: Path = Path("/")) -> Processors:
    """This process's; ``root``: where ``proc`` and ``sys`` are."""
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return Processors(there, allowed, _quota(root))


def usable_processors() -> int:
    """Threads of this process that can run at a time."""
    return processors().usable


def _quota(root: Path) -> float | None:
    """The lowest quota of this process's control group and those above it, of either version of control groups."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0" and not controllers:
            mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        else:
            continue
        # In a container the path may be the host's, of which only the end, or nothing, is mounted here.
        group = Path(place.lstrip("/"))
        for mount in mounts:
            quotas += [_quota_of(root / mount / part) for part in (group, *group.parents)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(group: Path) -> float | None:
    words = _read(group / "cpu.max").split() or [
        _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip(),
    ]  # fmt: skip
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]) > 0:
        return int(words[0]) / int(words[1])
    return None  # "max", -1, or none


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
