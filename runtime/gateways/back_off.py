"""When to try again what failed. Pure: the time and the chance are arguments.

Connecting alone proves nothing: a broker that accepts each connection and ends it a moment later would be tried as
fast as one can connect. So only a connection that was held resets the pauses.
"""

from __future__ import annotations

import random
from collections.abc import Callable

JITTER = 0.5
"""A pause is shortened at random by up to this part, so that two that failed together do not try again together."""


class BackOff:
    """Pauses between attempts: each twice the one before, from ``least_s`` to ``most_s``."""

    def __init__(
        self, least_s: float, most_s: float, held_s: float, chance: Callable[[], float] = random.random
    ) -> None:
        """``held_s``: a connection that lasted so long resets the pauses. ``chance``: 0 to 1."""
        self._least_s, self._most_s, self._held_s = least_s, most_s, held_s
        self._chance = chance
        self._failed = 0

    def ended(self, held_s: float) -> float:
        """An attempt has ended after a connection of ``held_s`` (0: none came about); how long to wait now."""
        if held_s >= self._held_s:
            self._failed = 0
        pause_s = min(self._most_s, self._least_s * 2.0 ** min(self._failed, 32))
        self._failed += 1
        return pause_s * (1 - JITTER * self._chance())
