"""The desk and its frames: exactly one result for each, whatever is wrong with it and however long it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asperity.runtime import wire
from asperity.runtime.clock import MS
from asperity.runtime.frame import Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import SESSION, MakeFloor, balanced, floors


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


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


def test_the_picture_of_a_frame_follows_its_result_where_it_is_asked_for(make: MakeFloor) -> None:
    floor = make("ok ng", sockets={"pictures": True})
    frames = []
    for _ in range(2):
        frames.append(floor.send())
        floor.pass_ms(12)
        floor.serve()
    sent = [wire.decode_bulk([bytes(p) for p in parts]) for parts in floor.sockets.bulk]
    pictures = [bulk for bulk in sent if bulk.kind == "picture"]
    assert [bulk.result_id for bulk in pictures] == [result.result_id for result in floor.results]
    for frame, bulk in zip(frames, pictures, strict=True):
        assert np.array_equal(bulk.array, frame.rgb)


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
    engine = floor.station.controller.recipe.engine  # type: ignore[union-attr]
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
    for seq in (10, 13, 13, 12, 200, 201, 202):
        floor.send(seq)
        floor.settle()
    assert [(result.seq, result.reason.name) for result in floor.results] == [
        (10, "GOOD"), (11, "LOST"), (12, "LOST"), (13, "GOOD"), (13, "DUPLICATE_SEQ"),
        (200, "SEQ_JUMP"), (201, "SEQ_JUMP"), (202, "GOOD"),
    ]  # fmt: skip
    assert "SEQ_JUMP" in floor.state.alarms
    assert floor.state.late == 1, "12 arrived after it had been answered LOST: it has its one result"
    assert balanced(floor)


def test_one_frame_with_a_wrong_number_makes_no_duplicates_of_those_that_follow(make: MakeFloor) -> None:
    floor = make("ok")
    for seq in (1, 2, 2**53 - 1, 3, 4, 2**53 - 2, 5):
        floor.send(seq)
        floor.settle()
    assert [(result.seq, result.reason.name) for result in floor.results if result.seq < 9] == [
        (seq, "GOOD") for seq in (1, 2, 3, 4, 5)
    ]
    assert floor.reasons.count("SEQ_JUMP") == 2


def test_an_exposure_that_a_reconnection_overtook_has_one_result(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    floor.sockets.open, floor.sockets.speaker = {2}, 2
    floor.send(3)
    floor.sockets.speaker = None
    floor.send(2)
    floor.send(2)
    floor.settle()
    assert Counter((result.seq, result.reason.name) for result in floor.results) == {
        (1, "GOOD"): 1, (2, "LOST"): 1, (3, "GOOD"): 1, (2, "CAMERA_CONFLICT"): 1,
    }  # fmt: skip
    assert floor.state.late == 1 and balanced(floor)


OTHER = "6f1c3b0e-0f5a-4c57-9a53-222222222222"


def test_while_two_connections_send_for_one_camera_nothing_is_accepted(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    floor.settle()
    floor.send(2)
    floor.sockets.open, floor.sockets.speaker = {1, 2}, 2
    floor.send(9, camera_session=OTHER)
    floor.sockets.speaker = 1
    floor.send(3)
    floor.settle()
    assert floor.reasons == ["GOOD", *["CAMERA_CONFLICT"] * 3]
    assert "CAMERA_CONFLICT" in floor.state.alarms
    floor.sockets.open = {1}
    assert "CAMERA_CONFLICT" not in floor.state.alarms
    floor.send(4)
    floor.settle()
    assert floor.reasons[-1] == "GOOD"
    assert balanced(floor)


def test_the_session_of_the_camera_itself_sent_by_another_connection_is_a_conflict_too(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    floor.sockets.open, floor.sockets.speaker = {1, 2}, 2
    floor.send(2)
    floor.settle()
    assert [(r.seq, r.reason.name) for r in floor.results] == [(1, "CAMERA_CONFLICT"), (2, "CAMERA_CONFLICT")]


def test_a_camera_that_was_started_again_is_believed_once_its_old_connection_is_closed(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(1)
    floor.sockets.open, floor.sockets.speaker = {2}, 2
    floor.send(1, camera_session=OTHER)
    floor.settle()
    assert floor.reasons == ["GOOD", "GOOD"]


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


@pytest.mark.parametrize(
    ("unread_ms", "clock", "reason"),
    [(1200, "device", "GOOD"), (3000, "device", "STALE"), (3000, "realtime", "GOOD"), (3000, "ptp", "GOOD")],
)
def test_what_may_have_waited_in_the_socket_is_stale_where_no_clock_says_otherwise(
    make: MakeFloor, unread_ms: int, clock: str, reason: str
) -> None:
    """The process stood still, and what a camera sent meanwhile is read only now."""
    floor = make("ok")
    floor.sockets.read_up_to_ns = floor.now.ns - unread_ms * MS
    floor.send(clock=clock)
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


def test_gaps_that_use_up_the_journal_do_not_end_the_station(make: MakeFloor) -> None:
    """Found in review: each gap uses up to 64 ids, and the frame on the bench keeps its slot meanwhile."""
    floor = make("ok")
    floor.send()
    floor.desk.engine_thread._inbox.take(0.0)  # the bench is busy with it
    for frame in range(1, 12):
        floor.send(1 + 65 * frame)
    first = next(result for result in floor.results if result.seq == 1)
    assert (first.reason, first.accept) == (Reason.OVERLOAD, False)
    floor.settle()
    assert Counter(result.seq for result in floor.results).most_common(1)[0][1] == 1, "one result each"
    assert balanced(floor)


@pytest.mark.parametrize("seq", [2, 950])
def test_a_late_exposure_has_one_result_also_broken_and_after_the_largest_gap(make: MakeFloor, seq: int) -> None:
    """Found in review: a broken frame, and one more than 256 exposures back, were answered LOST and then again."""
    floor = make("ok", limits={"seq_gap_max": 1000})
    floor.send(1)
    floor.send(1001)
    floor.settle()
    parts = [bytes(part) for part in wire.encode_frame(floor.frame(seq))]
    floor.desk.on_frame(parts[:-1])
    assert [result.reason.name for result in floor.results if result.seq == seq] == ["LOST"]
    assert floor.station.ledger.late == 1 and balanced(floor)
