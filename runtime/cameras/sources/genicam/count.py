"""The camera's own count of exposures, across the wrap of GigE Vision 1, and its time in microseconds. Pure."""

from __future__ import annotations

from asperity.runtime.cameras.ages import DRIFT
from asperity.runtime.errors import CameraLostError

BLOCK_IDS = 65_535
"""GigE Vision 1 counts 1 to 65535 and then 1 again: block 0 does not exist."""
REACTION_JITTER_US = 10_000
"""Times from a trigger to the stamp of its exposure differ by less than this."""
ANSWER_MAX_US = 60_000_000
"""A stamp this far from the time that was read at the trigger is of another clock."""
MAX_TIME_US = 2**53 - 1
"""Largest time on the wire (docs/wire.md)."""


def unwrapped(last: int, frame_id: int) -> int:
    """The count that ``frame_id`` (1 to 65535) stands for, nearest to the count of the exposure before it.

    An id that was there before gives ``last`` again, one from before it a smaller number: both end the live loop.
    """
    step = (frame_id - last) % BLOCK_IDS
    return last + (step if step <= BLOCK_IDS // 2 else step - BLOCK_IDS)


class ExposureCount:
    """Frame ids as numbers that only grow; without ids, the buffers that came, damaged ones included."""

    def __init__(self, wraps: bool) -> None:
        """``wraps``: ids may have 16 bits (GigE Vision 1), which holds until one says otherwise."""
        self._wraps = wraps
        self._has_ids: bool | None = None
        self.last = 0

    def damaged(self) -> None:
        """A buffer came that cannot be used; its id is not known."""
        if not self._has_ids:
            self.last += 1

    def number(self, frame_id: int | None) -> int:
        """The number of an exposure. Raises CameraLostError for a camera that numbers only some."""
        if self._has_ids is None:
            self._has_ids = frame_id is not None
            if frame_id is not None:
                self._wraps &= 1 <= frame_id <= BLOCK_IDS
                self.last = frame_id - 1
        if self._has_ids != (frame_id is not None):
            raise CameraLostError("the camera gives only some of its buffers a frame id")
        if frame_id is None:
            self.last += 1
            return self.last
        self._wraps &= 1 <= frame_id <= BLOCK_IDS
        self.last = unwrapped(self.last, frame_id) if self._wraps else frame_id
        return self.last


class TriggerTimes:
    """Whether an exposure was made before its trigger.

    By the camera's own clock, read at the trigger, where it tells it. Else by the time from trigger to stamp, which
    two clocks that were never compared show up to a constant: none is shorter than those before.
    """

    def __init__(self) -> None:
        self._least_us: float | None = None
        """From a trigger to its stamp, across the two clocks."""
        self._seen_us = self._before_us = self._after_us = self._device_us = 0

    def triggered(self, before_us: int, after_us: int, device_us: int) -> None:
        """The camera was triggered between two times of ours, after ``device_us`` of its own; 0: not known."""
        self._before_us, self._after_us, self._device_us = before_us, after_us, device_us

    def is_before(self, stamp_us: int) -> bool:
        """Whether an exposure with this stamp was made before the last trigger. One that was not is its answer."""
        # With a time far away from the camera's, its stamps are of another clock.
        if self._device_us and abs(stamp_us - self._device_us) < ANSWER_MAX_US:
            return stamp_us < self._device_us
        drifted_us = (self._after_us - self._seen_us) * DRIFT
        least_us = self._least_us
        if least_us is not None and stamp_us - self._before_us < least_us - drifted_us - REACTION_JITTER_US:
            return True
        if self._after_us - self._before_us > REACTION_JITTER_US:
            return False  # when exactly it was triggered is not known, so nothing is learned from it
        came_us = stamp_us - self._after_us
        self._least_us = came_us if least_us is None else min(came_us, least_us + drifted_us)
        self._seen_us = self._after_us
        return False


def time_us(ticks: int, frequency_hz: float) -> int:
    """A device's time in microseconds; 0 where it has none, it cannot be, or the frequency is not known."""
    if ticks <= 0 or not frequency_hz > 0:
        return 0
    time = round(ticks * 1_000_000 / frequency_hz)
    return time if time <= MAX_TIME_US else 0
