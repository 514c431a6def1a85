"""What the kernel knows of this computer's clock: synchronised or not, how far off, set by what.

By ``adjtimex(2)``, which only reads here: every daemon that sets a clock (chrony, timesyncd, ntpd, phc2sys) leaves its
findings there. Never raises: what the kernel does not report is unknown.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STA_UNSYNC, STA_NANO = 0x0040, 0x2000
"""Of ``status``: nothing sets the clock; ``offset`` is in nanoseconds."""
TIME_ERROR = 5
"""What the call returns of a clock that is not synchronised."""
DAEMONS = {
    "chronyd": "chrony", "systemd-timesyn": "systemd-timesyncd", "ntpd": "ntpd", "openntpd": "openntpd",
    "ptp4l": "ptp4l", "phc2sys": "phc2sys", "timemaster": "timemaster",
}  # fmt: skip
"""Programs that set clocks, by the 15 characters that the kernel keeps of their names."""
PROC = Path("/proc")


class Timex(ctypes.Structure):
    """``struct timex`` of the C library."""

    _fields_ = (
        ("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long), ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long), ("status", ctypes.c_int), ("constant", ctypes.c_long),
        ("precision", ctypes.c_long), ("tolerance", ctypes.c_long), ("time_s", ctypes.c_long),
        ("time_us", ctypes.c_long), ("tick", ctypes.c_long), ("ppsfreq", ctypes.c_long), ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int), ("stabil", ctypes.c_long), ("jitcnt", ctypes.c_long), ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long), ("stbcnt", ctypes.c_long), ("tai", ctypes.c_int), ("reserved", ctypes.c_int * 11),
    )  # fmt: skip


Ask = Callable[[Timex], int]
"""Fills in a Timex and returns what ``adjtimex`` returns. Raises OSError."""


@dataclass(frozen=True, slots=True)
class KernelClock:
    """This computer's clock at one moment."""

    synchronised: bool | None
    """None: the kernel does not say."""
    offset_ms: float | None = None
    """What is left to correct."""
    error_ms: float | None = None
    """The largest error that the kernel reckons with: it grows while nothing sets the clock."""
    source: str = ""
    """Programs that set clocks and run here, or where this process sees none, nothing."""
    why: str = ""
    """Why it is unknown."""


def look(ask: Ask | None = None, proc: Path = PROC) -> KernelClock:
    """As the kernel sees the clock now."""
    seen = Timex()
    try:
        returned = (ask or _adjtimex)(seen)
    except (OSError, AttributeError) as error:
        return KernelClock(None, why=f"the kernel does not report it: {error}")
    synchronised = returned != TIME_ERROR and not seen.status & STA_UNSYNC
    offset_ms = seen.offset / (1e6 if seen.status & STA_NANO else 1e3)
    return KernelClock(synchronised, offset_ms, seen.maxerror / 1e3, daemons(proc))


def daemons(proc: Path = PROC) -> str:
    """Names of the programs that set clocks and run, joined by ``+``; empty: none is seen."""
    found = set()
    try:
        with os.scandir(proc) as entries:
            numbers = [entry.name for entry in entries if entry.name.isdecimal()]
    except OSError:
        return ""
    for number in numbers:
        try:
            name = (proc / number / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue  # it has ended
        if name in DAEMONS:
            found.add(DAEMONS[name])
    return "+".join(sorted(found))


def _adjtimex(seen: Timex) -> int:
    """Raises OSError, and AttributeError where the C library has no such function."""
    library = ctypes.CDLL(None, use_errno=True)
    returned = int(library.adjtimex(ctypes.byref(seen)))
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return returned
