"""A change of recipe has a number and exactly one end, whatever comes between, and the active recipe agrees."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asperity.runtime.engines.simulated import BROKEN_RECIPE
from asperity.runtime.errors import EngineLostError
from asperity.runtime.judging.engine_thread import TakenOver
from asperity.runtime.judging.recipe_loader import Opened
from asperity.runtime.records.audit import ITSELF, Actor
from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import Floor, MakeFloor, floors

RECIPE_MS = 2000
Ends = dict[int, list[tuple[str, str]]]


def held(floor: Floor) -> Callable[[], None]:
    """From now on nothing opens until what is returned has been called: it lets the next one."""
    loader = floor.station.controller._loader
    opened, let = loader.opened, [False]

    def gated() -> Opened | None:
        if not let[0]:
            return None
        found = opened()
        if found is not None:
            let[0] = False
        return found

    loader.opened = gated  # type: ignore[method-assign]
    return lambda: let.__setitem__(0, True)


def ends(floor: Floor) -> Ends:
    """Of each change what became of it, as the audit file has it: (status, recipe)."""
    found: Ends = defaultdict(list)
    for entry in floor.audit():
        if entry["op"] == "recipe_change":
            found[entry["fields"]["number"]].append((entry["code"], entry["fields"]["recipe"]))
    return found


def change(floor: Floor) -> tuple[int, str, str, str]:
    """As the state says it, with the active recipe."""
    state = floor.state
    assert state.recipe_change is not None
    return state.recipe_change.number, state.recipe_change.recipe, state.recipe_change.status, state.recipe


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:

        def build(script: str = "ok", **options: Any) -> Floor:
            floor = make(script, timing={"recipe_ms": RECIPE_MS}, **options)
            floor.config.recipes[BROKEN_RECIPE] = "script:ok"
            return floor

        yield build


def test_the_first_recipe_is_change_1_and_each_further_one_counts(make: MakeFloor) -> None:
    floor = make("ok", ready=False)
    floor.desk.turn()
    state = floor.state
    assert state.recipe_change is not None and state.recipe_change.number == 1
    floor.settle()
    assert change(floor) == (1, "a", "done", "a")
    reply = floor.ask("prepare_recipe", recipe="b", actor="opcua line-3")
    assert (reply.code, reply.recipe_change) == ("ACCEPTED", 2)
    assert change(floor) == (2, "b", "under_way", "a"), "the recipe before it judges on"
    floor.settle()
    assert change(floor) == (2, "b", "done", "b")
    floor.ask("stop")
    assert floor.ask("unprepare_recipe").recipe_change == 3
    floor.settle()
    assert change(floor) == (3, "", "done", "")
    assert ends(floor) == {1: [("done", "a")], 2: [("done", "b")], 3: [("done", "")]}
    by = {event.code: event.actor for event in floor.events if event.code.startswith("RECIPE")}
    assert by["RECIPE b"] == "says opcua line-3" and by["RECIPE a"] == "the station"


def test_a_new_session_says_its_change_from_its_first_state_on(make: MakeFloor) -> None:
    floor = make("ok", ready=False)
    assert floor.ask("get_state").state.recipe_change.status == "under_way"  # type: ignore[union-attr]
    waiting = make("ok", ready=False, recipes={"st1": ""})
    waiting.settle()
    assert waiting.state.recipe_change is None, "none was asked for"
    assert waiting.ask("prepare_recipe", recipe="b").recipe_change == 1
    waiting.settle()
    assert change(waiting) == (1, "b", "done", "b")


def test_one_that_does_not_open_fails_in_words_and_the_recipe_before_it_judges_on(make: MakeFloor) -> None:
    floor = make("ok")
    assert floor.ask("prepare_recipe", recipe=BROKEN_RECIPE, actor="mqtt bob").recipe_change == 2
    floor.settle()
    assert change(floor) == (2, BROKEN_RECIPE, "failed", "a")
    told = floor.state.recipe_change
    assert told is not None and "its bundle is damaged" in told.text
    assert "RECIPE" in floor.state.alarms
    (event,) = [event for event in floor.events if event.code == "RECIPE"]
    assert (event.severity, event.actor) == ("alarm", "says mqtt bob") and "change 2 failed" in event.text
    floor.send()
    floor.settle()
    assert (floor.results[-1].recipe, floor.reasons[-1]) == ("a", "GOOD")
    floor.ask("prepare_recipe", recipe=BROKEN_RECIPE)
    floor.settle()
    assert [event.code for event in floor.events].count("RECIPE") == 2, "no end is held back as a repeat"
    floor.ask("reset")
    floor.settle()
    assert floor.state.alarms == () and change(floor) == (3, BROKEN_RECIPE, "failed", "a")


def test_a_change_is_in_the_state_at_once(make: MakeFloor) -> None:
    floor = make("ok")
    floor.desk.turn()
    before = len(floor.of_kind("state"))
    floor.desk.turn()
    assert len(floor.of_kind("state")) == before, "the control: nothing happened, and no time has passed"
    let = held(floor)
    floor.ask("prepare_recipe", recipe="b")
    floor.desk.turn()
    let()
    floor.settle()
    new = [body for _, body in floor.of_kind("state")[before:]]
    assert b'"status":"under_way"' in new[0] and b'"status":"done"' in new[-1]


def test_a_second_change_is_busy_and_supersedes_nothing(make: MakeFloor) -> None:
    floor = make("ok")
    held(floor)
    floor.ask("prepare_recipe", recipe="b")
    for op, fields in (
        ("prepare_recipe", {"recipe": "a"}), ("unprepare_recipe", {}), ("set_threshold", {"threshold": 0.5}),
    ):  # fmt: skip
        reply = floor.ask(op, **fields)
        assert (reply.code, reply.recipe_change) == ("BUSY", None)
    assert change(floor) == (2, "b", "under_way", "a")


@pytest.mark.parametrize("where", ["opening", "waiting for the bench"])
def test_one_that_takes_too_long_fails_and_does_not_come_about_later(make: MakeFloor, where: str) -> None:
    floor = make("ok", limits={"engine_stuck_ms": 3_600_000})
    let = held(floor)
    if where == "waiting for the bench":
        let()
    floor.ask("prepare_recipe", recipe="b")
    floor.pass_ms(RECIPE_MS)
    assert change(floor) == (2, "b", "under_way", "a")
    floor.pass_ms(1)
    assert change(floor) == (2, "b", "failed", "a")
    assert "recipe_ms" in floor.state.recipe_change.text  # type: ignore[union-attr]
    let()
    floor.settle()
    assert change(floor) == (2, "b", "failed", "a")
    floor.send()
    floor.settle()
    assert floor.results[-1].recipe == "a"
    recipes = floor.desk.recipes._opened
    assert [opened.recipe.name for opened in recipes] == ["a"], "what never came into force is closed"
    assert ends(floor)[2] == [("failed", "b")]


def test_one_that_the_bench_has_just_taken_over_is_done_although_its_time_is_over(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("prepare_recipe", recipe="b")
    floor.desk.turn()
    floor.desk.engine_thread.serve(0.0)  # taken over; the desk has not read the report
    late = floor.now._replace(ns=floor.now.ns + 10 * RECIPE_MS * 1_000_000)
    floor.station.controller.watch(late, camera_alive=True)
    assert floor.station.controller.changes.under_way, "it can be neither taken back nor called failed"
    floor.settle()
    assert change(floor) == (2, "b", "done", "b")
    assert ends(floor)[2] == [("done", "b")]


@pytest.mark.parametrize("way", ["halt", "fault", "reset", "engine lost"])
def test_what_happens_to_the_station_meanwhile_ends_no_change_twice(make: MakeFloor, way: str) -> None:
    floor = make("ok")
    let = held(floor)
    floor.ask("prepare_recipe", recipe="b")
    if way == "fault":
        floor.station.controller.fault("TEST", "made up")
    elif way == "engine lost":
        # Another station judges on, so that the process does not end.
        floor.desk.failure = lambda: None  # type: ignore[method-assign]
        floor.station.controller.engine_lost(EngineLostError("made up"))
    else:
        floor.ask(way)
    assert change(floor) == (2, "b", "under_way", "a")
    let()
    floor.settle()
    assert change(floor) == (2, "b", "done", "b")
    assert ends(floor)[2] == [("done", "b")]
    if way != "reset":
        assert floor.state.state in (State.HALTED, State.ERROR), "a recipe starts nothing"
    floor.ask("reset")
    floor.settle()
    assert (floor.state.state, floor.state.recipe) == (State.READY, "b")


def test_the_end_of_the_process_ends_a_change_that_is_under_way(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("prepare_recipe", recipe="b")
    floor.desk.turn()
    floor.desk._answer_everything()
    last = floor.of_kind("state")[-1][1]
    assert b'"status":"failed"' in last and b"shutting down" in last
    assert ends(floor)[2] == [("failed", "b")]
    floor.desk.engine_thread.serve(0.0)
    assert [report for report in floor.station.slot.reports() if isinstance(report, TakenOver)] == []


def test_one_that_is_superseded_has_failed(make: MakeFloor) -> None:
    """The desk answers BUSY and never comes here; should it ever, nothing is left without an end."""
    floor = make("ok")
    changes = floor.station.controller.changes
    changes.begin("a", ITSELF)
    assert changes.begin("b", ITSELF) == 3
    changes.done("made up")
    assert ends(floor) == {1: [("done", "a")], 2: [("failed", "a")], 3: [("done", "b")]}


def test_a_failed_unprepare_leaves_the_recipe_in_force(make: MakeFloor) -> None:
    floor = make("ok", limits={"engine_stuck_ms": 3_600_000})
    floor.ask("stop")
    floor.ask("unprepare_recipe")
    floor.pass_ms(RECIPE_MS + 1)
    assert change(floor) == (2, "", "failed", "a")
    floor.settle()
    assert change(floor) == (2, "", "failed", "a")
    floor.ask("self_test")
    floor.settle()
    assert floor.state.state == State.READY


def test_a_threshold_that_is_not_taken_in_time_never_is(make: MakeFloor) -> None:
    floor = make("ok", limits={"engine_stuck_ms": 3_600_000})
    floor.ask("set_threshold", threshold=0.25, actor="opcua ann")
    floor.pass_ms(RECIPE_MS + 1)
    floor.settle()
    assert (floor.state.threshold, floor.state.alarms) == (1.0, ("THRESHOLD_CHANGE",))
    floor.ask("set_threshold", threshold=0.5, actor="opcua ann")
    floor.settle()
    assert floor.state.threshold == 0.5 and "THRESHOLD_CHANGE" not in floor.state.alarms
    told = [entry for entry in floor.audit() if entry["op"] == "threshold_change"]
    assert [(entry["code"], entry["actor"]["says"]) for entry in told] == [
        ("failed", "opcua ann"), ("done", "opcua ann"),
    ]  # fmt: skip
    assert (told[1]["fields"]["old"], told[1]["fields"]["new"]) == (1.0, 0.5)
    (event,) = [event for event in floor.events if event.code == "THRESHOLD_CHANGE" and event.severity == "warning"]
    assert event.actor == "says opcua ann"


def test_a_recipe_that_is_prepared_twice_is_put_away_once_it_is_in_force_nowhere(make: MakeFloor) -> None:
    floor = make("ok")
    closed = threading.Event()
    floor.station.controller.recipe.engine.close = closed.set  # type: ignore[union-attr, method-assign]
    floor.ask("prepare_recipe", recipe="a")
    floor.settle()
    assert change(floor) == (2, "a", "done", "a") and not closed.is_set()
    floor.ask("prepare_recipe", recipe="b")
    floor.settle()
    assert closed.wait(30), "the engine of a recipe that was prepared twice must be closed all the same"


def test_a_first_recipe_that_fails_again_after_it_was_in_force_ends_no_process(make: MakeFloor) -> None:
    floor = make("ok")
    floor.ask("stop")
    floor.ask("unprepare_recipe")
    floor.settle()
    floor.config.recipes["a"] = "script:nonsense"
    floor.ask("prepare_recipe", recipe="a")
    floor.settle()
    assert change(floor) == (3, "a", "failed", "") and not floor.desk.ending


class AnyChanges(RuleBasedStateMachine):
    """Changes, what ends them, and what happens to the station meanwhile, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.begun: dict[int, str] = {1: "a"}

    @initialize(autostart=st.booleans())
    def begin(self, autostart: bool) -> None:
        self.floor = Floor(
            self.folder / "journal", "ok", ready=False, timing={"recipe_ms": RECIPE_MS},
            station={"autostart": autostart},
        )  # fmt: skip
        self.floor.config.recipes[BROKEN_RECIPE] = "script:ok"
        # As for the audit file, whose disk would be most of this test's time.
        self.ended: Ends = defaultdict(list)
        self.floor.station.controller.changes._record = self.end
        self.let = held(self.floor)

    @rule(recipe=st.sampled_from(["a", "b", BROKEN_RECIPE, "no-such", ""]))
    def change(self, recipe: str) -> None:
        ask = ("prepare_recipe", {"recipe": recipe}) if recipe else ("unprepare_recipe", {})
        reply = self.floor.ask(ask[0], **ask[1])  # type: ignore[arg-type]
        assert (reply.recipe_change is not None) == reply.ok
        if reply.recipe_change is not None:
            assert reply.recipe_change == len(self.begun) + 1
            self.begun[reply.recipe_change] = recipe

    @rule(op=st.sampled_from(["start", "stop", "abort", "halt", "reset", "self_test"]))
    def operate(self, op: str) -> None:
        self.floor.ask(op)

    @rule(threshold=st.sampled_from([0.5, 1.0]))
    def threshold(self, threshold: float) -> None:
        self.floor.ask("set_threshold", threshold=threshold)

    @rule()
    def fault(self) -> None:
        self.floor.station.controller.fault("TEST", "made up")

    @rule()
    def opening_ends(self) -> None:
        self.let()
        self.floor.desk.turn()

    @rule()
    def all_ends(self) -> None:
        self.let()
        self.floor.settle()

    @rule(count=st.integers(1, 3))
    def bench_works(self, count: int) -> None:
        self.floor.serve(count)

    @rule()
    def bench_works_and_nobody_looks(self) -> None:
        self.floor.desk.engine_thread.serve(0.0)

    @rule()
    def frame(self) -> None:
        self.floor.send()

    @rule(ms=st.sampled_from([1, 60, RECIPE_MS + 1, 6000]))
    def time_passes(self, ms: int) -> None:
        self.floor.pass_ms(ms)

    @invariant()
    def each_change_has_at_most_one_end_and_the_recipe_agrees(self) -> None:
        if not hasattr(self, "floor"):
            return
        number, recipe, status, in_force = change(self.floor)
        ended = self.ended
        assert (number, recipe) == (len(self.begun), self.begun[len(self.begun)])
        assert all(len(found) == 1 for found in ended.values()), "no change ends twice"
        assert status == (ended[number][0][0] if number in ended else "under_way")
        assert set(ended) >= set(range(1, number)), "one begins when the one before has ended"
        done = [number for number in sorted(ended) if ended[number][0][0] == "done"]
        assert in_force == (self.begun[done[-1]] if done else ""), "in force is what the last change that is done says"

    def end(self, op: str, actor: Actor, code: str, text: str = "", *, refused: bool = False, **fields: Any) -> None:
        assert (op, refused) == ("recipe_change", False)
        self.ended[fields["number"]].append((code, fields["recipe"]))

    def teardown(self) -> None:
        try:
            if hasattr(self, "floor"):
                self.each_change_has_at_most_one_end_and_the_recipe_agrees()
                self.floor.pass_ms(10 * RECIPE_MS)
                self.floor.settle()
                self.floor.pass_ms(1)
                self.each_change_has_at_most_one_end_and_the_recipe_agrees()
                assert set(self.ended) == set(self.begun), "each change has ended"
                judging = self.floor.station.slot.recipe
                assert (judging.name if judging else "") == self.floor.state.recipe, "the bench judges by what is said"
                held_by = [(opened.recipe.name, opened.holders) for opened in self.floor.desk.recipes._opened]
                assert held_by == ([(judging.name, 1)] if judging else []), "nothing else is left open"
                self.floor.close()
        finally:
            shutil.rmtree(self.folder)


AnyChanges.TestCase.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyChanges = AnyChanges.TestCase
