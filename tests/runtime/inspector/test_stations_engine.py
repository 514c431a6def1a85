"""Several stations on one engine: turns, batches, recipes between frames, and what a lost or stuck engine costs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from asperity.runtime.engines import Progress
from asperity.runtime.errors import AsperityError, EngineLostError
from asperity.runtime.frame import Frame, Scores
from asperity.runtime.states import State
from tests.runtime.inspector.several_stations import NAMES, each_balanced, several
from tests.runtime.inspector.station_floor import Floor, MakeFloor


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with several(tmp_path) as make:
        yield make


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
    engines = {name: floor.of(name).controller.recipe.engine for name in NAMES}  # type: ignore[union-attr]
    assert engines["left"] is engines["right"] is not engines["top"]
    closed = threading.Event()
    engines["left"].close = closed.set  # type: ignore[method-assign]
    for name in ("left", "right"):
        floor.ask("stop", station=name)
        floor.ask("prepare_recipe", station=name, recipe="b")
        floor.settle()
        assert floor.of(name).controller.recipe.engine is engines["top"]  # type: ignore[union-attr]
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
        recipe = floor.station.controller.recipe
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
    recipe = floor.station.controller.recipe
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

    place = floor.of("left").slot
    assert place.recipe is not None
    place.recipe = replace(place.recipe, golden_steps=golden_steps)
    floor.ask("stop", station="left")
    floor.ask("self_test", station="left")
    while floor.of("left").controller.tested is False:
        floor.send(camera="right")
        floor.serve()
        floor.serve()
        seen += floor.reasons_of("right")[len([word for word in seen if word == "GOOD"]) :]
    assert seen == ["golden 0", "GOOD", "golden 1", "GOOD", "golden 2", "GOOD", "GOOD"]
    assert floor.state_of("left").state == State.READY


# ---------------------------------------------------------------------- an engine lost or stuck


def lose(floor: Floor, station: str) -> None:
    """The next frame finds the engine of this station lost."""
    recipe = floor.of(station).controller.recipe
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
    assert floor.state_of("right").state == State.ERROR, "before a frame of its own has found it out"
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
    floor.desk.engine_thread.serve(0.0)
    before = [floor.state_of(name).beat for name in NAMES]
    floor.send(camera="left")
    for step_ms in (2000, 2000, 1001):  # the desk looks meanwhile
        floor.pass_ms(step_ms)
    assert [floor.state_of(name).beat for name in NAMES] == before
    assert [floor.state_of(name).state for name in NAMES] == [State.ERROR] * 3


def test_the_slowest_recipe_at_the_bench_says_how_long_a_beat_may_take(make: MakeFloor) -> None:
    floor = make("ok", recipes={"top": "b"})
    place = floor.of("top").slot
    assert place.recipe is not None
    slow = msgspec.structs.replace(place.recipe.manifest, frame_p99_ms=700.0)
    place.recipe = replace(place.recipe, manifest=slow)
    assert [floor.state_of(name).beat_timeout_ms for name in NAMES] == [2100] * 3
