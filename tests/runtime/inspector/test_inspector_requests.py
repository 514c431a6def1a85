"""The desk and who asks it: triggers, each with its answer, and the requests that operate a station."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asperity.runtime import wire
from asperity.runtime.frame import Verdict
from asperity.runtime.manifest import GoldenFrame
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import MakeFloor, balanced, floors


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


# ---------------------------------------------------------------------- triggers


def test_a_trigger_is_published_and_answered_by_its_frame(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    assert floor.ask("trigger", trigger_id=7, part_id="P1", timeout_ms=500).code == "ACCEPTED"
    (trigger,) = [wire.decode_trigger(parts) for parts in floor.of_kind("trigger")]
    assert (trigger.trigger_id, trigger.part_id, trigger.timeout_ms) == (7, "P1", 500)
    floor.send(trigger_id=7, part_id="P1")
    floor.settle()
    floor.pass_ms(1000)
    assert [(r.trigger_id, r.part_id, r.accept) for r in floor.results] == [(7, "P1", True)]


def test_a_trigger_is_not_answered_by_another_recipe_than_it_named(make: MakeFloor) -> None:
    """Found in review: a camera that names a recipe of its own took the place of the trigger's."""
    floor = make("ng", trigger_mode="software", recipes={"st1": "a"})
    floor.ask("prepare_recipe", recipe="b")
    floor.settle()
    assert floor.ask("trigger", trigger_id=7, timeout_ms=500, recipe="b").code == "ACCEPTED"
    floor.ask("prepare_recipe", recipe="a")
    floor.settle()
    floor.send(trigger_id=7, recipe="a")
    floor.settle()
    assert [(r.trigger_id, r.recipe, r.reason.name) for r in floor.results] == [(7, "a", "WRONG_RECIPE")]
    assert balanced(floor)


def test_a_trigger_without_a_frame_is_answered_and_its_late_frame_apart(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    floor.ask("trigger", trigger_id=7, part_id="P1", timeout_ms=500)
    floor.pass_ms(499)
    assert floor.results == []
    floor.pass_ms(1)
    floor.send(trigger_id=7, part_id="P1")
    floor.settle()
    assert [(r.trigger_id, r.reason.name) for r in floor.results] == [(7, "NO_FRAME"), (0, "TRIGGER_EXPIRED")]
    assert balanced(floor)


def test_a_used_id_given_again_is_not_answered_by_the_picture_of_before(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    floor.ask("trigger", trigger_id=7, part_id="before", timeout_ms=100)
    slow = floor.frame(trigger_id=7, part_id="before")
    floor.pass_ms(100)
    floor.ask("trigger", trigger_id=7, part_id="now", timeout_ms=100)
    floor.desk.on_frame(wire.encode_frame(slow))
    floor.send(trigger_id=7, part_id="now", promise=0)
    floor.settle()
    assert [(r.trigger_id, r.part_id, r.reason.name) for r in floor.results] == [
        (7, "before", "NO_FRAME"), (0, "before", "TRIGGER_EXPIRED"), (0, "now", "TRIGGER_EXPIRED"),
    ]  # fmt: skip
    floor.send(trigger_id=7, part_id="now")
    floor.settle()
    assert (floor.results[-1].trigger_id, floor.results[-1].accept) == (7, True)


def test_each_trigger_is_promised_a_number_of_its_own(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    for _ in range(3):
        floor.ask("trigger", trigger_id=7, timeout_ms=10)
        floor.pass_ms(10)
    promises = {wire.decode_trigger(parts).promise for parts in floor.of_kind("trigger")}
    assert len(promises) == 3 and 0 not in promises


def test_a_frame_that_nobody_announced_is_unknown_on_a_line_with_triggers(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    floor.ask("trigger", trigger_id=7, timeout_ms=500)
    floor.send()
    floor.settle()
    assert [(r.trigger_id, r.reason.name, r.accept) for r in floor.results] == [(0, "UNANNOUNCED", False)]
    floor.send(trigger_id=7)
    floor.settle()
    assert [(r.trigger_id, r.accept) for r in floor.results[1:]] == [(7, True)]


@pytest.mark.parametrize(
    ("mode", "refused"),
    [("free_run", ["trigger", "expect"]), ("software", ["expect"]), ("hard_wired", ["trigger"])],
)
def test_a_station_takes_the_triggers_of_its_mode_alone(make: MakeFloor, mode: str, refused: list[str]) -> None:
    floor = make("ok", trigger_mode=mode, hard_wired={"pitch_min_ms": 400})
    codes = {op: floor.ask(op, trigger_id=1, timeout_ms=100) for op in ("trigger", "expect")}
    assert [op for op, reply in codes.items() if reply.code == "REFUSED"] == refused
    assert all(f"triggers is {mode}" in codes[op].text for op in refused)
    assert floor.state.triggers == mode
    floor.ask("stop")
    assert floor.ask("start", mode="single").ok is (mode != "free_run")


def test_a_trigger_of_a_broken_message_is_answered_by_it(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    floor.ask("trigger", trigger_id=7, timeout_ms=500)
    floor.desk.on_frame(wire.encode_frame(floor.frame(trigger_id=7))[:-1])
    floor.pass_ms(1000)
    assert [(r.trigger_id, r.reason.name) for r in floor.results] == [(7, "REFUSED_MESSAGE")]


def test_triggers_have_a_bound_and_are_busy_beyond_it(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software", triggers={"pending_max": 2})
    codes = [floor.ask("trigger", trigger_id=n, timeout_ms=500).code for n in (1, 1, 2, 3)]
    assert codes == ["ACCEPTED", "BUSY", "ACCEPTED", "BUSY"]
    assert floor.ask("trigger", trigger_id=4, timeout_ms=60_001).code == "REFUSED"
    assert floor.ask("trigger", trigger_id=4, timeout_ms=500, recipe="b").code == "REFUSED"


@pytest.mark.parametrize(
    ("other", "clock", "exposed_ms", "reason"),
    [
        ({"trigger_id": 2, "part_id": "B"}, "realtime", -8, "GOOD"),
        ({"trigger_id": 2, "part_id": "B"}, "realtime", -3, "AMBIGUOUS"),
        ({"trigger_id": 2, "part_id": "B"}, "realtime", 1, "AMBIGUOUS"),
        ({"trigger_id": 2, "part_id": "B"}, "device", -1, "AMBIGUOUS"),
        ({"trigger_id": 2}, "device", -1, "AMBIGUOUS"),
        ({"trigger_id": 2, "part_id": "A"}, "device", 1, "GOOD"),
        ({"trigger_id": 1, "part_id": "A"}, "device", 1, "GOOD"),
        ({"trigger_id": 2, "part_id": "B", "recipe": "b"}, "realtime", -8, "GOOD"),
        ({"trigger_id": 2, "part_id": "B", "recipe": "b"}, "realtime", 1, "AMBIGUOUS"),
    ],
)
def test_an_exposure_that_may_be_of_the_part_whose_trigger_was_busy_is_no_earlier_parts(
    make: MakeFloor, other: dict[str, Any], clock: Any, exposed_ms: int, reason: str
) -> None:
    """The camera hears nothing of a trigger that is not taken, and exposes for the one before."""
    floor = make("ok", trigger_mode="software", triggers={"pending_max": 1})
    assert floor.ask("trigger", trigger_id=1, part_id="A", timeout_ms=500).code == "ACCEPTED"
    floor.pass_ms(10)
    busy_us = floor.now.wall_us
    assert floor.ask("trigger", **other, timeout_ms=500).code == ("REFUSED" if "recipe" in other else "BUSY")
    floor.pass_ms(10)
    floor.send(trigger_id=1, clock=clock, t_exposure_us=busy_us + 1000 * exposed_ms)
    floor.settle()
    assert [(r.trigger_id, r.reason.name) for r in floor.results] == [(1, reason)]


def test_a_single_execution_judges_the_frame_of_one_trigger(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software", station={"autostart": False}, ready=False)
    floor.settle()
    assert floor.state.state == State.READY
    assert floor.ask("trigger", trigger_id=1, timeout_ms=500).code == "WRONG_STATE"
    assert floor.ask("start", mode="single").ok
    assert floor.state.state == State.SINGLE_EXECUTION
    floor.send()
    assert floor.ask("trigger", trigger_id=1, timeout_ms=500).code == "ACCEPTED"
    floor.pass_ms(20)
    assert floor.ask("trigger", trigger_id=2, timeout_ms=500).code == "BUSY"
    floor.send(trigger_id=1, t_exposure_us=floor.now.wall_us - 10_000)  # before the trigger that was busy
    assert floor.ask("trigger", trigger_id=2, timeout_ms=500).code == "BUSY"
    floor.settle()
    assert floor.state.state == State.READY
    floor.send()
    assert [(r.trigger_id, r.reason.name) for r in floor.results] == [
        (0, "UNANNOUNCED"), (1, "GOOD"), (0, "NOT_RUNNING"),
    ]  # fmt: skip


def test_a_single_execution_ends_without_a_frame_too(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software", station={"autostart": False}, ready=False)
    floor.settle()
    floor.ask("start", mode="single")
    floor.ask("trigger", trigger_id=1, timeout_ms=500)
    floor.pass_ms(500)
    assert floor.reasons == ["NO_FRAME"]
    assert floor.state.state == State.READY


# ---------------------------------------------------------------------- operation


def test_without_autostart_nothing_is_judged_before_start(make: MakeFloor) -> None:
    floor = make("ok", station={"autostart": False}, ready=False)
    floor.send()
    floor.settle()
    assert floor.state.state == State.READY
    floor.send()
    assert floor.ask("start").ok
    floor.send()
    floor.settle()
    assert floor.reasons == ["NOT_RUNNING", "NOT_RUNNING", "GOOD"]


def test_a_recipe_is_taken_over_behind_the_frames_that_came_before(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("prepare_recipe", recipe="b").code == "ACCEPTED"
    assert floor.ask("prepare_recipe", recipe="b").code == "BUSY"
    floor.send()
    floor.desk.turn()  # recipe b is open; the errand to take it over waits behind the first frame
    floor.send()
    floor.settle()
    floor.send(recipe="a")
    floor.send(recipe="b")
    floor.settle()
    assert [(r.recipe, r.reason.name) for r in floor.results] == [
        ("a", "GOOD"), ("b", "SCORE_ABOVE_THRESHOLD"), ("b", "WRONG_RECIPE"), ("b", "SCORE_ABOVE_THRESHOLD"),
    ]  # fmt: skip
    assert (floor.state.recipe, floor.state.state) == ("b", State.CONTINUOUS_EXECUTION)


def test_an_unknown_recipe_is_refused_and_unprepare_ends_ready(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("prepare_recipe", recipe="zzz").code == "REFUSED"
    assert floor.ask("unprepare_recipe").code == "WRONG_STATE"
    floor.ask("stop")
    assert floor.ask("unprepare_recipe", recipe="b").code == "REFUSED"
    assert floor.ask("unprepare_recipe").code == "ACCEPTED"
    floor.settle()
    assert (floor.state.state, floor.state.recipe, floor.state.ready) == (State.INITIALIZED, "", False)
    assert floor.ask("start").code == "WRONG_STATE"
    floor.ask("prepare_recipe", recipe="b")
    floor.settle()
    assert (floor.state.state, floor.state.recipe) == (State.READY, "b")


def test_stop_lets_admitted_frames_be_judged_and_abort_does_not(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    floor.ask("trigger", trigger_id=3, timeout_ms=500)
    floor.ask("trigger", trigger_id=4, timeout_ms=500)
    floor.send(trigger_id=4)
    floor.ask("stop")
    assert floor.reasons == ["NOT_RUNNING"], "the trigger cannot be answered any more"
    floor.settle()
    assert floor.reasons == ["NOT_RUNNING", "GOOD"]
    floor.ask("start")
    floor.ask("trigger", trigger_id=5, timeout_ms=500)
    floor.send(trigger_id=5)
    floor.ask("abort")
    assert floor.reasons[-1] == "ABORTED"
    floor.settle()
    assert len(floor.results) == 3
    assert balanced(floor)


@pytest.mark.parametrize("way", ["fault", "halt"])
def test_reset_leads_back_to_ready_but_does_not_start(make: MakeFloor, way: str) -> None:
    floor = make("ok")
    floor.send()
    if way == "fault":
        floor.station.controller.fault("TEST", "made up")
    else:
        floor.ask("halt")
    assert floor.reasons == ["ENGINE" if way == "fault" else "ABORTED"]
    assert floor.ask("start").code == "WRONG_STATE"
    assert floor.ask("reset").code == "ACCEPTED"
    assert floor.state.state == State.PREOPERATIONAL
    floor.settle()
    assert (floor.state.state, floor.state.alarms, floor.state.ready) == (State.READY, (), True)
    assert floor.ask("start").ok


def test_a_self_test_that_fails_is_an_error(make: MakeFloor) -> None:
    floor = make("ok")

    def fail(progress: object) -> None:
        raise ValueError("a golden frame gives another verdict")

    recipe = floor.station.slot.recipe
    assert recipe is not None
    floor.station.slot.recipe = replace(recipe, golden_steps=fail)
    floor.ask("stop")
    assert floor.ask("self_test").code == "ACCEPTED"
    floor.settle()
    assert floor.state.state == State.ERROR
    assert "SELF_TEST" in floor.state.alarms


def test_a_repeated_request_is_answered_again_and_done_once(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    first = floor.ask("trigger", id="same", trigger_id=5, timeout_ms=500)
    again = floor.ask("trigger", id="same", trigger_id=5, timeout_ms=500)
    assert first == again
    assert len(floor.of_kind("trigger")) == 1
    assert floor.ask("trigger", id="same", trigger_id=6, timeout_ms=500).code == "BAD_REQUEST"


def test_the_reply_cache_is_bounded(make: MakeFloor) -> None:
    floor = make("ok", control={"reply_cache": 3})
    for n in range(1, 5):
        floor.ask("reset", id=f"x{n}")
    assert [floor.desk.requests.replies.get(f"x{n}") is None for n in range(1, 5)] == [True, False, False, False]


def test_an_operators_threshold_is_in_force_and_in_sight(make: MakeFloor) -> None:
    floor = make("drift")
    floor.send()
    floor.serve()
    score, signed = floor.results[-1].score, floor.results[-1].threshold
    assert score is not None and signed is not None and floor.results[-1].verdict is Verdict.OK
    assert floor.state.threshold == signed
    engine = floor.station.controller.recipe.engine  # type: ignore[union-attr]
    closed: list[bool] = []
    engine.close = lambda: closed.append(True)  # type: ignore[method-assign]
    assert floor.ask("set_threshold", threshold=score - 0.1).code == "ACCEPTED"
    floor.serve()
    floor.send()
    floor.serve()
    assert (floor.results[-1].verdict, floor.results[-1].threshold) == (Verdict.NG, score - 0.1)
    assert "THRESHOLD" in floor.state.alarms and floor.state.threshold == score - 0.1
    floor.ask("reset")
    floor.serve()
    assert "THRESHOLD" in floor.state.alarms, "a reset does not hide what is still in force"
    assert floor.ask("set_threshold", threshold=signed).code == "ACCEPTED"
    floor.serve()
    assert "THRESHOLD" not in floor.state.alarms
    assert not closed, "the engine goes on with another threshold"
    change = floor.state.recipe_change
    assert change is not None and (change.number, change.status) == (1, "done"), "a threshold is no recipe"


def test_a_threshold_above_every_normal_score_of_calibration_is_refused(make: MakeFloor) -> None:
    floor = make("ok")
    recipe = floor.station.controller.recipe
    assert recipe is not None
    highest = max(recipe.decision.calibration_scores)
    for threshold in (highest * 1.0001, 9.4, 1e300):
        reply = floor.ask("set_threshold", threshold=threshold)
        assert (reply.ok, reply.code) == (False, "REFUSED")
        assert f"{threshold:.6g}" in reply.text and f"the maximum is {highest:.6g}" in reply.text
    floor.settle()
    assert floor.state.threshold == recipe.proven_threshold
    assert floor.ask("set_threshold", threshold=highest).code == "ACCEPTED", "the control"


def test_a_threshold_that_would_pass_a_spoiled_golden_frame_is_refused(make: MakeFloor) -> None:
    floor = make("ok")
    operation = floor.station.controller
    recipe = operation.recipe
    assert recipe is not None
    spoiled = GoldenFrame("geometry", "spoiled_geometry", "ng", int(Reason.SCORE_ABOVE_THRESHOLD), 0.9, 1.0, 1.0)
    operation.recipe = replace(recipe, manifest=msgspec.structs.replace(recipe.manifest, golden=(spoiled,)))
    reply = floor.ask("set_threshold", threshold=0.9)
    assert (reply.ok, reply.code) == (False, "REFUSED")
    assert "geometry" in (reply.text or "")
    assert floor.ask("set_threshold", threshold=0.89).code == "ACCEPTED"


def test_requests_that_cannot_be_done_say_why(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("dance").code == "UNKNOWN_OP"
    assert floor.ask("get_state", station="st9").code == "WRONG_STATION"

    for parts in ([b"{]"], [b"", b'{"v":1,"id":"q","op":"trigger"}'], [b"a", b"b", b"c", b"d"], []):
        envelope, body = floor.desk.requests.answer([b"me"], parts)
        assert wire.decode_reply(body).code == "BAD_REQUEST"
        assert envelope[0] == b"me"


def test_results_are_had_from_the_journal_in_bounded_replies(make: MakeFloor) -> None:
    floor = make("ok")
    for _ in range(60):
        floor.send()
        floor.serve()
    reply = floor.ask("get_result", from_=1)
    ids = [result.result_id for result in wire.reply_results(reply)]
    assert (ids, reply.next_result_id) == (list(range(1, 25)), 25)
    reply = floor.ask("get_result", from_=58, to=1000)
    assert [result.result_id for result in wire.reply_results(reply)] == [58, 59, 60]
    assert (reply.next_result_id, reply.first_result_id, reply.last_result_id) == (None, 1, 60)
    assert floor.ask("get_result", from_=61).results == ()
