"""A request that its sender has given up is never done late; one that was answered is answered the same for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import SESSION, Floor, MakeFloor, floors

LIMIT_MS = 1000
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("trigger", {"trigger_id": 1, "timeout_ms": 500}),
    ("expect", {"trigger_id": 1, "timeout_ms": 500}),
    ("prepare_recipe", {"recipe": "b"}),
    ("unprepare_recipe", {}),
    ("start", {}),
    ("stop", {}),
    ("abort", {}),
    ("halt", {}),
    ("reset", {}),
    ("self_test", {}),
    ("set_threshold", {"threshold": 0.5}),
    ("shutdown", {}),
]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


def of_now(floor: Floor) -> dict[str, Any]:
    """What a request repeats of the state that was heard last."""
    return {"session": floor.state.session, "uptime_ms": floor.state.uptime_ms}


def untouched(floor: Floor) -> tuple[object, ...]:
    operation = floor.station.controller
    return (
        operation.state, operation.recipe, operation.busy, operation.tested, operation.changes.last, floor.desk.ending,
        len(floor.of_kind("trigger")),
    )  # fmt: skip


@pytest.mark.parametrize(("op", "fields"), CHANGES, ids=[op for op, _ in CHANGES])
def test_what_changes_something_is_done_while_it_is_young_and_never_later(
    make: MakeFloor, op: str, fields: dict[str, Any]
) -> None:
    floor = make("ok")
    before, heard = untouched(floor), of_now(floor)
    floor.pass_ms(LIMIT_MS + 1)
    late = floor.ask(op, **fields, **heard)
    assert (late.ok, late.code) == (False, "TOO_OLD")
    assert "1001 ms" in late.text and "request_age_max_ms is 1000" in late.text
    assert untouched(floor) == before
    young = of_now(floor)
    floor.pass_ms(LIMIT_MS)
    assert floor.ask(op, **fields, **young).code != "TOO_OLD", "the control: just young enough"


def test_a_request_of_another_session_or_of_the_future_is_not_done(make: MakeFloor) -> None:
    floor = make("ok")
    heard = of_now(floor)
    before = untouched(floor)
    assert floor.ask("stop", **{**heard, "session": SESSION}).code == "TOO_OLD"
    assert floor.ask("stop", **{**heard, "uptime_ms": heard["uptime_ms"] + 1}).code == "TOO_OLD"
    assert floor.ask("stop", session=heard["session"]).code == "BAD_REQUEST"
    assert floor.ask("stop", uptime_ms=heard["uptime_ms"]).code == "BAD_REQUEST"
    assert untouched(floor) == before
    assert floor.ask("stop", **heard).code == "OK"


def test_what_changes_nothing_and_what_says_no_age_is_answered_at_any_age(make: MakeFloor) -> None:
    floor = make("ok")
    heard = of_now(floor)
    floor.pass_ms(60_000)
    assert floor.ask("get_state", **heard).ok and floor.ask("get_result", from_=1, **heard).ok
    assert floor.ask("reset").ok


def test_a_repeated_id_is_answered_the_same_however_old_it_has_become(make: MakeFloor) -> None:
    floor = make("ok")
    heard = of_now(floor)
    first = floor.ask("stop", id="one", **heard)
    floor.pass_ms(LIMIT_MS + 1)
    late = floor.ask("start", id="two", **heard)
    assert (first.code, late.code) == ("OK", "TOO_OLD")
    assert floor.ask("stop", id="one", **heard) == first
    assert floor.ask("start", id="two", **heard) == late
    ahead = {**of_now(floor), "uptime_ms": floor.state.uptime_ms + 100}
    early = floor.ask("start", id="three", **ahead)
    floor.pass_ms(200)
    assert floor.ask("start", id="three", **ahead) == early, "what was never done is not done when its time has come"
    assert floor.state.state == State.READY


def test_a_request_whose_answer_may_be_forgotten_is_not_done_again(make: MakeFloor) -> None:
    floor = make("ok", control={"reply_cache": 2})
    heard = of_now(floor)
    assert floor.ask("stop", id="mine", **heard).code == "OK"
    floor.pass_ms(10)
    later = of_now(floor)
    for op in ("start", "abort", "start"):
        assert floor.ask(op, **later).ok
    again = floor.ask("stop", id="mine", **heard)
    assert again.code == "TOO_OLD" and "reply_cache" in again.text
    assert floor.state.state == State.CONTINUOUS_EXECUTION
    floor.pass_ms(10)
    assert floor.ask("stop", **of_now(floor)).code == "OK", "the control: of a state after what was forgotten"


def test_reset_is_possible_while_the_engine_is_stuck(make: MakeFloor) -> None:
    floor = make("ok")
    beat = floor.state.beat
    for _ in range(8):
        floor.pass_ms(1000)  # the bench shows no sign of life
    assert (floor.state.state, floor.state.beat) == (State.ERROR, beat)
    heard = of_now(floor)
    floor.pass_ms(500)
    assert floor.ask("reset", **heard).code == "ACCEPTED"
    floor.serve()  # the bench is back
    floor.settle()
    assert (floor.state.state, floor.state.ready) == (State.READY, True)


def test_resets_while_the_engine_is_stuck_fill_no_queue(make: MakeFloor) -> None:
    floor = make("ok")
    for _ in range(500):
        assert floor.ask("reset").ok
    served = 0
    while floor.desk.engine_thread.serve(0.0):
        served += 1
    assert served <= 3
    floor.settle()
    assert (floor.state.state, floor.state.ready) == (State.READY, True), "and the last one is tested all the same"


def test_uptime_is_the_sessions_on_the_monotonic_clock(make: MakeFloor) -> None:
    floor = make("ok")
    before = floor.state.uptime_ms
    floor.now = floor.now._replace(wall_us=floor.now.wall_us + 3_600_000_000)
    assert floor.state.uptime_ms == before, "a step of the wall clock ages nothing"
    floor.pass_ms(1234)
    assert floor.state.uptime_ms == before + 1234
