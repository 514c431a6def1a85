"""The live loop: every exposure that the camera counted is one seq, in order; nothing old, mixed or repeated goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asperity.runtime.cameras.exposure_order import ExposureOrder
from asperity.runtime.cameras.source import Shot
from asperity.runtime.errors import CameraError, CameraLostError
from asperity.runtime.frame import Intrinsics
from tests.runtime.cameras.live_world import SENSOR, Rig, rig


def exposing(made: Rig, *times_ms: int) -> None:
    for ms in times_ms:
        made.world.at(ms, made.camera.expose)


# ---------------------------------------------------------------------- free run


def test_each_exposure_that_the_camera_counted_is_one_seq() -> None:
    made = rig()
    exposing(made, 100, 200)
    made.world.at(250, lambda: setattr(made.camera, "lose", 3))
    exposing(made, 300, 400, 500, 600)
    made.play(1000)
    assert made.sender.pairs == [(1, 1), (2, 2), (6, 6)]
    done = made.loop.summary
    assert (done.sent, done.missed, done.exposures) == (3, 3, 6)


def test_what_the_station_does_not_take_is_not_sent_later() -> None:
    made = rig()
    exposing(made, *range(100, 1100, 100))
    made.world.at(250, lambda: setattr(made.sender, "connected", False))
    made.world.at(850, lambda: setattr(made.sender, "connected", True))
    made.play(1200)
    assert made.sender.pairs == [(1, 1), (2, 2), (9, 9), (10, 10)]
    assert made.loop.summary.dropped == 6


def test_exposures_from_before_the_inspector_came_are_not_sent() -> None:
    made = rig()
    made.sender.connected = False
    exposing(made, *range(50, 1000, 100))
    made.world.at(700, lambda: setattr(made.sender, "connected", True))
    assert made.loop.wait_inspector()
    assert [shot.number for shot in made.camera.waiting] == [7] and not made.sender.sent
    made.play(600)
    assert made.sender.pairs == [(1, 7), (2, 8), (3, 9), (4, 10)], "seq begins with the first that is sent"


def test_nobody_there() -> None:
    made = rig()
    made.sender.connected = False
    exposing(made, *range(50, 20_000, 100))
    assert not made.loop.wait_inspector()
    assert len(made.camera.waiting) <= 2


@pytest.mark.parametrize("stamps", [True, False])
def test_exposures_that_waited_while_the_process_stood_still_are_not_sent(stamps: bool) -> None:
    """Not even one whose source has no times, where the station could not see it either."""
    made = rig(stamps=stamps, clock="device")
    exposing(made, 100, 200)
    made.world.at(250, lambda: made.world.freeze(3000))
    exposing(made, 1000, 2000, 3000, 3600, 3700)
    made.play(4000)
    assert made.sender.pairs == [(1, 1), (2, 2), (6, 6), (7, 7)]
    assert made.loop.summary.late == 3


def test_a_short_pause_costs_nothing() -> None:
    made = rig()
    exposing(made, 100, 600)
    made.world.at(250, lambda: made.world.freeze(600))
    made.play(2000)
    assert made.sender.pairs == [(1, 1), (2, 2)]


def test_an_exposure_that_was_late_by_the_devices_clock_is_not_sent() -> None:
    made = rig(clock="device")
    exposing(made, 100, 300)
    made.world.at(350, lambda: setattr(made.camera, "transit_ms", 1500))
    exposing(made, 400)
    made.world.at(450, lambda: setattr(made.camera, "transit_ms", 0))
    exposing(made, 2000)
    made.play(3000)
    assert made.sender.pairs == [(1, 1), (2, 2), (4, 4)]


def changes() -> dict[str, tuple[dict[str, Any], str]]:
    return {
        "sensor": ({"sensor": "Stand-in 2"}, "but 'Stand-in 1' was opened"),
        "clock": ({"clock": "ptp"}, "changed its clock"),
        "size": ({"rgb": np.zeros((8, 5, 3), np.uint8), "xyz": np.ones((8, 5, 3), np.float32)}, "changed its shape_px"),
        "unit": ({"unit": "m"}, "changed its unit from mm to m"),
        "scale": ({"scale": 0.5}, "changed its scale"),
        "offset": ({"offset": 1.0}, "changed its offset"),
        "missing points": ({"invalid": -1.0}, "changed its invalid"),
        "lens": ({"intrinsics": Intrinsics(500, 500, 2, 2)}, "changed its intrinsics"),
        "depth": ({"xyz": None, "depth": np.ones((4, 5), np.float32)}, "changed its stored values from xyz float32"),
    }


@pytest.mark.parametrize("kind", changes())
def test_a_camera_that_is_not_as_it_was_is_lost_and_nothing_more_is_sent(kind: str) -> None:
    changed, says = changes()[kind]
    made = rig()
    exposing(made, 100)
    made.world.at(200, lambda: made.camera.expose(**changed))
    exposing(made, 300, 400)
    error = made.lost()
    assert says in str(error) and error.exit_code == 20
    assert made.sender.pairs == [(1, 1)]


def test_a_first_frame_of_another_camera_than_was_opened_is_not_sent() -> None:
    made = rig()
    made.world.at(100, lambda: made.camera.expose(sensor="Stand-in 2"))
    assert "Stand-in 2" in str(made.lost()) and not made.sender.sent


def repeated(made: Rig) -> None:
    shot = made.camera.expose()
    assert shot is not None
    again = replace(shot.frame, rgb=shot.frame.rgb.copy(), xyz=np.ones((4, 5, 3), np.float32))
    made.camera.arrive(Shot(again, made.camera.serial + 1))


def swapped(made: Rig) -> None:
    """Two exposures come out in the other order, with a count that hides it."""
    first, second = made.camera.expose(), None
    made.world.ns += 10_000_000
    second = made.camera.expose()
    assert first is not None and second is not None
    made.camera.waiting.clear()
    made.camera.arrive(Shot(second.frame, first.number))
    made.camera.arrive(Shot(first.frame, second.number))


def overwritten(made: Rig) -> None:
    """A source that has one buffer."""
    shot = made.camera.expose()
    assert shot is not None
    made.world.ns += 10_000_000
    made.camera.expose(xyz=shot.frame.xyz)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (repeated, "twice"),
        (swapped, "out of order"),
        (overwritten, "writes an exposure over the one before"),
        (lambda made: setattr(made.camera, "number_before", 1), "went back in its count"),
        (lambda made: setattr(made.camera, "number_before", -900), "jumped in its count of exposures, from 1 to 902"),
        (lambda made: setattr(made.camera, "counts", False), "counts only some"),
    ],
)
def test_an_exposure_twice_out_of_order_or_out_of_count_is_a_lost_camera(spoil: Any, says: str) -> None:
    made = rig()
    exposing(made, 100)
    made.world.at(200, lambda: spoil(made))
    exposing(made, 300, 400)
    assert says in str(made.lost())
    assert len(made.sender.sent) <= 2 and {serial for _, serial in made.sender.pairs} <= {1, 2, 3}
    assert [seq for seq, _ in made.sender.pairs] == list(range(1, len(made.sender.sent) + 1))


def test_silence_is_a_lost_camera_and_a_pause_of_the_process_is_not() -> None:
    made = rig()
    exposing(made, 100)
    made.world.at(150, lambda: made.world.freeze(20_000))
    exposing(made, 21_000)
    error = made.lost()
    assert "gave no exposure for 5000 ms" in str(error)
    assert made.sender.pairs == [(1, 1), (2, 2)] and made.world.ns > 31_000_000_000


def test_a_sensor_may_pause_for_as_long_as_it_likes() -> None:
    made = rig("hard_wired", silence_ms=0)
    exposing(made, 100, 3_600_000)
    made.play(4_000_000)
    assert made.sender.pairs == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    "raised", [CameraError("unplugged"), KeyError("gain"), RuntimeError(), OSError(19, "No such device")]
)
def test_whatever_a_source_raises_the_camera_is_lost(raised: Exception) -> None:
    made = rig()
    exposing(made, 100)

    def fails(timeout_ms: int) -> None:
        raise raised

    made.world.at(150, lambda: setattr(made.camera, "shot", fails))
    error = made.lost()
    assert isinstance(error, CameraLostError) and (str(raised) or "RuntimeError") in str(error)
    assert made.sender.pairs == [(1, 1)]


def test_what_is_not_a_shot_and_what_cannot_be_sent_is_a_lost_camera() -> None:
    made = rig()
    made.world.at(100, lambda: made.camera.waiting.append((made.camera.frame(), 1)))  # type: ignore[arg-type]
    assert "gave tuple for an exposure" in str(made.lost())


def test_a_source_cannot_answer_triggers_by_itself() -> None:
    made = rig()
    made.world.at(100, lambda: made.camera.expose(trigger_id=7, promise=9, part_id="p"))
    made.play(500)
    frame = made.sender.sent[0][3]
    assert (frame.trigger_id, frame.promise, frame.part_id) == (0, 0, "p")


# ---------------------------------------------------------------------- triggers of the station


def test_a_trigger_is_answered_by_the_exposure_after_it() -> None:
    made = rig("software", transit_ms=30)
    exposing(made, 50)  # nobody asked
    for number, ms in enumerate((100, 300, 320, 900), 1):
        made.world.at(ms, lambda number=number: made.sender.make(number))  # type: ignore[misc]
    made.play(2000)
    assert made.sender.answers == [(1, 2), (2, 3), (3, 4), (4, 5)]
    for trigger_id, serial in made.sender.answers:
        assert made.camera.exposed[serial] >= made.sender.made_ns[trigger_id]


def test_triggers_that_waited_while_the_camera_was_opened_are_not_answered() -> None:
    made = rig("software")
    made.sender.make(1)
    made.sender.make(2)
    made.world.at(500, lambda: made.sender.make(3))
    made.play(1000)
    assert made.sender.answers == [(3, 1)]


@pytest.mark.parametrize("stamped", [True, False])
def test_triggers_that_waited_while_the_process_stood_still_are_not_answered(stamped: bool) -> None:
    made = rig("software")
    made.world.at(100, lambda: made.sender.make(1, stamped=stamped))
    made.world.at(150, lambda: made.world.freeze(3000))
    for number, ms in enumerate((1000, 2000, 3100), 2):
        made.world.at(ms, lambda number=number: made.sender.make(number, stamped=stamped))  # type: ignore[misc]
    # One that the reading thread had not yet read when the process went on.
    made.world.at(2500, lambda: made.sender.make(5, delay_ms=700, stamped=stamped))
    made.world.at(4000, lambda: made.sender.make(6, stamped=stamped))
    made.play(5000)
    assert made.sender.answers == [(1, 1), (6, 2)]
    assert made.loop.summary.unanswered + made.loop._inbox.refused >= 4


def test_a_trigger_that_the_network_held_back_is_not_answered() -> None:
    made = rig("software")
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(500, lambda: made.sender.make(2, delay_ms=2500))
    made.world.at(3500, lambda: made.sender.make(3))
    made.play(4000)
    assert [trigger for trigger, _ in made.sender.answers] == [1, 3]


def test_an_exposure_long_after_its_trigger_came_is_not_sent_for_it() -> None:
    """The process stood still between the trigger's arrival and the exposure: by then another part is there."""
    made = rig("software")
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(500, lambda: made.sender.make(2))
    made.world.at(450, lambda: made.camera.on_trigger.append(lambda: made.world.freeze(3000)))
    made.world.at(4500, lambda: made.sender.make(3))
    made.play(5000)
    assert made.sender.answers == [(1, 1), (3, 3)] and made.sender.seq == 3


@pytest.mark.parametrize("clock", ["realtime", "device", "ptp"])
def test_an_exposure_that_nobody_asked_for_long_after_a_trigger_does_not_answer_it(clock: str) -> None:
    """The one that was asked for is lost."""
    made = rig("software", keeps=True, clock=clock)
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(300, lambda: setattr(made.camera, "lose", 1))
    made.world.at(400, lambda: made.sender.make(2))
    exposing(made, 1900)
    made.play(4000)
    assert made.sender.answers == [(1, 1)] and made.sender.seq == 3


def test_a_trigger_that_came_while_the_camera_was_busy_is_answered_only_soon() -> None:
    made = rig("software", transit_ms=900)
    for number, ms in enumerate((100, 800, 2500, 2510), 1):
        made.world.at(ms, lambda number=number: made.sender.make(number))  # type: ignore[misc]
    made.play(6000)
    assert made.sender.answers == [(1, 1), (2, 2), (3, 3), (4, 4)]
    slow = rig("software", transit_ms=1900)
    for number, ms in enumerate((100, 300, 2100), 1):
        slow.world.at(ms, lambda number=number: slow.sender.make(number))  # type: ignore[misc]
    slow.play(6000)
    assert [trigger for trigger, _ in slow.sender.answers] == [1, 3], "2 waited for 1.7 s"


@pytest.mark.parametrize("clock", ["realtime", "device", "ptp"])
def test_an_exposure_from_before_its_trigger_is_a_lost_camera(clock: str) -> None:
    """The source discards nothing: what it exposed before comes out after the trigger."""
    made = rig("software", clock=clock, counts=False)
    made.world.at(100, lambda: made.sender.make(1))
    before: list[Shot] = []
    made.world.at(300, lambda: before.append(Shot(made.camera.frame(), None)))
    made.world.at(400, lambda: setattr(made.camera, "deaf", 1))
    made.world.at(500, lambda: made.sender.make(2))
    made.world.at(520, lambda: made.camera.arrive(before[0]))
    assert "older than it" in str(made.lost(3000)) and made.sender.answers == [(1, 1)]


def test_one_exposure_that_is_lost_costs_its_trigger_alone() -> None:
    made = rig("software")
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(300, lambda: setattr(made.camera, "lose", 1))
    made.world.at(400, lambda: made.sender.make(2, timeout_ms=1000))
    made.world.at(3000, lambda: made.sender.make(3))
    made.play(4000)
    assert made.sender.answers == [(1, 1), (3, 3)] and [seq for seq, _ in made.sender.pairs] == [1, 3]


def test_an_exposure_that_comes_too_late_does_not_answer_the_next_trigger() -> None:
    """By the count: a trigger that had no exposure, then one exposure for two triggers."""
    made = rig("software", stamps=False, keeps=True)
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(300, lambda: setattr(made.camera, "transit_ms", 2100))
    made.world.at(400, lambda: made.sender.make(2, timeout_ms=1000))
    made.world.at(2000, lambda: setattr(made.camera, "deaf", 1))
    made.world.at(2200, lambda: made.sender.make(3))
    error = made.lost(4000)
    assert "fewer exposures than it had triggers" in str(error) and made.sender.answers == [(1, 1)]


def test_without_count_and_times_an_unanswered_trigger_is_a_lost_camera() -> None:
    made = rig("software", stamps=False, counts=False)
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(300, lambda: setattr(made.camera, "deaf", 1))
    made.world.at(400, lambda: made.sender.make(2, timeout_ms=1000))
    assert "gave no exposure for 5000 ms" in str(made.lost(30_000))
    assert made.sender.answers == [(1, 1)]


def test_a_camera_that_answers_no_trigger_is_silent() -> None:
    made = rig("software")
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(200, lambda: setattr(made.camera, "deaf", 100))
    for number in range(2, 20):
        made.world.at(number * 2000, lambda number=number: made.sender.make(number, timeout_ms=1500))  # type: ignore[misc]
    assert "gave no exposure for 5000 ms" in str(made.lost(60_000))
    assert made.sender.answers == [(1, 1)]


def test_a_camera_that_is_gone_while_nobody_asks_is_noticed() -> None:
    made = rig("software")

    def gone(timeout_ms: int) -> None:
        raise CameraError("the device was removed")

    made.world.at(3000, lambda: setattr(made.camera, "shot", gone))
    assert "removed" in str(made.lost()) and made.world.ns < 10_000_000_000


def test_the_check_of_memory_has_its_control() -> None:
    made = rig()
    order = ExposureOrder(64, SENSOR)
    first, second = made.camera.expose(), made.camera.expose(t_exposure_us=0)
    assert first is not None and second is not None
    assert order.missed_before(first) == 0 and order.missed_before(second) == 0
    part = second.frame.rgb[:2]  # a view of the one before
    with pytest.raises(CameraLostError, match="over the one before"):
        order.missed_before(Shot(replace(second.frame, rgb=np.repeat(part, 2, 0), xyz=second.frame.xyz), 3))
