"""What every exposure of an open camera has in common with the one before it, and when it was made."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from asperity.runtime.cameras.ages import LeastDelay
from asperity.runtime.cameras.source import Shot
from asperity.runtime.clock import Now
from asperity.runtime.errors import CameraLostError
from asperity.runtime.frame import Frame

STAMP_TOLERANCE_US = 1000
"""An exposure may be stamped this much before its trigger: the stamp of a shutter and the clock are rounded."""
CLOCK_STEP_US = 5000
"""The wall clock of a computer is slewed together with its monotonic clock; more than this is a step."""
STEADY = ("sensor", "clock", "shape_px", "intrinsics", "unit", "scale", "offset", "invalid")
"""Of a frame: what does not change while a camera is open. A difference is another camera, or another setting."""


class ExposureOrder:
    """Checks the exposures of one camera, in the order in which they come."""

    def __init__(self, lost_max: int, sensor: str | None = None) -> None:
        """``sensor``: what the first frame must name; None: anything."""
        self._lost_max, self._sensor = lost_max, sensor
        self._steady: dict[str, Any] = {}
        self._number: int | None = None
        self._exposed_us = 0
        self._before: Frame | None = None
        self._delay, self._reaction = LeastDelay(), LeastDelay()
        self._ahead_us: int | None = None
        """The wall clock, ahead of the monotonic one."""

    @property
    def tells(self) -> bool:
        """An exposure that comes too late could be distinguished from that of the next trigger."""
        before = self._before
        return self._number is not None or (before is not None and before.clock == "realtime" and self._exposed_us > 0)

    def missed_before(self, shot: Shot, unanswered: int = 0) -> int:
        """How many exposures were missed since the last one. ``unanswered``: triggers since then without an exposure.

        Raises CameraLostError for an exposure of another camera or setting, one that was there before, one out of
        order, and a count that went back or jumped.
        """
        frame, number = shot.frame, None if shot.number is None else operator.index(shot.number)
        self._check_steady(frame)
        self._check_memory(frame)
        if frame.t_exposure_us and frame.t_exposure_us == self._exposed_us:
            raise CameraLostError(
                f"{name_of(frame)} gave the exposure of {frame.t_exposure_us} us twice; a part may have "
                "got the picture of another"
            )
        if frame.t_exposure_us and frame.t_exposure_us < self._exposed_us:
            raise CameraLostError(
                f"{name_of(frame)} gave an exposure of {frame.t_exposure_us} us after one of {self._exposed_us} us: it "
                "is out of order, or the clock was set"
            )
        missed = self._gap(frame, number, unanswered)
        self._number, self._before = number, frame
        self._exposed_us = frame.t_exposure_us or self._exposed_us
        return missed

    def waited_us(self, frame: Frame, arrived: Now) -> float:
        """How much longer an exposure was under way than the fastest, as far as a device's clock can tell; 0: unknown.

        With a clock that the station trusts, the station itself rejects what is too old.
        """
        if frame.clock == "realtime" or not frame.t_exposure_us:
            return 0.0
        above_us = self._delay.above_us(frame.t_exposure_us, arrived.ns // 1000)
        return above_us if frame.clock == "device" else 0.0

    def reacted_us(self, frame: Frame, asked: Now) -> float:
        """How much longer it took from a trigger to its exposure than the least; 0: unknown."""
        return self._reaction.above_us(asked.ns // 1000, frame.t_exposure_us) if frame.t_exposure_us else 0.0

    def latest_ns(self, frame: Frame, arrived: Now) -> int:
        """A time by our monotonic clock that is not before the exposure; after ``waited_us``."""
        if not frame.t_exposure_us:
            return arrived.ns
        if frame.clock == "realtime":
            return arrived.ns - (arrived.wall_us - frame.t_exposure_us - STAMP_TOLERANCE_US) * 1000
        # No frame is under way for less than no time.
        return round((frame.t_exposure_us + (self._delay.least_us or 0.0)) * 1000)

    def check_clock(self, frame: Frame, now: Now) -> None:
        """Raises CameraLostError if this computer's clock was set, which dates exposures, since the last one."""
        if frame.clock != "realtime" or not frame.t_exposure_us:
            return
        ahead_us, before_us = now.wall_us - now.ns // 1000, self._ahead_us
        self._ahead_us = ahead_us
        if before_us is not None and abs(ahead_us - before_us) > CLOCK_STEP_US:
            raise CameraLostError(
                f"the clock of this computer was set by {(ahead_us - before_us) / 1000:.0f} ms, and the exposures of "
                f"{name_of(frame)} are dated by it"
            )

    def check_after(self, frame: Frame, asked: Now) -> None:
        """Raises CameraLostError for an exposure before its trigger, as far as the two clocks can be compared."""
        if not frame.t_exposure_us:
            return
        if frame.clock == "realtime":
            early_us: float = asked.wall_us - frame.t_exposure_us
        elif self._delay.least_us is not None:
            # Exposed no later than this by our clock: no frame is under way for less than no time.
            early_us = asked.ns // 1000 - (frame.t_exposure_us + self._delay.least_us)
        else:
            return
        if early_us > STAMP_TOLERANCE_US:
            raise CameraLostError(
                f"{name_of(frame)} answered a trigger with an exposure {round(early_us)} us older than it; a part "
                "would have got the picture of another"
            )

    def _check_steady(self, frame: Frame) -> None:
        if self._sensor is not None and frame.sensor != self._sensor:
            raise CameraLostError(f"a frame is of the camera {frame.sensor!r}, but {self._sensor!r} was opened")
        steady = {name: getattr(frame, name) for name in STEADY}
        steady["stored values"] = f"{'depth' if frame.xyz is None else 'xyz'} {_stored_dtype(frame)}"
        if self._steady and steady != self._steady:
            name = next(name for name, value in steady.items() if value != self._steady[name])
            raise CameraLostError(
                f"{name_of(frame)} changed its {name} from {self._steady[name]} to {steady[name]} while "
                "it was open; its frames are not comparable. Close the program that changes it, or replace the camera "
                "in its configuration"
            )
        self._steady = steady

    def _check_memory(self, frame: Frame) -> None:
        """The frame before may still be on its way to the station."""
        before = self._before
        if before is not None and any(
            np.may_share_memory(one, other) for one in _arrays(before) for other in _arrays(frame)
        ):
            raise CameraLostError(
                f"the source of {name_of(frame)} writes an exposure over the one before, which may not be sent yet; it "
                "must give each its own arrays"
            )

    def _gap(self, frame: Frame, number: int | None, unanswered: int) -> int:
        if self._before is None:
            return 0
        if (number is None) != (self._number is None):
            raise CameraLostError(f"{name_of(frame)} counts only some of its exposures")
        if number is None or self._number is None:
            return 0
        missed = number - self._number - 1
        if missed < 0:
            raise CameraLostError(
                f"{name_of(frame)} went back in its count of exposures, from {self._number} to {number}: it was "
                "restarted"
            )
        if missed < unanswered:
            raise CameraLostError(
                f"{name_of(frame)} counted fewer exposures than it had triggers, from {self._number} to {number}: this "
                "one may answer an earlier trigger"
            )
        if missed > self._lost_max:
            raise CameraLostError(
                f"{name_of(frame)} jumped in its count of exposures, from {self._number} to {number} ([live] lost_max "
                f"= {self._lost_max}); the link loses too much, or it was restarted"
            )
        return missed


def name_of(frame: Frame) -> str:
    """The camera, for a message."""
    return frame.sensor or "the camera"


def _arrays(frame: Frame) -> list[Any]:
    return [array for array in (frame.rgb, frame.xyz, frame.depth) if array is not None]


def _stored_dtype(frame: Frame) -> str:
    stored = frame.depth if frame.xyz is None else frame.xyz
    return "none" if stored is None else str(stored.dtype)
