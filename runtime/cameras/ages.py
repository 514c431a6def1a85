"""How old something is that has waited, or bears the time of another clock."""

from __future__ import annotations

import time

from asperity.runtime.clock import MS, Now

DRIFT = 200e-6
"""Two clocks run apart by less than this share: 17 s a day."""
LOOKS = 20
"""How often two clocks are read until they were read at once."""


def look() -> Now:
    """The present moment, by a clock that also counts while the computer is suspended."""
    for _ in range(LOOKS):
        now = Now(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns() // 1000)
        if time.clock_gettime_ns(time.CLOCK_BOOTTIME) - now.ns < MS:  # else it stood still between the two
            break
    return now


class LeastDelay:
    """Delays between two clocks that were never compared: each, above the least that was seen.

    The least is the difference of the clocks and the shortest way. It may grow by ``DRIFT``, as the clocks run apart.
    """

    def __init__(self) -> None:
        self.least_us: float | None = None
        """``here_us`` minus ``there_us`` of what came the fastest way; None: nothing has come."""
        self._seen_us = 0

    def above_us(self, there_us: int, here_us: int) -> float:
        """How much longer this took than the fastest: from ``there_us`` by the other clock to ``here_us`` by ours."""
        delay_us = here_us - there_us
        if self.least_us is None:
            self.least_us = delay_us
        else:
            self.least_us = min(delay_us, self.least_us + (here_us - self._seen_us) * DRIFT)
        self._seen_us = here_us
        return delay_us - self.least_us
