"""The live loop: what makes a picture another part's although trigger and exposure are fresh."""

from __future__ import annotations

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
