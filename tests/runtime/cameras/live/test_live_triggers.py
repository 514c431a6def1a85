"""The live loop with triggers: each is answered by the exposure after it, soon, or not at all."""

from __future__ import annotations

import pytest

from asperity.runtime.cameras.source import Shot
from asperity.runtime.errors import CameraError
from tests.runtime.cameras.live.live_world import exposing, rig


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


def test_an_inspector_whose_clock_was_set_back_is_answered_again() -> None:
    made = rig("software")
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(500, lambda: setattr(made.sender, "clock_us", -20_000_000))
    for number in range(2, 20):
        made.world.at(1000 * number, lambda number=number: made.sender.make(number))  # type: ignore[misc]
    made.play(25_000)
    assert [trigger for trigger, _ in made.sender.answers] == [1, *range(14, 20)]


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
