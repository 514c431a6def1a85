"""The clock of a PLC that says what time it has: how far it is from this computer's. It commands nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated

from asperity.runtime.clock import MS, Now, look
from asperity.runtime.settings.toml_tables import Section, number

log = logging.getLogger("asperity.gateway")


class Clocks(Section, frozen=True, forbid_unknown_fields=True):
    """The clock of the PLC, if it says what time it has (docs/clocks.md)."""

    plc_offset_max_ms: Annotated[
        int, number(1, 86_400_000, "a PLC's clock that is further from this computer's is reported")
    ] = 1000
    plc_silent_s: Annotated[
        int, number(1, 604_800, "after this long without a time from the PLC its clock is not known any more")
    ] = 300


class PlcClock:
    """Of one gateway. For one thread."""

    def __init__(self, config: Clocks, clock: Callable[[], Now] = look) -> None:
        self._config = config
        self._clock = clock
        self._offset_ms: float | None = None
        self._until_ns = 0
        self._was_off = False

    def says(self, plc_us: int, peer: str) -> None:
        """The PLC says that it is ``plc_us`` microseconds since 1970, UTC, now."""
        now = self._clock()
        self._offset_ms = (plc_us - now.wall_us) / 1000
        self._until_ns = now.ns + self._config.plc_silent_s * 1000 * MS
        if self.is_off and not self._was_off:
            log.warning("%s: %s", peer, self.problem)
        elif self._was_off and not self.is_off:
            log.info("%s: the PLC's clock is right again: off by %.0f ms", peer, self._offset_ms)
        self._was_off = self.is_off

    @property
    def offset_ms(self) -> float | None:
        """By how much it is ahead of this computer's, with the way of the message; None: not known."""
        return self._offset_ms if self._clock().ns < self._until_ns else None

    @property
    def is_off(self) -> bool:
        """It is known to be further off than ``plc_offset_max_ms``."""
        offset_ms = self.offset_ms
        return offset_ms is not None and abs(offset_ms) > self._config.plc_offset_max_ms

    @property
    def problem(self) -> str:
        """What is wrong with it, and what to do; empty: nothing that is known."""
        if not self.is_off:
            return ""
        return (
            f"the PLC's clock is off by {self._offset_ms:.0f} ms, more than [clocks] plc_offset_max_ms: set it by the "
            "station's time, or synchronise both"
        )

    @property
    def word(self) -> str:
        """``unknown``, ``ok`` or ``off``."""
        return "unknown" if self.offset_ms is None else "off" if self.is_off else "ok"
