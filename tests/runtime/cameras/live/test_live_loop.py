"""The live loop: every exposure that the camera counted is one seq, in order; nothing old, mixed or repeated goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asperity.runtime.cameras.exposure_order import ExposureOrder
from asperity.runtime.cameras.source import Shot
from asperity.runtime.errors import CameraError, CameraLostError, WireError
from asperity.runtime.frame import Intrinsics
from tests.runtime.cameras.live.live_world import SENSOR, Rig, exposing, rig


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


@pytest.mark.parametrize(
    "give",
    [
        lambda camera: (camera.frame(), 1),
        lambda camera: Shot(None, 1),
        lambda camera: Shot(camera.frame(), "1"),
        lambda camera: Shot(replace(camera.frame(), t_exposure_us=0.5), 1),
        lambda camera: Shot(replace(camera.frame(), xyz=[[1.0]]), 1),
    ],
)
def test_what_is_not_a_shot_is_a_lost_camera(give: Any) -> None:
    made = rig()
    made.world.at(100, lambda: made.camera.waiting.append(give(made.camera)))
    assert "for an exposure, or one with values of wrong types" in str(made.lost())


def test_a_frame_that_breaks_the_contract_is_a_lost_camera() -> None:
    made = rig()
    exposing(made, 100, 200)

    def refuses(*given: Any, **more: Any) -> bool:
        raise WireError("t_exposure_us is -1")

    made.world.at(150, lambda: setattr(made.sender, "send", refuses))
    assert "gave a frame that cannot be sent: t_exposure_us is -1" in str(made.lost())


def test_a_source_that_is_always_too_late_ends_the_program_which_says_so() -> None:
    made = rig(lost_max=5)

    def slow() -> None:
        made.world.freeze(1500)
        made.camera.expose()

    for ms in range(1000, 60_000, 2000):
        made.world.at(ms, slow)
    assert "6 exposures of Stand-in 1 in a row were too late" in str(made.lost(100_000))
    assert not made.sender.sent


def test_a_source_cannot_answer_triggers_by_itself() -> None:
    made = rig()
    made.world.at(100, lambda: made.camera.expose(trigger_id=7, promise=9, part_id="p"))
    made.play(500)
    frame = made.sender.sent[0][3]
    assert (frame.trigger_id, frame.promise, frame.part_id) == (0, 0, "p")


def test_the_check_of_memory_has_its_control() -> None:
    made = rig()
    order = ExposureOrder(64, SENSOR)
    first, second = made.camera.expose(), made.camera.expose(t_exposure_us=0)
    assert first is not None and second is not None
    assert order.missed_before(first) == 0 and order.missed_before(second) == 0
    part = second.frame.rgb[:2]  # a view of the one before
    with pytest.raises(CameraLostError, match="over the one before"):
        order.missed_before(Shot(replace(second.frame, rgb=np.repeat(part, 2, 0), xyz=second.frame.xyz), 3))
