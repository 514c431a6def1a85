"""Several stations in one process: each its own frames, law and journal, none at another's expense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asperity.runtime import wire
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from tests.runtime.inspector.several_stations import NAMES, each_balanced, several
from tests.runtime.inspector.station_floor import MakeFloor


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with several(tmp_path) as make:
        yield make


# ---------------------------------------------------------------------- whose frame is it


def test_a_frame_goes_by_its_camera_and_each_station_counts_its_own(make: MakeFloor) -> None:
    floor = make("ok")
    for name, frames in zip(NAMES, (1, 2, 3), strict=True):
        for _ in range(frames):
            floor.send(camera=name)
            floor.settle()
    for number, (name, frames) in enumerate(zip(NAMES, (1, 2, 3), strict=True), start=1):
        results = floor.results_of(name)
        assert [result.result_id for result in results] == list(range(1, frames + 1)), "ids of its own"
        assert {(result.station, result.camera, result.reason) for result in results} == {(name, name, Reason.GOOD)}
        records = [wire.decode_record_message(parts) for parts in floor.of_kind("record", name)]
        assert [(station, record.station_number) for station, record in records] == [(name, number)] * frames
        assert floor.state_of(name).received == frames
        assert len(list(floor.of(name).journal.entries())) == frames
    assert len({result.session for result in floor.results}) == 1, "one run of the inspector"
    each_balanced(floor)


@pytest.mark.parametrize("cut", [False, True])
def test_what_is_nobodys_is_answered_once_by_the_first_station(make: MakeFloor, cut: bool) -> None:
    floor = make("ok")
    parts = wire.encode_frame(floor.frame(camera="nobody"))
    floor.desk.on_frame(parts[:-1] if cut else parts)
    floor.desk.on_frame([b"rubbish"])
    floor.settle()
    reason = "REFUSED_MESSAGE" if cut else "WRONG_CAMERA"
    assert (floor.reasons_of("left"), floor.reasons_of("right")) == ([reason, "REFUSED_MESSAGE"], [])
    assert [result.camera for result in floor.results_of("left")] == ["nobody", ""]
    each_balanced(floor)


def test_a_broken_message_is_answered_by_the_station_of_its_camera(make: MakeFloor) -> None:
    floor = make("ok")
    floor.send(camera="right")
    floor.desk.on_frame(wire.encode_frame(floor.frame(camera="right"))[:-1])
    floor.send(camera="right")
    floor.settle()
    assert (floor.reasons_of("left"), floor.reasons_of("top")) == ([], [])
    assert Counter(floor.reasons_of("right")) == {"GOOD": 2, "REFUSED_MESSAGE": 1}, "and its seq is not lost as well"


def test_the_same_picture_at_two_stations_is_frozen_at_neither(make: MakeFloor) -> None:
    floor = make("ok")
    frame = floor.frame(camera="left")
    for name in ("left", "right", "left"):
        floor.desk.on_frame(wire.encode_frame(replace(frame, camera=name, seq=floor.of(name).ledger.received + 1)))
        floor.settle()
    assert (floor.reasons_of("left"), floor.reasons_of("right")) == (["GOOD", "FROZEN_IMAGE"], ["GOOD"])


# ---------------------------------------------------------------------- what befalls one


@pytest.mark.parametrize(("op", "state"), [("halt", State.HALTED), ("stop", State.READY), ("abort", State.READY)])
def test_what_is_asked_of_one_station_is_done_to_one(make: MakeFloor, op: str, state: State) -> None:
    floor = make("ok")
    for name in NAMES:
        floor.send(camera=name)
    assert floor.ask(op, station="right").ok
    floor.settle()
    assert floor.state_of("right").state == state
    for name in ("left", "top"):
        assert floor.state_of(name).state == State.CONTINUOUS_EXECUTION
        assert floor.reasons_of(name) == ["GOOD"]
    assert floor.reasons_of("right") == (["GOOD"] if op == "stop" else ["ABORTED"])
    each_balanced(floor)


def test_faults_in_a_row_are_counted_for_each_station(make: MakeFloor) -> None:
    floor = make("ok")
    for _ in range(3):
        floor.send(camera="left", sensor="simulate:raise")
        floor.send(camera="right")
        floor.settle()
    assert floor.state_of("left").state == State.ERROR
    assert floor.state_of("right").state == State.CONTINUOUS_EXECUTION
    assert floor.ask("reset", station="left").ok
    floor.settle()
    assert floor.state_of("left").state == State.READY


def test_a_first_recipe_that_does_not_open_leaves_the_others(make: MakeFloor) -> None:
    floor = make("ok", ready=False, recipes={"right": "none"})
    floor.settle()
    assert [floor.state_of(name).state for name in NAMES] == [
        State.CONTINUOUS_EXECUTION, State.INITIALIZED, State.CONTINUOUS_EXECUTION,
    ]  # fmt: skip
    assert "RECIPE" in floor.state_of("right").alarms
    assert not floor.desk.ending
    assert floor.ask("prepare_recipe", station="right", recipe="a").ok
    floor.settle()
    assert floor.state_of("right").state == State.CONTINUOUS_EXECUTION
    assert "RECIPE" not in floor.state_of("right").alarms


def test_when_no_first_recipe_opens_the_process_ends(make: MakeFloor) -> None:
    floor = make("ok", ready=False, recipes=dict.fromkeys(NAMES, "none"))
    floor.settle()
    assert floor.desk.ending
    assert not any("RECIPE" in floor.state_of(name).alarms for name in NAMES), "the error itself says why"


# ---------------------------------------------------------------------- requests


def test_requests_name_the_station_where_there_are_several(make: MakeFloor) -> None:
    floor = make("ok")
    reply = floor.ask("get_state")
    assert (reply.code, reply.ok) == ("WRONG_STATION", False)
    assert reply.text == "the stations of this process are left, right, top; name the station in the field station"
    assert floor.ask("halt", station="bottom").text == "the stations of this process are left, right, top"
    assert [floor.state_of(name).station for name in NAMES] == list(NAMES)
    assert all(floor.state_of(name).state == State.CONTINUOUS_EXECUTION for name in NAMES), "nobody was halted"


def test_shutdown_is_the_whole_processs_and_names_no_station(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("shutdown", station="bottom").code == "WRONG_STATION"
    reply = floor.ask("shutdown", station="left")
    assert reply.code == "REFUSED" and "left, right, top" in reply.text and not floor.desk.ending
    assert floor.ask("shutdown").code == "ACCEPTED" and floor.desk.ending


def test_triggers_and_results_are_each_stations_own(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    for name in ("left", "right"):
        assert floor.ask("trigger", station=name, trigger_id=7, timeout_ms=500).code == "ACCEPTED"
        assert len(floor.of_kind("trigger", name)) == 1
    floor.send(camera="right", trigger_id=7)
    floor.settle()
    floor.pass_ms(501)
    assert (floor.reasons_of("left"), floor.reasons_of("right")) == (["NO_FRAME"], ["GOOD"])
    replies = {name: floor.ask("get_result", station=name, from_=1) for name in ("left", "right")}
    reasons = {name: [r.reason.name for r in wire.reply_results(reply)] for name, reply in replies.items()}
    assert reasons == {"left": ["NO_FRAME"], "right": ["GOOD"]}
    each_balanced(floor)


# ---------------------------------------------------------------------- ends


def test_after_a_crash_each_station_answers_what_it_owed(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    for name, frames in zip(NAMES, (2, 1, 0), strict=True):
        for trigger_id in range(1, frames + 1):
            floor.ask("trigger", station=name, trigger_id=trigger_id, timeout_ms=500)
            floor.send(camera=name, trigger_id=trigger_id)
    floor.ask("trigger", station="top", trigger_id=9, timeout_ms=500)
    for journal in floor.journals:
        journal.closed = True  # as a killed process leaves it: never marked as cleanly closed
        journal._file.close()
        journal._ids.close()
    again = make("ok")
    assert [again.reasons_of(name) for name in NAMES] == [["RESTARTED"] * 2, ["RESTARTED"], ["RESTARTED"]]
    assert again.results_of("top")[0].trigger_id == 9
    each_balanced(again)


def test_ending_answers_everything_of_every_station(make: MakeFloor) -> None:
    floor = make("ok", timing={"shutdown_ms": 0})
    for name in NAMES:
        floor.send(camera=name)
        floor.send(camera=name)
    floor.desk._answer_everything()
    for name in NAMES:
        assert floor.reasons_of(name) == ["SHUTDOWN"] * 2
        assert wire.decode_state(floor.of_kind("state", name)[-1]).state == State.HALTED
        assert [entry for entry in floor.of(name).journal.entries() if entry.owed] == []
