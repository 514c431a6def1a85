"""The desk: exactly one result for each frame and each trigger, whatever happens around it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from station_floor import SESSION, Floor

from runtime import wire
from runtime.errors import EngineError
from runtime.frame import Verdict
from runtime.manifest import GoldenFrame
from runtime.reasons import Reason
from runtime.states import State

OTHER_SESSION = "6f1c3b0e-0f5a-4c57-9a53-222222222222"
MakeFloor = Callable[..., Floor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    floors: list[Floor] = []
    numbers = itertools.count()

    def build(script: str = "ok", journal: Path | None = None, **options: Any) -> Floor:
        floors.append(Floor(journal or tmp_path / f"{next(numbers)}.journal", script, **options))
        return floors[-1]

    yield build
    for floor in floors:
        if not floor.journal._map.closed:
            floor.close()


def balanced(floor: Floor) -> bool:
    return floor.station.ledger.imbalance(len(floor.station.work)) == 0 and floor.state.balanced


# ---------------------------------------------------------------------- one frame, one result


def test_a_frame_is_judged_and_everything_of_it_comes_back(make: MakeFloor) -> None:
    floor = make("ok")
    frame = floor.send(part_id="A-17")
    assert floor.results == [], "not before the bench has scored it"
    assert floor.state.in_flight == 1
    floor.pass_ms(12)
    floor.serve()
    (result,) = floor.results
    assert (result.verdict, result.reason, result.accept) == (Verdict.OK, Reason.GOOD, True)
    assert (result.seq, result.part_id, result.camera_session) == (frame.seq, "A-17", SESSION)
    assert (result.recipe, result.simulated, result.session) == ("a", True, floor.desk.session)
    assert result.latency_us["total"] == 12_000
    assert result.t_exposure_us == frame.t_exposure_us
    (record,) = [wire.decode_record_message(parts)[1] for parts in floor.of_kind("record")]
    assert (record.result_id, record.seq, record.accept) == (result.result_id, frame.seq, True)
    (bulk,) = [wire.decode_bulk([bytes(p) for p in parts]) for parts in floor.sockets.bulk]
    assert (bulk.result_id, bulk.array.shape) == (result.result_id, (28, 28))
    assert balanced(floor)


def test_a_result_is_in_the_journal_before_it_is_published(make: MakeFloor) -> None:
    floor = make("ok")
    seen: list[bool] = []
    publish = floor.sockets.publish

    def watch(parts: list[bytes]) -> None:
        if parts[0].startswith(b"result/"):
            result = wire.decode_result(parts)
            seen.append(floor.journal.get(result.result_id) == parts[1])
        publish(parts)

    floor.sockets.publish = watch  # type: ignore[method-assign]
    floor.send()
    owed = [entry for entry in floor.journal.entries() if entry.owed]
    assert [wire.decode_result_body(entry.payload).reason for entry in owed] == [Reason.RESTARTED]
    floor.serve()
    floor.send(camera="cam2")
    assert seen == [True, True]


@pytest.mark.parametrize("word", ["raise", "crash", "nan"])
def test_an_engine_fault_is_unknown_and_repeated_ones_are_an_error(make: MakeFloor, word: str) -> None:
    floor = make(word)
    for _ in range(2):
        floor.send()
        floor.serve()
    assert floor.state.state == State.CONTINUOUS_EXECUTION
    floor.send()
    floor.send()
    floor.serve()
    assert floor.state.state == State.ERROR
    assert not floor.state.ready
    assert "ENGINE" in floor.state.alarms
    assert floor.reasons == ["ENGINE"] * 4, "the one still waiting was answered at once"
    floor.send()
    assert floor.reasons[-1] == "NOT_RUNNING"
    assert balanced(floor)


def test_faults_in_a_row_are_forgotten_by_a_judged_frame(make: MakeFloor) -> None:
    floor = make("raise raise ok")
    for _ in range(12):
        floor.send()
        floor.serve()
    assert Counter(floor.reasons) == {"ENGINE": 8, "GOOD": 4}
    assert floor.state.state == State.CONTINUOUS_EXECUTION


def test_numbers_the_contract_cannot_carry_are_an_engine_fault(make: MakeFloor) -> None:
    floor = make("ok")
    engine = floor.station.operation.recipe.engine  # type: ignore[union-attr]
    score = engine.score
    engine.score = lambda frame, progress: replace(score(frame, progress), stage_us={"pre": -5})  # type: ignore[method-assign]
    floor.send()
    floor.serve()
    assert floor.reasons == ["ENGINE"]
    assert balanced(floor)


# ---------------------------------------------------------------------- refused


def test_messages_that_break_the_contract_get_their_result(make: MakeFloor) -> None:
    floor = make("ok")
    good = wire.encode_frame(floor.frame(1))
    for parts in ([], [b""], [b"frame/cam1/"], good[:2], [*good, b"x"], [good[0], b"{]", *good[2:]]):
        floor.desk.on_frame(parts)
    assert floor.reasons == ["REFUSED_MESSAGE"] * 6
    assert all(result.verdict is Verdict.UNKNOWN for result in floor.results)
    assert balanced(floor)


def test_a_refused_message_does_not_become_lost_as_well(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    broken = wire.encode_frame(floor.frame(2))
    floor.desk.on_frame(broken[:-1])
    floor.send(3)
    floor.settle()
    assert sorted((result.seq, result.reason.name) for result in floor.results) == [
        (1, "GOOD"), (2, "REFUSED_MESSAGE"), (3, "GOOD"),
    ]  # fmt: skip


def test_what_is_missing_before_a_refused_message_is_lost(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    floor.desk.on_frame(wire.encode_frame(floor.frame(3))[:-1])
    floor.settle()
    assert sorted((result.seq, result.reason.name) for result in floor.results) == [
        (1, "GOOD"), (2, "LOST"), (3, "REFUSED_MESSAGE"),
    ]  # fmt: skip


def test_seq_tells_what_is_lost_repeated_or_not_believed(make: MakeFloor) -> None:
    floor = make("ok")
    for seq in (10, 13, 13, 12, 200, 201):
        floor.send(seq)
        floor.settle()
    assert [(result.seq, result.reason.name) for result in floor.results] == [
        (10, "GOOD"), (11, "LOST"), (12, "LOST"), (13, "GOOD"), (13, "DUPLICATE_SEQ"), (12, "DUPLICATE_SEQ"),
        (200, "SEQ_JUMP"), (201, "GOOD"),
    ]  # fmt: skip
    assert "SEQ_JUMP" in floor.state.alarms
    assert balanced(floor)


def test_a_frame_of_another_camera_is_refused_and_counts_for_nothing(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    floor.send(40, camera="cam2")
    floor.send(2)
    floor.settle()
    assert Counter(floor.reasons) == {"GOOD": 2, "WRONG_CAMERA": 1}


@pytest.mark.parametrize(
    ("age_ms", "clock", "reason"),
    [
        (999, "realtime", "GOOD"), (1001, "realtime", "STALE"), (1001, "ptp", "STALE"), (5000, "device", "GOOD"),
        (-1001, "ptp", "STALE"), (-999, "ptp", "GOOD"),
    ],
)  # fmt: skip
def test_an_old_exposure_is_stale_where_the_clock_is_shared(
    make: MakeFloor, age_ms: int, clock: str, reason: str
) -> None:
    floor = make("ok")
    floor.send(t_exposure_us=floor.now.wall_us - age_ms * 1000, clock=clock)
    floor.settle()
    assert floor.reasons == [reason]


def test_waiting_counts_to_the_age(make: MakeFloor) -> None:
    floor = make("ok", limits={"max_age_ms": 500, "deadline_ms": 5000})
    floor.send(t_exposure_us=floor.now.wall_us - 300_000)
    floor.pass_ms(201)
    floor.serve()
    assert floor.reasons == ["STALE"]


def test_two_frames_wait_and_the_oldest_gives_way(make: MakeFloor) -> None:
    floor = make("ok")
    for _ in range(5):
        floor.send()
    assert [(result.seq, result.reason.name) for result in floor.results] == [
        (1, "OVERLOAD"), (2, "OVERLOAD"), (3, "OVERLOAD"),
    ]  # fmt: skip
    floor.settle()
    assert [result.seq for result in floor.results if result.accept] == [4, 5]
    assert balanced(floor)


def test_the_same_picture_again_is_frozen(make: MakeFloor) -> None:
    floor = make("ok")
    frame = floor.frame()
    for seq in (1, 2):
        floor.desk.on_frame(wire.encode_frame(replace(frame, seq=seq)))
        floor.serve()
    assert floor.reasons == ["GOOD", "FROZEN_IMAGE"]


def test_a_frame_that_names_another_recipe_is_refused(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(recipe="b")
    floor.send(recipe="a")
    floor.settle()
    assert floor.reasons == ["WRONG_RECIPE", "GOOD"]


# ---------------------------------------------------------------------- time


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
    floor.desk.bench.serve(0.0)
    floor.pass_ms(400)
    assert floor.reasons == ["DEADLINE"]
    assert floor.events[-1].code == "LATE_SCORE"


def test_a_bench_without_a_sign_of_life_is_an_error(make: MakeFloor) -> None:
    floor = make("ok")
    beat = floor.state.beat
    floor.send()
    floor.pass_ms(4999)
    assert floor.state.state == State.CONTINUOUS_EXECUTION
    assert floor.state.beat == beat, "the desk must not make a beat of its own"
    floor.pass_ms(2)
    assert floor.state.state == State.ERROR
    assert "STUCK" in floor.state.alarms
    assert balanced(floor)


def test_states_come_five_times_a_second_and_at_each_change(make: MakeFloor) -> None:
    floor = make("ok")
    before = len(floor.of_kind("state"))
    for _ in range(100):
        floor.pass_ms(10)
        floor.desk.bench.serve(0.0)
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


# ---------------------------------------------------------------------- triggers


def test_a_trigger_is_published_and_answered_by_its_frame(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("trigger", trigger_id=7, part_id="P1", timeout_ms=500).code == "ACCEPTED"
    (trigger,) = [wire.decode_trigger(parts) for parts in floor.of_kind("trigger")]
    assert (trigger.trigger_id, trigger.part_id, trigger.timeout_ms) == (7, "P1", 500)
    floor.send(trigger_id=7, part_id="P1")
    floor.settle()
    floor.pass_ms(1000)
    assert [(r.trigger_id, r.part_id, r.accept) for r in floor.results] == [(7, "P1", True)]


def test_a_trigger_without_a_frame_is_answered_and_its_late_frame_apart(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("trigger", trigger_id=7, part_id="P1", timeout_ms=500)
    floor.pass_ms(499)
    assert floor.results == []
    floor.pass_ms(1)
    floor.send(trigger_id=7, part_id="P1")
    floor.settle()
    assert [(r.trigger_id, r.reason.name) for r in floor.results] == [(7, "NO_FRAME"), (0, "TRIGGER_EXPIRED")]
    assert balanced(floor)


def test_a_hard_wired_trigger_is_answered_by_the_next_frame(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("expect", trigger_id=9, part_id="P9", timeout_ms=500)
    assert floor.of_kind("trigger") == [], "the camera is not told"
    floor.send()
    floor.send()
    floor.settle()
    assert [(r.trigger_id, r.part_id) for r in floor.results] == [(9, "P9"), (0, "")]


def test_a_trigger_of_a_broken_message_is_answered_by_it(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("trigger", trigger_id=7, timeout_ms=500)
    floor.desk.on_frame(wire.encode_frame(floor.frame(trigger_id=7))[:-1])
    floor.pass_ms(1000)
    assert [(r.trigger_id, r.reason.name) for r in floor.results] == [(7, "REFUSED_MESSAGE")]


def test_triggers_have_a_bound_and_are_busy_beyond_it(make: MakeFloor) -> None:
    floor = make("ok", triggers={"pending_max": 2})
    codes = [floor.ask("trigger", trigger_id=n, timeout_ms=500).code for n in (1, 1, 2, 3)]
    assert codes == ["ACCEPTED", "BUSY", "ACCEPTED", "BUSY"]
    assert floor.ask("trigger", trigger_id=4, timeout_ms=60_001).code == "REFUSED"
    assert floor.ask("trigger", trigger_id=4, timeout_ms=500, recipe="b").code == "REFUSED"


def test_a_single_execution_judges_the_frame_of_one_trigger(make: MakeFloor) -> None:
    floor = make("ok", station={"autostart": False}, ready=False)
    floor.settle()
    assert floor.state.state == State.READY
    assert floor.ask("trigger", trigger_id=1, timeout_ms=500).code == "WRONG_STATE"
    assert floor.ask("start", mode="single").ok
    assert floor.state.state == State.SINGLE_EXECUTION
    floor.send()
    assert floor.ask("trigger", trigger_id=1, timeout_ms=500).code == "ACCEPTED"
    assert floor.ask("trigger", trigger_id=2, timeout_ms=500).code == "BUSY"
    floor.send(trigger_id=1)
    assert floor.ask("trigger", trigger_id=2, timeout_ms=500).code == "BUSY"
    floor.settle()
    assert floor.state.state == State.READY
    floor.send()
    assert [(r.trigger_id, r.reason.name) for r in floor.results] == [
        (0, "NOT_RUNNING"), (1, "GOOD"), (0, "NOT_RUNNING"),
    ]  # fmt: skip


def test_a_single_execution_ends_without_a_frame_too(make: MakeFloor) -> None:
    floor = make("ok", station={"autostart": False}, ready=False)
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
    floor = make("ok")
    floor.ask("trigger", trigger_id=3, timeout_ms=500)
    floor.send()
    floor.ask("stop")
    assert floor.reasons == ["NOT_RUNNING"], "the trigger cannot be answered any more"
    floor.settle()
    assert floor.reasons == ["NOT_RUNNING", "GOOD"]
    floor.ask("start")
    floor.send()
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
        floor.station.operation.fault("TEST", "made up")
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

    recipe = floor.station.place.recipe
    assert recipe is not None
    floor.station.place.recipe = replace(recipe, golden_steps=fail)
    floor.ask("stop")
    assert floor.ask("self_test").code == "ACCEPTED"
    floor.settle()
    assert floor.state.state == State.ERROR
    assert "SELF_TEST" in floor.state.alarms


def test_a_repeated_request_is_answered_again_and_done_once(make: MakeFloor) -> None:
    floor = make("ok")
    first = floor.ask("trigger", id="same", trigger_id=5, timeout_ms=500)
    again = floor.ask("trigger", id="same", trigger_id=5, timeout_ms=500)
    assert first == again
    assert len(floor.of_kind("trigger")) == 1
    assert floor.ask("trigger", id="same", trigger_id=6, timeout_ms=500).code == "BAD_REQUEST"


def test_the_reply_cache_is_bounded(make: MakeFloor) -> None:
    floor = make("ok", control={"reply_cache": 3})
    for n in range(1, 5):
        floor.ask("reset", id=f"x{n}")
    assert [floor.desk.replies.get(f"x{n}") is None for n in range(1, 5)] == [True, False, False, False]


def test_an_operators_threshold_is_in_force_and_in_sight(make: MakeFloor) -> None:
    floor = make("ng")
    floor.send()
    floor.serve()
    score, signed = floor.results[-1].score, floor.results[-1].threshold
    assert score is not None and signed is not None and score > signed
    engine = floor.station.operation.recipe.engine  # type: ignore[union-attr]
    closed: list[bool] = []
    engine.close = lambda: closed.append(True)  # type: ignore[method-assign]
    assert floor.ask("set_threshold", threshold=score + 1).code == "ACCEPTED"
    floor.serve()
    floor.send()
    floor.serve()
    assert (floor.results[-1].verdict, floor.results[-1].threshold) == (Verdict.OK, score + 1)
    assert "THRESHOLD" in floor.state.alarms
    floor.ask("reset")
    floor.serve()
    assert "THRESHOLD" in floor.state.alarms, "a reset does not hide what is still in force"
    assert floor.ask("set_threshold", threshold=signed).code == "ACCEPTED"
    floor.serve()
    assert "THRESHOLD" not in floor.state.alarms
    assert not closed, "the engine goes on with another threshold"


def test_a_threshold_that_would_pass_a_spoiled_golden_frame_is_refused(make: MakeFloor) -> None:
    floor = make("ok")
    operation = floor.station.operation
    recipe = operation.recipe
    assert recipe is not None
    spoiled = GoldenFrame("geometry", "spoiled_geometry", "ng", int(Reason.SCORE_ABOVE_THRESHOLD), 5.0, 1.0, 1.0)
    operation.recipe = replace(recipe, manifest=msgspec.structs.replace(recipe.manifest, golden=(spoiled,)))
    reply = floor.ask("set_threshold", threshold=5.0)
    assert (reply.ok, reply.code) == (False, "REFUSED")
    assert "geometry" in (reply.text or "")
    assert floor.ask("set_threshold", threshold=4.9).code == "ACCEPTED"


def test_requests_that_cannot_be_done_say_why(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("dance").code == "UNKNOWN_OP"
    assert floor.ask("get_state", station="st9").code == "WRONG_STATION"
    from runtime import control

    for parts in ([b"{]"], [b"", b'{"v":1,"id":"q","op":"trigger"}'], [b"a", b"b", b"c", b"d"], []):
        envelope, body = control.answer(floor.desk, [b"me"], parts)
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


# ---------------------------------------------------------------------- restart


def died(floor: Floor) -> Path:
    """The journal as kill -9 would leave it."""
    path = floor.journal.path
    left = path.read_bytes()
    floor.close()
    path.write_bytes(left)
    return path


def test_after_a_crash_everything_owed_is_answered_restarted_once(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    floor.serve()
    floor.send(2, part_id="P2")
    floor.ask("trigger", trigger_id=5, part_id="P5", timeout_ms=500)
    floor.ask("trigger", trigger_id=6, part_id="P6", timeout_ms=500)
    floor.send(3, trigger_id=5, part_id="P5")
    after = make("ok", journal=died(floor))
    assert [(r.result_id, r.seq, r.trigger_id, r.part_id, r.reason.name) for r in after.results] == [
        (2, 2, 0, "P2", "RESTARTED"), (3, 3, 5, "P5", "RESTARTED"), (4, 0, 6, "P6", "RESTARTED"),
    ]  # fmt: skip
    assert balanced(after)
    after.send(6)
    after.settle()
    assert [(r.result_id, r.seq, r.reason.name) for r in after.results[3:]] == [
        (5, 4, "LOST"), (6, 5, "LOST"), (7, 6, "GOOD"),
    ]  # fmt: skip
    again = make("ok", journal=died(after))
    assert again.results == []


def test_a_duplicate_is_still_known_after_a_restart(make: MakeFloor) -> None:
    floor = make("ok")
    for seq in (1, 2):
        floor.send(seq)
        floor.serve()
    floor.send(1)
    after = make("ok", journal=died(floor))
    after.send(2)
    after.send(3)
    after.send(1, camera_session=OTHER_SESSION)
    after.settle()
    assert Counter(after.reasons) == {"DUPLICATE_SEQ": 1, "GOOD": 2}


def test_a_promise_kept_just_before_the_crash_is_not_kept_twice(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("trigger", trigger_id=5, timeout_ms=500)
    redeem = floor.journal.redeem
    floor.journal.redeem = lambda number: None  # type: ignore[method-assign]  # the crash comes before this
    floor.send(1, trigger_id=5)
    floor.serve()
    floor.journal.redeem = redeem  # type: ignore[method-assign]
    after = make("ok", journal=died(floor))
    assert after.results == []
    assert after.journal.promises() == {}


def test_ending_answers_everything_and_refuses_what_still_comes(make: MakeFloor) -> None:
    floor = make("ok", timing={"shutdown_ms": 0})
    floor.ask("trigger", trigger_id=5, timeout_ms=500)
    floor.send()
    floor.send()
    late = iter([[wire.encode_frame(floor.frame())]])
    floor.sockets.frames = lambda: iter(next(late, []))  # type: ignore[method-assign]
    floor.desk._answer_everything()
    assert Counter(floor.reasons) == {"SHUTDOWN": 4}
    assert [entry for entry in floor.journal.entries() if entry.owed] == []
    assert floor.journal.promises() == {}
    assert wire.decode_state(floor.of_kind("state")[-1]).state == State.HALTED
    assert balanced(floor)


def test_an_engine_that_fails_in_a_gap_judges_nothing_more_and_the_bench_lives_on(make: MakeFloor) -> None:
    floor = make()
    recipe = floor.station.operation.recipe
    assert recipe is not None

    def fail() -> None:
        raise EngineError("it cannot be kept awake")

    recipe.engine.idle = fail  # type: ignore[method-assign]
    floor.settle()
    assert floor.station.operation.state is State.ERROR
    assert "it cannot be kept awake" in floor.station.operation.alarms["SELF_TEST"]
    beat = floor.station.place.beat
    floor.serve()
    assert floor.station.place.beat > beat
