"""Exposures of an open camera without an inspector: for its check, and to record frames for calibration."""

from __future__ import annotations

import time
from typing import NamedTuple

from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.live import ExposureOrder, check_after
from asperity.runtime.cameras.source import Shot, Source
from asperity.runtime.errors import CameraLostError

WAIT_MS = 200
"""Longest single wait for an exposure; between two of them the program can be stopped."""


class Taken(NamedTuple):
    """An exposure and when it came."""

    shot: Shot
    missed: int
    """Exposures that the camera counted before this one and of which no frame came."""
    arrived_us: int
    arrived_s: float
    """Of the monotonic clock."""
    triggered_s: float
    """When it was asked for, of the monotonic clock; 0: it was not."""


class Exposures:
    """Takes exposures from a source, under the rules that the live loop has (``live.ExposureOrder``)."""

    def __init__(self, source: Source, settings: LiveSection) -> None:
        self.software = settings.triggers == "software"
        self._source, self._settings = source, settings
        self._order = ExposureOrder(settings.lost_max)

    def take(self) -> Taken:
        """The next exposure; with software triggers, one that is asked for now.

        Raises CameraLostError when none comes for ``silence_ms``, and what source and order raise.
        """
        triggered_s, asked_us = time.monotonic(), time.time_ns() // 1000
        if self.software:
            self._source.trigger()
        while True:
            shot = self._source.shot(WAIT_MS)
            now_s, now_us = time.monotonic(), time.time_ns() // 1000
            if shot is not None:
                break
            limit_ms = self._settings.silence_ms
            if limit_ms and (now_s - triggered_s) * 1000 > limit_ms:
                raise CameraLostError(
                    f"{self._source.sensor or 'the camera'} gave no exposure for {limit_ms} ms ([live] silence_ms); "
                    "check power, cable and trigger"
                )
        if self.software:
            check_after(shot.frame, asked_us)
        missed = self._order.missed_before(shot)
        return Taken(shot, missed, now_us, now_s, triggered_s if self.software else 0.0)
