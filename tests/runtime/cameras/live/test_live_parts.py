"""The live loop: what makes a picture another part's although trigger and exposure are fresh."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.cameras.live.live_world import Rig, rig


def exposing(made: Rig, *times_ms: int) -> None:
    for ms in times_ms:
        made.world.at(ms, made.camera.expose)


def test_a_trigger_that_is_followed_by_another_parts_is_not_answered() -> None:
    """The camera was slow, within late_ms: the part is gone, and the next one is there."""
    made = rig("software", transit_ms=700)
    for number, ms in enumerate((100, 300, 500, 700), 1):
        made.world.at(ms, lambda number=number: made.sender.make(number))  # type: ignore[misc]
    # Several pictures of one part.
    for number, ms in enumerate((3000, 3001, 3002), 5):
        made.world.at(ms, lambda number=number: made.sender.make(number, part_id="same"))  # type: ignore[misc]
    made.world.at(2900, lambda: setattr(made.camera, "transit_ms", 100))
    made.play(5000)
    assert [trigger for trigger, _ in made.sender.answers] == [1, 4, 5, 6, 7]
    stopped = rig("software")
    stopped.world.at(100, lambda: stopped.sender.make(1))
    stopped.world.at(90, lambda: stopped.camera.on_trigger.append(lambda: stopped.world.freeze(400)))
    stopped.world.at(300, lambda: stopped.sender.make(2))
    stopped.play(2000)
    assert [trigger for trigger, _ in stopped.sender.answers] == [2]


@pytest.mark.parametrize("camera", [{"clock": "realtime"}, {"clock": "device"}, {"stamps": False}])
def test_an_exposure_made_after_the_next_parts_trigger_does_not_answer_the_one_before(camera: dict[str, Any]) -> None:
    """The camera returns from its trigger at once and exposes later, as one that runs freely does."""
    made = rig("software", lag_ms=400, transit_ms=50, **camera)
    for number, ms in enumerate((100, 2000, 2150, 4000), 1):
        made.world.at(ms, lambda number=number: made.sender.make(number))  # type: ignore[misc]
    for number, ms in ((5, 6000), (6, 6200)):  # two pictures of one part
        made.world.at(ms, lambda number=number: made.sender.make(number, part_id="same"))  # type: ignore[misc]
    made.play(9000)
    assert [trigger for trigger, _ in made.sender.answers] == [1, 3, 4, 5, 6]
    assert made.loop.summary.unanswered == 1


def test_an_exposure_before_the_next_parts_trigger_answers_its_own() -> None:
    """Its picture comes after that trigger: the time of the exposure says which part it shows."""
    made = rig("software", transit_ms=300)
    for number, ms in enumerate((100, 200, 1000), 1):
        made.world.at(ms, lambda number=number: made.sender.make(number))  # type: ignore[misc]
    made.play(3000)
    assert [trigger for trigger, _ in made.sender.answers] == [1, 2, 3]


@pytest.mark.parametrize("stamps", [True, False])
def test_an_exposure_that_may_have_been_made_too_late_does_not_answer_its_trigger(stamps: bool) -> None:
    """By a device's clock, or without one, the first exposure is no older than its arrival as far as is known."""
    made = rig("software", clock="device", stamps=stamps, lag_ms=1500)
    made.world.at(100, lambda: made.sender.make(1))
    made.world.at(2500, lambda: setattr(made.camera, "lag_ms", 0))
    made.world.at(3000, lambda: made.sender.make(2))
    made.play(5000)
    assert [trigger for trigger, _ in made.sender.answers] == [2]


@pytest.mark.parametrize("step_us", [-600_000, 600_000, 6000])
def test_a_clock_that_is_set_while_exposures_are_dated_by_it_is_a_lost_camera(step_us: int) -> None:
    made = rig()
    exposing(made, 100, 1000, 2000)
    made.world.at(1500, lambda: setattr(made.world, "wall_us", made.world.wall_us + step_us))
    error = made.lost()
    assert f"was set by {step_us // 1000} ms" in str(error) and made.sender.pairs == [(1, 1), (2, 2)]
    other = rig(clock="device")
    exposing(other, 100, 1000, 2000)
    other.world.at(1500, lambda: setattr(other.world, "wall_us", other.world.wall_us + step_us))
    other.play(2500)
    assert other.sender.pairs == [(1, 1), (2, 2), (3, 3)]
