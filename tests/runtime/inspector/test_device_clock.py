"""The clock of a camera that has its own."""

from __future__ import annotations

from asperity.runtime.inspector.part_matching import DeviceClock
from asperity.runtime.settings.station_toml import HardWired

MS = 1_000_000


def test_a_device_clock_that_begins_again_is_measured_again() -> None:
    """A counter of 32 bits of microseconds: frames would be dated 71 minutes back as long as older ones are known."""
    clock = DeviceClock(HardWired(pitch_min_ms=400, transit_ms=5, device_frames=3))
    wrap_us = 2**32

    def map_at(n: int, transit_ms: int = 5) -> int | None:
        return clock.map((wrap_us - 4_000_000 + 400_000 * n) % wrap_us, (400 * n + transit_ms) * MS)

    before = [map_at(n) for n in range(10)]
    assert before == [None] * 3 + [400 * n * MS for n in range(3, 10)]
    after = [map_at(n) for n in range(10, 20)]
    assert after == [None] * 3 + [400 * n * MS for n in range(13, 20)]
    assert map_at(20, transit_ms=50_000) == 400 * 20 * MS, "a frame that only arrives late changes nothing"
