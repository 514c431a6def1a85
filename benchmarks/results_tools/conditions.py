"""Under what conditions a figure was taken: clocks, governor, load, time stolen by the host, threads, versions."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from asperity.benchmarks.results_tools.machine import commit, machine
from asperity.runtime import __version__

THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
)  # fmt: skip
PACKAGES = ("numpy", "scipy", "onnxruntime", "pyzmq", "msgspec", "threadpoolctl", "torch")
SCHEDULERS = {os.SCHED_OTHER: "other", os.SCHED_FIFO: "fifo", os.SCHED_RR: "rr", os.SCHED_BATCH: "batch"}
CPU_FOLDER = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Before:
    """The machine's state when a measurement began."""

    began_s: float
    ticks: tuple[int, int, int]
    own_s: float
    machine: dict[str, Any]


def begin() -> Before:
    """Note the state of the machine."""
    return Before(time.monotonic(), _ticks(), _own_s(), {**machine(), **_clocks()})


def end(before: Before, **more: Any) -> dict[str, Any]:
    """The conditions for a result file. ``more``: pinning, priority, threads of the engine.

    ``others_percent``: share of all cores that programs outside the measurement used. Call it after the
    measurement's own processes have ended: only then are they counted as part of it.
    """
    total, idle, stolen = (after - began for after, began in zip(_ticks(), before.ticks, strict=True))
    own = (_own_s() - before.own_s) * os.sysconf("SC_CLK_TCK")
    shares = {"busy_percent": None, "others_percent": None, "stolen_percent": None} if total <= 0 else {
        "busy_percent": round(100 * (1 - idle / total), 1),
        "others_percent": round(max(0.0, 100 * (total - idle - stolen - own) / total), 1),
        "stolen_percent": round(100 * stolen / total, 2),
    }  # fmt: skip
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit(),
        "machine": {key: value for key, value in before.machine.items() if key != "load_1min"},
        "conditions": {
            "seconds": round(time.monotonic() - before.began_s, 1),
            "load_1min_before": before.machine["load_1min"],
            "load_1min_after": round(os.getloadavg()[0], 2),
            **shares,
            "bench_nice": os.getpriority(os.PRIO_PROCESS, 0),
            "bench_scheduler": SCHEDULERS.get(os.sched_getscheduler(0), "other"),
            "environment": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
            **more,
        },
        "versions": versions(),
    }


def _own_s() -> float:
    """Processor seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def versions() -> dict[str, str]:
    """Versions of this project, Python, and the packages that a figure depends on, as far as they are installed."""
    import zmq

    found = {"asperity": __version__, "python": platform.python_version(), "libzmq": zmq.zmq_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def blas_threads() -> list[dict[str, Any]]:
    """The thread pools of this process, by library."""
    from threadpoolctl import threadpool_info

    kept = ("user_api", "internal_api", "version", "num_threads", "architecture")
    return [{key: pool[key] for key in kept if key in pool} for pool in threadpool_info()]


def _clocks() -> dict[str, Any]:
    """Governor, boost and clocks as the kernel reports them; None if it reports nothing (virtual machines)."""
    governors = {_read(path) for path in sorted(CPU_FOLDER.glob("cpu[0-9]*/cpufreq/scaling_governor"))} - {None}
    rows = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    mhz = [float(row.partition(":")[2]) for row in rows if row.startswith("cpu MHz")]
    return {
        "governor": ", ".join(sorted(name for name in governors if name)) or None,
        "boost": _read(CPU_FOLDER / "cpufreq" / "boost"),
        "mhz": [round(min(mhz)), round(max(mhz))] if mhz else None,
        "smt": _read(CPU_FOLDER / "smt" / "active"),
    }


def _ticks() -> tuple[int, int, int]:
    """All, idle and stolen ticks since the machine started; zeros if the system does not count them."""
    first = (_read(Path("/proc/stat")) or "").partition("\n")[0].split()[1:]
    counts = [int(value) for value in first]
    if len(counts) < 8:
        return 0, 0, 0
    return sum(counts[:8]), counts[3] + counts[4], counts[7]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
