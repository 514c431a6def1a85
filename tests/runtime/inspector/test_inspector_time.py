"""The desk and time: deadlines, an engine that stands still, the beat, and how often a state comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asperity.runtime import wire
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import MakeFloor, balanced, floors


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


def test_a_deadline_is_answered_when_it_passes_and_the_late_score_is_only_logged(make: MakeFloor) -> None:
    floor = make("ok", limits={"deadline_ms": 400})
    floor.send()
    floor.pass_ms(399.9)
    assert floor.results == []
    floor.pass_ms(0.2)
    (result,) = floor.results
    assert (result.reason, result.deadline_missed, result.verdict) == (Reason.DEADLINE, True, Verdict.UNKNOWN)
    floor.serve()
    assert len(floor.results) == 1
    assert not floor.events or floor.events[-1].code != "LATE_SCORE", "a frame that only waited was taken back"
    assert floor.state.deadline_missed == 1
    assert balanced(floor)


def test_a_score_that_comes_with_the_deadline_is_late(make: MakeFloor) -> None:
    floor = make("ok", limits={"deadline_ms": 400})
    floor.send()
    floor.desk.engine_thread.serve(0.0)
    floor.pass_ms(400)
    assert floor.reasons == ["DEADLINE"]
    assert floor.events[-1].code == "LATE_SCORE"


def test_a_bench_without_a_sign_of_life_is_an_error(make: MakeFloor) -> None:
    floor = make("ok")
    beat = floor.state.beat
    floor.send()
    for step_ms in (2000, 2000, 999):
        floor.pass_ms(step_ms)
    assert floor.state.state == State.CONTINUOUS_EXECUTION
    assert floor.state.beat == beat, "the desk must not make a beat of its own"
    floor.pass_ms(2)
    assert floor.state.state == State.ERROR
    assert "STUCK" in floor.state.alarms


def test_a_pause_of_the_whole_process_is_no_stuck_engine(make: MakeFloor) -> None:
    """A computer that slept, a process that was stopped: what was in work is late, what comes then is judged."""
    floor = make("ok")
    floor.send()
    floor.pass_ms(60_000)
    assert floor.reasons == ["DEADLINE"]
    assert floor.state.state == State.CONTINUOUS_EXECUTION and not floor.state.alarms
    floor.serve()
    floor.send()
    floor.serve()
    assert floor.reasons == ["DEADLINE", "GOOD"]
    assert balanced(floor)
    assert balanced(floor)


def test_an_engine_that_fails_in_a_gap_judges_nothing_more_and_the_bench_lives_on(make: MakeFloor) -> None:
    floor = make()
    recipe = floor.station.controller.recipe
    assert recipe is not None

    def fail() -> None:
        raise EngineError("it cannot be kept awake")

    recipe.engine.idle = fail  # type: ignore[method-assign]
    floor.settle()
    assert floor.station.controller.state is State.ERROR
    assert "it cannot be kept awake" in floor.station.controller.alarms["SELF_TEST"]
    beat = floor.station.slot.beat
    floor.serve()
    assert floor.station.slot.beat > beat


def test_states_come_five_times_a_second_and_at_each_change(make: MakeFloor) -> None:
    floor = make("ok")
    before = len(floor.of_kind("state"))
    for _ in range(100):
        floor.pass_ms(10)
        floor.desk.engine_thread.serve(0.0)
    assert len(floor.of_kind("state")) - before == 5
    floor.ask("stop")
    floor.desk.turn()
    assert wire.decode_state(floor.of_kind("state")[-1]).state == State.READY


def test_ready_needs_a_camera_and_frames_where_a_rate_is_expected(make: MakeFloor) -> None:
    floor = make("ok", station={"expected_rate_hz": 5.0})
    floor.send()
    floor.serve()
    assert floor.state.ready
    floor.pass_ms(2001)
    assert not floor.state.ready
    assert "CAMERA" in floor.state.alarms
    floor.send()
    floor.serve()
    assert floor.state.ready
    floor.sockets.connected = False
    assert not floor.state.ready
    assert floor.state.state == State.CONTINUOUS_EXECUTION


@pytest.mark.parametrize(("deadline_ms", "beat_timeout_ms"), [(100, 600), (600, 600), (2000, 2000)])
def test_the_beat_may_take_as_long_as_a_frame(make: MakeFloor, deadline_ms: int, beat_timeout_ms: int) -> None:
    assert make("ok", limits={"deadline_ms": deadline_ms}).state.beat_timeout_ms == beat_timeout_ms
