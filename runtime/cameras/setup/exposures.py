"""Exposures of an open camera without an inspector: for its check, and to record frames for calibration."""

from __future__ import annotations

from typing import NamedTuple

from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.exposure_order import ExposureOrder
from asperity.runtime.cameras.source import Shot, Source, call
from asperity.runtime.clock import MS, Now, look
from asperity.runtime.errors import CameraError, CameraLostError
from asperity.runtime.frame import frame_size_fault

WAIT_MS = 200
"""Longest single wait for an exposure; between two of them the program can be stopped."""


class Taken(NamedTuple):
    """An exposure and when it came."""

    shot: Shot
    missed: int
    """Exposures that the camera counted before this one and of which no frame came."""
    arrived: Now
    asked: Now | None
    """When it was triggered; None: not by us."""


class Exposures:
    """Takes exposures from a source, under the rules that the live loop has (``ExposureOrder``)."""

    def __init__(self, source: Source, settings: LiveSection) -> None:
        self.software = settings.triggers == "software"
        self._source, self._settings = source, settings
        self._sensor = source.sensor or "the camera"
        self._order = ExposureOrder(settings.lost_max, source.sensor)

    def take(self) -> Taken:
        """The next exposure; with software triggers, one that is asked for now.

        Raises CameraLostError when none comes for ``silence_ms``, CameraError for a frame larger than a station takes,
        and what source and order raise.
        """
        began = look()
        if self.software:
            call(self._sensor, self._source.trigger)
        while (shot := call(self._sensor, self._source.shot, WAIT_MS)) is None:
            limit_ms = self._settings.silence_ms
            if limit_ms and look().ns - began.ns > limit_ms * MS:
                raise CameraLostError(
                    f"{self._sensor} gave no exposure for {limit_ms} ms ([live] silence_ms); check the camera, its "
                    "cable or program, and its trigger"
                )
        arrived = look()
        if fault := frame_size_fault(*shot.frame.shape_px):
            raise CameraError(f"the picture of {self._sensor} is {fault}; set the camera to a smaller one, or binning")
        if self.software:
            self._order.check_after(shot.frame, began)
        return Taken(shot, self._order.missed_before(shot), arrived, began if self.software else None)
