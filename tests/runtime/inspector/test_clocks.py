"""The clocks of computer and camera: what is shown, what is alarmed, and what they must not do to a part."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime.clock import MS
from asperity.runtime.inspector.clocks import FRAMES_MIN
from asperity.runtime.inspector.hard_wired_line import _is_wide
from asperity.runtime.inspector.part_matching import PartMatcher
from asperity.runtime.process.kernel_clock import KernelClock
from asperity.runtime.settings.station_toml import HardWired
from tests.runtime.inspector import line_simulation as lines
from tests.runtime.inspector.station_floor import Floor, MakeFloor

GOOD = KernelClock(True, 0.01, 0.2, "ptp4l")
UNSYNCHRONISED = KernelClock(False, 0.0, 16_000.0)
UNKNOWN = KernelClock(None, why="not permitted")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    made: list[Floor] = []

    def build(*args: Any, **sections: Any) -> Floor:
        made.append(Floor(tmp_path / f"{len(made)}.journal", *args, **sections))
        return made[-1]

    yield build
    for floor in made:
        floor.close()


def judged(floor: Floor, **fields: Any) -> str:
    """Reason of the newest result, after a frame."""
    floor.send(**fields)
    floor.settle()
    return floor.reasons[-1] if floor.results else ""


def test_the_state_says_what_is_known_of_both_clocks(make: MakeFloor) -> None:
    floor = make()
    clocks = floor.state.clocks
    assert clocks is not None and clocks.camera.clock == "" and clocks.camera.offset_ms is None
    floor.clock(GOOD)
    for late_us in (40_000, 35_500, 60_000):
        judged(floor, clock="ptp", t_exposure_us=floor.now.wall_us - late_us)
    clocks = floor.state.clocks
    assert clocks is not None and (clocks.computer.synchronised, clocks.computer.source) == (True, "ptp4l")
    assert (clocks.computer.offset_ms, clocks.computer.error_ms) == (0.01, 0.2)
    assert (clocks.camera.clock, clocks.camera.offset_ms) == ("ptp", 35.5)
    judged(floor, clock="device", t_exposure_us=123)
    clocks = floor.state.clocks
    assert clocks is not None and (clocks.camera.clock, clocks.camera.offset_ms) == ("device", None)


@pytest.mark.parametrize(
    ("kernel", "clock", "settings", "alarm"),
    [
        (GOOD, "ptp", {}, ""),
        (UNSYNCHRONISED, "ptp", {}, "not synchronised, and the camera's times rely on it (ptp)"),
        (UNSYNCHRONISED, "realtime", {}, ""),  # of the one computer that reaches the frames socket
        (UNSYNCHRONISED, "device", {}, ""),
        (UNSYNCHRONISED, "device", {"require_synchronised": True}, "not synchronised"),
        (UNKNOWN, "device", {"require_synchronised": True}, "not known whether"),
        (UNKNOWN, "ptp", {}, ""),
        (KernelClock(True, -30.0, 40.0), "ptp", {}, "off by -30.000 ms"),
        (KernelClock(True, -30.0, 40.0), "ptp", {"offset_max_ms": 31.0}, ""),
        (KernelClock(True, -30.0, 40.0), "device", {}, ""),
    ],
)
def test_the_alarm_says_which_clock_is_wrong_and_goes_by_itself(
    make: MakeFloor, kernel: KernelClock, clock: str, settings: dict[str, Any], alarm: str
) -> None:
    floor = make(clocks=settings)
    floor.clock(kernel)
    assert judged(floor, clock=clock) == "GOOD", "a clock alone makes no result"
    assert ("CLOCK" in floor.state.alarms) is bool(alarm)
    assert alarm in floor.station.controller.alarms.get("CLOCK", "")
    floor.clock(GOOD)
    assert "CLOCK" not in floor.state.alarms
    assert [event.severity for event in floor.events if event.code == "CLOCK"] == (["warning"] if alarm else [])


def test_realtime_from_another_computer_needs_a_synchronised_clock(make: MakeFloor) -> None:
    floor = make(sockets={"frames": "tcp://192.168.0.2:5560", "insecure_lan": True})
    floor.clock(UNSYNCHRONISED)
    judged(floor, clock="realtime")
    assert "CLOCK" in floor.state.alarms


def test_a_frame_from_before_its_exposure_is_an_alarm_until_its_window_has_passed(make: MakeFloor) -> None:
    floor = make(clocks={"window_s": 1})
    judged(floor, clock="ptp", t_exposure_us=floor.now.wall_us + 4_000)
    assert "CLOCK" not in floor.state.alarms, "within [hard_wired] tolerance_ms"
    judged(floor, clock="ptp", t_exposure_us=floor.now.wall_us + 90_000)
    assert "90.0 ms before its exposure" in floor.station.controller.alarms["CLOCK"]
    floor.pass_ms(2100)
    assert "CLOCK" not in floor.state.alarms


def test_jumps_of_the_cameras_clock_are_counted_and_steps_of_ours_are_not(make: MakeFloor) -> None:
    floor = make(clocks={"window_s": 1}, limits={"queue_length": 16})

    def window(late_us: int) -> int:
        for _ in range(FRAMES_MIN):
            judged(floor, clock="ptp", t_exposure_us=floor.now.wall_us - late_us)
            floor.pass_ms(1000 / FRAMES_MIN)
        clocks = floor.state.clocks
        assert clocks is not None
        return clocks.camera.jumps

    assert [window(30_000) for _ in range(3)][-1] == 0
    assert [window(80_000) for _ in range(3)][-1] == 1
    floor.now = floor.now._replace(wall_us=floor.now.wall_us + 500_000)
    assert [window(80_000) for _ in range(3)][-1] == 1
    assert [event.code for event in floor.events if event.code.startswith("CLOCK")] == ["CLOCK_JUMP", "CLOCK_STEP"]


def test_a_camera_that_ran_ahead_does_not_make_an_old_picture_new(make: MakeFloor) -> None:
    """By its clock the picture is 700 ms old, which is allowed, and really 1.3 s."""
    ahead_us, old_us = 600_000, 1_300_000
    for seen_before, reason in ((True, "STALE"), (False, "GOOD")):
        floor = make()
        if seen_before:
            judged(floor, clock="ptp", t_exposure_us=floor.now.wall_us + ahead_us)
        assert judged(floor, clock="ptp", t_exposure_us=floor.now.wall_us - old_us + ahead_us) == reason


@pytest.mark.parametrize(
    ("kernel", "behind_ms", "reason"),
    [
        (GOOD, 0, "GOOD"),
        (UNSYNCHRONISED, 0, "AMBIGUOUS"),
        (UNKNOWN, 0, "AMBIGUOUS"),
        (KernelClock(True, 0.0, 6.0), 0, "AMBIGUOUS"),
        (KernelClock(True, -6.0, 0.1), 0, "AMBIGUOUS"),
        (KernelClock(True, None, None), 0, "AMBIGUOUS"),
        (GOOD, 30, "AMBIGUOUS"),  # from before its own trigger: the camera's clock is behind
    ],
)
def test_a_clock_that_may_be_wrong_does_not_tell_the_part_of_a_busy_trigger_from_the_one_before(
    make: MakeFloor, kernel: KernelClock, behind_ms: int, reason: str
) -> None:
    floor = make("ok", trigger_mode="software", triggers={"pending_max": 1})
    floor.clock(kernel)
    assert floor.ask("trigger", trigger_id=1, part_id="A", timeout_ms=500).code == "ACCEPTED"
    floor.pass_ms(20)
    busy_us = floor.now.wall_us
    assert floor.ask("trigger", trigger_id=2, part_id="B", timeout_ms=500).code == "BUSY"
    floor.pass_ms(10)
    assert judged(floor, trigger_id=1, clock="ptp", t_exposure_us=busy_us - 10_000 - 1000 * behind_ms) == reason


@pytest.mark.parametrize(
    ("arrival_max_ms", "kernel", "clock", "synced"),
    [
        (80, UNSYNCHRONISED, "ptp", True), (350, UNSYNCHRONISED, "ptp", False), (350, UNKNOWN, "ptp", False),
        (350, GOOD, "ptp", True), (350, UNSYNCHRONISED, "realtime", True),
    ],
)
def test_a_line_whose_frames_may_come_a_pitch_late_needs_clocks_that_are_known_to_agree(
    make: MakeFloor, arrival_max_ms: int, kernel: KernelClock, clock: str, synced: bool
) -> None:
    wired = {"pitch_min_ms": 400, "arrival_max_ms": arrival_max_ms, "quiet_ms": 1200}
    floor = make("ok", trigger_mode="hard_wired", hard_wired=wired)
    floor.clock(kernel)
    floor.pass_ms(2000)
    for part in range(1, 4):
        assert floor.ask("expect", trigger_id=part).ok
        judged(floor, clock=clock, t_exposure_us=floor.now.wall_us)
        floor.pass_ms(1500)
    assert [result.reason.name for result in floor.results if result.trigger_id] == (
        ["GOOD"] * 3 if synced else ["UNSYNCED"] * 3
    )


class _Behind(lines._Player):
    """The camera's clock is behind by ``ms``."""

    ms = 0.0

    def exposed_ns(self, exposure: lines.Exposure, now_ns: int) -> int | None:
        found = super().exposed_ns(exposure, now_ns)
        return None if found is None else found - round(self.ms * MS)


def wrong(settings: HardWired, behind_ms: float) -> int:
    """Parts with another part's picture, of a line at a constant pitch that misses the first exposure of each run."""
    line, rng = lines.Line(), random.Random(1)
    for part in range(60):
        at_ms = 3000.0 + 400 * part + 6000 * (part // 10)
        if part % 10:
            line.exposures.append(lines.Exposure(at_ms, part, transit_ms=10 + rng.uniform(0, 2)))
        line.announcements.append((at_ms + 40, part))
    player = _Behind(line, PartMatcher, settings, None, 0.0)
    player.ms = behind_ms
    return len(player.run().wrong)


def test_only_a_line_whose_frames_may_come_a_pitch_late_could_be_wrong_by_its_clocks() -> None:
    """The double fault that the rule cannot detect: so without known clocks such a line is not synced at all."""
    narrow = HardWired(pitch_min_ms=400, arrival_max_ms=399, quiet_ms=1500)
    wide = HardWired(pitch_min_ms=400, arrival_max_ms=300, quiet_ms=1500)
    assert (_is_wide(narrow), _is_wide(wide)) == (False, True)
    assert wrong(narrow, 380) > 0, "else this shows nothing"
    assert [behind_ms for behind_ms in range(-400, 400, 20) if wrong(wide, behind_ms)] == []
    assert wrong(narrow, 0) == 0
