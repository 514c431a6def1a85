"""The camera's own count of exposures, across the wrap of GigE Vision 1, and its time in microseconds. Pure."""

from __future__ import annotations

from asperity.runtime.errors import CameraLostError

BLOCK_IDS = 65_535
"""GigE Vision 1 counts 1 to 65535 and then 1 again: block 0 does not exist."""
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


def time_us(ticks: int, frequency_hz: float) -> int:
    """A device's time in microseconds; 0 where it has none, it cannot be, or the frequency is not known."""
    if ticks <= 0 or not frequency_hz > 0:
        return 0
    time = round(ticks * 1_000_000 / frequency_hz)
    return time if time <= MAX_TIME_US else 0
