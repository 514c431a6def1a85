"""Several stations in one process on one engine: each its own frames, law and journal, none at another's expense."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from station_floor import Floor

from runtime import wire
from runtime.engines import Progress
from runtime.errors import AsperityError, EngineLostError
from runtime.frame import Frame, Scores
from runtime.reasons import Reason
from runtime.states import State

NAMES = ("left", "right", "top")
MakeFloor = Callable[..., Floor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    floors: list[Floor] = []

    def build(script: str = "ok", journal: str = "journal", names: tuple[str, ...] = NAMES, **options: Any) -> Floor:
        floors.append(Floor(tmp_path / journal, script, names=names, **options))
        return floors[-1]

    yield build
    for floor in floors:
        if not floor.journal._map.closed:
            floor.close()


def each_balanced(floor: Floor) -> None:
    for name in floor.desk.by_name:
        station = floor.of(name)
        assert station.ledger.imbalance(len(station.work)) == 0
        assert floor.state_of(name).balanced


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


# ---------------------------------------------------------------------- one bench


def test_stations_take_turns_however_many_frames_one_sends(make: MakeFloor) -> None:
    floor = make("ok")
    order: list[str] = []
    for _ in range(12):
        for _ in range(5):
            floor.send(camera="left")
        floor.send(camera="right")
        floor.send(camera="top")
        before = len(floor.results)
        floor.serve(3)
        order += [result.station for result in floor.results[before:] if result.accept]
    for at in range(0, len(order), 3):
        assert sorted(order[at : at + 3]) == sorted(NAMES), "in three turns each station has one"
    assert Counter(floor.reasons_of("right")) == Counter(floor.reasons_of("top")) == {"GOOD": 12}
    assert Counter(floor.reasons_of("left")) == {"GOOD": 12, "OVERLOAD": 47}
    floor.settle()
    each_balanced(floor)


def test_stations_of_one_bundle_share_one_engine_until_the_last_has_done_with_it(make: MakeFloor) -> None:
    floor = make("ok", recipes={"top": "b"})
    engines = {name: floor.of(name).operation.recipe.engine for name in NAMES}  # type: ignore[union-attr]
    assert engines["left"] is engines["right"] is not engines["top"]
    closed = threading.Event()
    engines["left"].close = closed.set  # type: ignore[method-assign]
    for name in ("left", "right"):
        floor.ask("stop", station=name)
        floor.ask("prepare_recipe", station=name, recipe="b")
        floor.settle()
        assert floor.of(name).operation.recipe.engine is engines["top"]  # type: ignore[union-attr]
        assert closed.wait(30 if name == "right" else 0.0) == (name == "right")


def test_a_threshold_is_one_stations_although_the_engine_is_shared(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("set_threshold", station="left", threshold=0.1).ok
    floor.settle()
    for name in ("left", "right"):
        floor.send(camera=name)
    floor.settle()
    assert [floor.results_of(name)[0].threshold for name in ("left", "right")] == [0.1, 1.0]
    assert [floor.reasons_of(name) for name in ("left", "right")] == [["SCORE_ABOVE_THRESHOLD"], ["GOOD"]]


class Batching:
    """Turns a floor's shared engine into one that takes several frames at once; keeps what it was given."""

    def __init__(self, floor: Floor, batch_max: int) -> None:
        self.given: list[list[str]] = []
        recipe = floor.station.operation.recipe
        assert recipe is not None
        engine = recipe.engine
        self._one_by_one = engine.score_batch
        self._score = engine.score
        engine.batch_max = batch_max
        engine.score_batch = self.score_batch  # type: ignore[method-assign]
        engine.score = self.score  # type: ignore[method-assign]

    def score(self, frame: Frame, progress: Progress) -> Scores:
        self.given.append([frame.camera])
        return self._score(frame, progress)

    def score_batch(self, frames: list[Frame], progress: Progress) -> list[Scores | AsperityError]:
        self.given.append([frame.camera for frame in frames])
        given, self.given = self.given, []
        found = self._one_by_one(frames, progress)
        self.given = given
        return found


def test_a_batch_has_what_waits_and_one_frame_of_a_station(make: MakeFloor) -> None:
    floor = make("ok")
    batching = Batching(floor, 8)
    floor.send(camera="left")
    floor.serve()
    for name in ("left", "right", "left", "top"):
        floor.send(camera=name)
    floor.serve()
    floor.serve()
    assert [sorted(cameras) for cameras in batching.given] == [["left"], ["left", "right", "top"], ["left"]]
    assert Counter(floor.reasons) == {"GOOD": 5}
    each_balanced(floor)


def test_a_batch_is_no_larger_than_the_engine_takes_and_nobody_is_passed_over(make: MakeFloor) -> None:
    floor = make("ok")
    batching = Batching(floor, 2)
    for _ in range(4):
        for name in NAMES:
            floor.send(camera=name)
        floor.serve()
    floor.settle()
    assert {len(cameras) for cameras in batching.given[:4]} == {2}
    assert max(Counter(camera for cameras in batching.given[:3] for camera in cameras).values()) == 2
    each_balanced(floor)


def test_a_failing_frame_of_a_batch_costs_the_others_nothing(make: MakeFloor) -> None:
    floor = make("ok")
    Batching(floor, 8)
    for name, word in zip(NAMES, ("ng", "raise", "ok"), strict=True):
        floor.send(camera=name, sensor=f"simulate:{word}")
    floor.serve()
    assert [floor.reasons_of(name) for name in NAMES] == [["SCORE_ABOVE_THRESHOLD"], ["ENGINE"], ["GOOD"]]
    each_balanced(floor)


def test_a_batch_with_fewer_answers_than_frames_judges_none(make: MakeFloor) -> None:
    floor = make("ok")
    recipe = floor.station.operation.recipe
    assert recipe is not None
    recipe.engine.batch_max = 8
    recipe.engine.score_batch = lambda frames, progress: [recipe.engine.score(frames[0], progress)]  # type: ignore[method-assign]
    for name in NAMES:
        floor.send(camera=name)
    floor.serve()
    assert floor.reasons == ["ENGINE"] * 3


def test_a_batch_holds_no_frame_of_another_bundle(make: MakeFloor) -> None:
    floor = make("ok", recipes={"right": "b"})
    batching = Batching(floor, 8)
    for name in NAMES:
        floor.send(camera=name)
    floor.settle()
    assert [sorted(cameras) for cameras in batching.given] == [["left", "top"]]
    assert floor.reasons_of("right") == ["SCORE_ABOVE_THRESHOLD"]


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


def lose(floor: Floor, station: str) -> None:
    """The next frame finds the engine of this station lost."""
    recipe = floor.of(station).operation.recipe
    assert recipe is not None

    def gone(frame: Frame, progress: Progress) -> Scores:
        raise EngineLostError("the device is gone")

    recipe.engine.score = gone  # type: ignore[method-assign]


def test_a_lost_engine_takes_every_station_that_shares_it_to_error_and_no_other(make: MakeFloor) -> None:
    floor = make("ok", recipes={"top": "b"})
    lose(floor, "left")
    for name in NAMES:
        floor.send(camera=name)
    floor.serve()
    floor.settle()
    assert [floor.state_of(name).state for name in NAMES] == [State.ERROR, State.ERROR, State.CONTINUOUS_EXECUTION]
    assert [floor.reasons_of(name) for name in NAMES] == [["ENGINE"], ["ENGINE"], ["SCORE_ABOVE_THRESHOLD"]]
    assert "ENGINE_LOST" in floor.state_of("right").alarms
    assert not floor.desk.ending, "one can still judge"
    each_balanced(floor)
    for op, fields in (("reset", {}), ("prepare_recipe", {"recipe": "a"})):
        assert floor.ask(op, station="right", **fields).ok
        floor.settle()
    floor.ask("start", station="right")
    floor.send(camera="right")
    floor.settle()
    assert floor.reasons_of("right")[-1] == "GOOD", "the recipe was opened anew"
    lose(floor, "top")
    lose(floor, "right")
    for name in ("top", "right"):
        floor.send(camera=name)
    floor.settle()
    assert floor.desk.ending, "nobody can judge any more: the supervisor starts the process again"
    assert isinstance(floor.desk.failure(), EngineLostError)
    each_balanced(floor)


def test_a_lost_engine_ends_the_process_although_others_have_no_recipe(make: MakeFloor) -> None:
    floor = make("ok", ready=False, recipes={"right": "none", "top": ""})
    floor.settle()
    assert floor.desk.failure() is None
    lose(floor, "left")
    floor.send(camera="left")
    floor.settle()
    assert floor.desk.ending, "the one that waits for a recipe might wait for ever"
    assert isinstance(floor.desk.failure(), EngineLostError), "not the broken bundle, which no supervisor tries again"


def test_a_stuck_engine_stops_every_stations_beat_and_is_every_stations_error(make: MakeFloor) -> None:
    floor = make("ok")
    floor.desk.bench.serve(0.0)
    before = [floor.state_of(name).beat for name in NAMES]
    floor.send(camera="left")
    floor.pass_ms(5001)
    assert [floor.state_of(name).beat for name in NAMES] == before
    assert [floor.state_of(name).state for name in NAMES] == [State.ERROR] * 3


def test_the_slowest_recipe_at_the_bench_says_how_long_a_beat_may_take(make: MakeFloor) -> None:
    floor = make("ok", recipes={"top": "b"})
    place = floor.of("top").place
    assert place.recipe is not None
    slow = msgspec.structs.replace(place.recipe.manifest, frame_p99_ms=700.0)
    place.recipe = replace(place.recipe, manifest=slow)
    assert [floor.state_of(name).beat_timeout_ms for name in NAMES] == [2100] * 3


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


# ---------------------------------------------------------------------- recipes and tests between frames


def test_a_recipe_change_waits_behind_the_stations_own_frames_alone(make: MakeFloor) -> None:
    floor = make("ok")
    for name in ("left", "right", "right"):
        floor.send(camera=name)
    floor.ask("prepare_recipe", station="left", recipe="b")
    floor.desk.turn()
    for name in ("left", "right"):
        floor.send(camera=name)
    floor.settle()
    assert [result.recipe for result in floor.results_of("left")] == ["a", "b"]
    assert {result.recipe for result in floor.results_of("right")} == {"a"}
    assert Counter(floor.reasons_of("right")) == {"GOOD": 2, "OVERLOAD": 1}
    each_balanced(floor)


def test_a_self_test_gives_the_others_a_turn_after_each_golden_frame(make: MakeFloor) -> None:
    floor = make("ok")
    seen: list[str] = []

    def golden_steps(progress: Progress) -> Iterator[None]:
        for number in range(3):
            seen.append(f"golden {number}")
            progress(seen[-1])
            yield

    place = floor.of("left").place
    assert place.recipe is not None
    place.recipe = replace(place.recipe, golden_steps=golden_steps)
    floor.ask("stop", station="left")
    floor.ask("self_test", station="left")
    while floor.of("left").operation.tested is False:
        floor.send(camera="right")
        floor.serve()
        floor.serve()
        seen += floor.reasons_of("right")[len([word for word in seen if word == "GOOD"]) :]
    assert seen == ["golden 0", "GOOD", "golden 1", "GOOD", "golden 2", "GOOD", "GOOD"]
    assert floor.state_of("left").state == State.READY


# ---------------------------------------------------------------------- requests


def test_requests_name_the_station_where_there_are_several(make: MakeFloor) -> None:
    floor = make("ok")
    reply = floor.ask("get_state")
    assert (reply.code, reply.ok) == ("WRONG_STATION", False)
    assert reply.text == "the stations here are left, right, top; name the one you mean in station"
    assert floor.ask("halt", station="bottom").text == "the stations here are left, right, top"
    assert [floor.state_of(name).station for name in NAMES] == list(NAMES)
    assert all(floor.state_of(name).state == State.CONTINUOUS_EXECUTION for name in NAMES), "nobody was halted"


def test_shutdown_is_the_whole_processs_and_names_no_station(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("shutdown", station="bottom").code == "WRONG_STATION"
    reply = floor.ask("shutdown", station="left")
    assert reply.code == "REFUSED" and "left, right, top" in reply.text and not floor.desk.ending
    assert floor.ask("shutdown").code == "ACCEPTED" and floor.desk.ending


def test_triggers_and_results_are_each_stations_own(make: MakeFloor) -> None:
    floor = make("ok")
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
    floor = make("ok")
    for name, frames in zip(NAMES, (2, 1, 0), strict=True):
        for _ in range(frames):
            floor.send(camera=name)
    floor.ask("trigger", station="top", trigger_id=9, timeout_ms=500)
    for journal in floor.journals:
        journal._map.close()  # as a killed process leaves it: never marked as cleanly closed
        os.close(journal._fd)
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
