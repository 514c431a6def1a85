"""The live loop: exposures of a camera become frames of the station, each its own and none old, mixed or made up.

What a live camera must not do is in ``docs/decisions/live-cameras.md``. A camera that is lost ends the process, and its
supervisor starts a new one with a new ``camera_session``: reconnecting within a process is a known fault of the SDKs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.source import Shot, Source
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.errors import CameraLostError
from asperity.runtime.frame import Frame
from asperity.runtime.wire import Trigger

log = logging.getLogger(__name__)

WAIT_MS = 200
"""Longest single wait for an exposure or a trigger; between two of them the program can be stopped."""
TRIGGERED_SEND_WAIT_MS = 200
"""As in ``stream``: the frame that answers a trigger is sent only once."""
STAMP_TOLERANCE_US = 1000
"""An exposure may be stamped this much before its trigger: the stamp of a shutter and the clock are rounded."""
STEADY = ("sensor", "clock", "shape_px", "intrinsics", "unit", "scale", "offset", "invalid")
"""Of a frame: what does not change while a camera is open. A difference is another camera, or another setting."""


@dataclass(slots=True)
class LiveSummary:
    """Report of a run."""

    exposures: int = 0
    """Those that became frames and those that were missed."""
    sent: int = 0
    missed: int = 0
    """Exposures that the camera counted and of which no frame came."""
    dropped: int = 0
    """Frames that the station did not take."""


class LiveLoop:
    """Takes exposures from a source and sends them. Raises what source and sender raise."""

    def __init__(self, source: Source, sender: FrameSender, settings: LiveSection) -> None:
        self.summary = LiveSummary()
        self._source, self._sender, self._settings = source, sender, settings
        self._order = ExposureOrder(settings.lost_max)

    def run(self, frames: int | None = None, progress: Callable[[], None] = lambda: None) -> None:
        """Send until ``frames`` were sent or dropped (None: until stopped). Raises CameraLostError."""
        heard_s, left = time.monotonic(), frames
        while left is None or left > 0:
            trigger: Trigger | None = None
            if self._settings.triggers == "software":
                trigger = self._sender.wait_trigger(WAIT_MS)
                if trigger is None:
                    continue
                heard_s, asked_us = time.monotonic(), time.time_ns() // 1000
                self._source.trigger()
                shot = self._answer(heard_s)
                check_after(shot.frame, asked_us)
            else:
                waited = self._source.shot(WAIT_MS)
                if waited is None:
                    self._check_silence(heard_s)
                    continue
                shot, heard_s = waited, time.monotonic()
            self._send(shot, trigger)
            left = None if left is None else left - 1
            progress()

    def _answer(self, since_s: float) -> Shot:
        while True:
            shot = self._source.shot(WAIT_MS)
            if shot is not None:
                return shot
            self._check_silence(since_s)

    def _check_silence(self, since_s: float) -> None:
        limit_ms = self._settings.silence_ms
        if limit_ms and (time.monotonic() - since_s) * 1000 > limit_ms:
            raise CameraLostError(
                f"{self._source.sensor or 'the camera'} gave no exposure for {limit_ms} ms ([live] silence_ms); "
                "check power, cable and trigger"
            )

    def _send(self, shot: Shot, trigger: Trigger | None) -> None:
        for _ in range(self._order.missed_before(shot)):
            self._sender.missed()
            self.summary.exposures += 1
            self.summary.missed += 1
        sent = self._sender.send(shot.frame, trigger, wait_ms=TRIGGERED_SEND_WAIT_MS if trigger else 0)
        self.summary.exposures += 1
        self.summary.sent += sent
        self.summary.dropped += not sent


class ExposureOrder:
    """What every exposure of an open camera has in common with the one before it."""

    def __init__(self, lost_max: int) -> None:
        self._lost_max = lost_max
        self._steady: dict[str, Any] = {}
        self._number: int | None = None
        self._exposed_us = 0

    def missed_before(self, shot: Shot) -> int:
        """How many exposures were missed since the last one.

        Raises CameraLostError for an exposure of another camera or setting, one that was there before, and a count that
        went back or jumped.
        """
        frame = shot.frame
        steady = {name: getattr(frame, name) for name in STEADY}
        steady["stored values"] = f"{'depth' if frame.xyz is None else 'xyz'} {_stored_dtype(frame)}"
        if self._steady and steady != self._steady:
            name = next(name for name, value in steady.items() if value != self._steady[name])
            raise CameraLostError(
                f"{frame.sensor or 'the camera'} changed its {name} from {self._steady[name]} to {steady[name]} while "
                "it was open; its frames are not comparable. Close the program that changes it, or replace the camera "
                "in its configuration"
            )
        if frame.t_exposure_us and frame.t_exposure_us == self._exposed_us:
            raise CameraLostError(
                f"{frame.sensor or 'the camera'} gave the exposure of {frame.t_exposure_us} us twice; a part may have "
                "got the picture of another"
            )
        missed = 0
        if (shot.number is None) != (self._number is None) and self._steady:
            raise CameraLostError(f"{frame.sensor or 'the camera'} counts only some of its exposures")
        if shot.number is not None and self._number is not None:
            missed = shot.number - self._number - 1
            if missed < 0:
                raise CameraLostError(
                    f"{frame.sensor or 'the camera'} went back in its count of exposures, from {self._number} to "
                    f"{shot.number}: it was restarted"
                )
            if missed > self._lost_max:
                raise CameraLostError(
                    f"{frame.sensor or 'the camera'} jumped in its count of exposures, from {self._number} to "
                    f"{shot.number} ([live] lost_max = {self._lost_max}); the link loses too much, or it was restarted"
                )
        self._steady, self._number, self._exposed_us = steady, shot.number, frame.t_exposure_us
        return missed


def check_after(frame: Frame, asked_us: int) -> None:
    """Raises CameraLostError for an exposure before its trigger, as far as the two clocks can be compared."""
    if frame.clock == "realtime" and frame.t_exposure_us and frame.t_exposure_us < asked_us - STAMP_TOLERANCE_US:
        raise CameraLostError(
            f"{frame.sensor or 'the camera'} answered a trigger with an exposure {asked_us - frame.t_exposure_us} us "
            "older than it; a part would have got the picture of another"
        )


def _stored_dtype(frame: Frame) -> str:
    stored = frame.depth if frame.xyz is None else frame.xyz
    return "none" if stored is None else str(stored.dtype)
