"""How many threads an engine may start: what the control group allows, in both versions and as containers show it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asperity.runtime.process.processors import Processors, processors

CASES = [
    ("none", {}, None),
    ("version 2, in a container", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    ("version 2, no limit", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    ("version 2, a service's own limit",
     {"proc/self/cgroup": "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/cpu.max": "50000 100000"}, 0.5),
    ("version 2, the slice above has less",
     {"proc/self/cgroup": "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/cpu.max": "800000 100000",
      "sys/fs/cgroup/a.slice/cpu.max": "200000 100000"}, 2.0),
    ("version 2 next to version 1",
     {"proc/self/cgroup": "1:cpu:/\n0::/x\n", "sys/fs/cgroup/unified/x/cpu.max": "300000 100000"}, 3.0),
    ("version 1, the path of the host",
     {"proc/self/cgroup": "4:cpu,cpuacct:/docker/0123\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 2.5),
    ("version 1, by its short name",
     {"proc/self/cgroup": "4:cpuacct,cpu:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000",
      "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "50000"}, 2.0),
    ("version 1, no limit",
     {"proc/self/cgroup": "4:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    ("only cpuset", {"proc/self/cgroup": "3:cpuset:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "1000",
                     "sys/fs/cgroup/cpu/cpu.cfs_period_us": "1000"}, None),
    ("nonsense", {"proc/self/cgroup": "x\n:::\n0::/\n", "sys/fs/cgroup/cpu.max": "\xff 0 0"}, None),
    ("a period of 0", {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("files", "quota"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_quota_of_a_control_group(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="latin-1")
    found = processors(tmp_path)
    assert found.quota == quota
    assert (found.there, found.allowed) == (os.cpu_count(), len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("seen", "usable"),
    [
        (Processors(8, 8, None), 8), (Processors(8, 3, None), 3), (Processors(8, 8, 2.9), 2),
        (Processors(8, 1, 4.0), 1), (Processors(8, 8, 0.25), 1), (Processors(1, 1, 16.0), 1),
    ],
)  # fmt: skip
def test_threads_that_can_run_all_the_time(seen: Processors, usable: int) -> None:
    assert seen.usable == usable
