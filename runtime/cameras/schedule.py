"""Schedule of an open loop: frames at a fixed rate."""

from __future__ import annotations

import time
from collections.abc import Callable

from asperity.runtime.errors import UsageError

NS_PER_S = 1_000_000_000
LONGEST_PERIOD_S = 3600


class Schedule:
    """Frame n is due n periods after the first one, on the monotonic clock.

    A frame that comes late does not move the next one: what was lost is caught up, never added.
    """

    def __init__(
        self,
        rate_hz: float,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises UsageError for a rate outside 1/3600 to 10 000 frames/s."""
        if not 1 / LONGEST_PERIOD_S <= rate_hz <= 10_000:
            raise UsageError(f"the rate is {rate_hz} frames/s; it must be 1/{LONGEST_PERIOD_S} to 10000")
        self.period_ns = round(NS_PER_S / rate_hz)
        self._rate_hz, self._clock_ns, self._sleep_s = rate_hz, clock_ns, sleep_s
        self._start_ns: int | None = None
        self._count = 0

    def wait(self) -> int:
        """Wait until the next frame is due; returns by how much it is late, ns. The first call starts the clock."""
        if self._start_ns is None:
            self._start_ns = self._clock_ns()
        due_ns = self._start_ns + round(self._count * NS_PER_S / self._rate_hz)
        self._count += 1
        while (left_ns := due_ns - self._clock_ns()) > 0:
            self._sleep_s(left_ns / NS_PER_S)
        return -left_ns
