"""One reading of both clocks. Durations use the monotonic clock only; the wall clock's time goes on the wire."""

from __future__ import annotations

import time
from typing import NamedTuple

MS = 1_000_000
"""Nanoseconds in a millisecond."""


class Now(NamedTuple):
    """A moment."""

    ns: int
    """Monotonic, nanoseconds."""
    wall_us: int
    """Since 1970, microseconds."""


def look() -> Now:
    """The present moment."""
    return Now(time.monotonic_ns(), time.time_ns() // 1000)
