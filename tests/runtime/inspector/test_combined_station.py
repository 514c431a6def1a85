"""A part with several views in a whole inspector: one result, ok only if every view is there, ok and in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime import wire
from asperity.runtime.reasons import Reason
from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import Floor, floors

MakeLine = Callable[..., Floor]
TWO = {"name": "part", "number": 9, "views": ["front", "back"], "complete_ms": 700, "open_max": 4}
THRICE = {"name": "part", "number": 9, "views": ["front", "front", "front"], "complete_ms": 2000, "open_max": 2}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeLine]:
    with floors(tmp_path) as build:

        def line(rules: dict[str, Any] = TWO, mode: str = "software", **options: Any) -> Floor:
            limits = {"deadline_ms": 400, "max_age_ms": 400, "queue_length": 2}
            options = {"limits": limits, "triggers": {"timeout_max_ms": 300}, **options}
            return build("ok", tmp_path / "journal", names=("front", "back"), combined=[rules], trigger_mode=mode,
                         hard_wired={"pitch_min_ms": 200, "quiet_ms": 600}, **options)  # fmt: skip

        yield line


def trigger(floor: Floor, number: int, **fields: Any) -> wire.Reply:
    return floor.ask("trigger", station="part", trigger_id=number, timeout_ms=300, **fields)


def expose(floor: Floor, number: int, *views: str, word: str = "ok", **fields: Any) -> None:
    for view in views:
        floor.send(camera=view, trigger_id=number, sensor=f"simulate:{word}", **fields)
        floor.settle()


def combined(floor: Floor) -> list[tuple[int, str, bool]]:
    return [(result.trigger_id, result.reason.name, result.accept) for result in floor.results_of("part")]


def law(floor: Floor) -> bool:
    part = floor.desk.combined[0]
    assert part.ledger.imbalance(0) == 0 and part.parts.opened == part.answered_parts + len(part.parts)
    assert "LAW" not in floor.state_of("part").alarms
    return all(floor.state_of(name).balanced for name in ("front", "back", "part"))


def test_a_part_is_accepted_when_both_views_are_and_by_the_combined_result_alone(make: MakeLine) -> None:
    floor = make()
    assert trigger(floor, 7, part_id="A-7", lot="L1", position=-5).code == "ACCEPTED"
    assert floor.state_of("part").parts_open == 1
    expose(floor, 7, "front")
    assert combined(floor) == [], "nothing is said before all views are there"
    expose(floor, 7, "back")
    assert combined(floor) == [(7, "GOOD", True)]
    (result,) = floor.results_of("part")
    assert (result.part_id, result.lot, result.position, result.camera) == ("A-7", "L1", -5, "")
    assert result.score is not None and result.threshold is not None and result.score <= result.threshold
    assert [(view.station, view.result_id, view.verdict, view.reason_code) for view in result.views] == [
        ("front", 1, 1, 1), ("back", 1, 1, 1),
    ]  # fmt: skip
    for view in ("front", "back"):
        (own,) = floor.results_of(view)
        assert (own.trigger_id, own.part_id, own.view_of, own.accept) == (7, "A-7", "part", False)
        assert floor.state_of(view).view_of == "part"
    state = floor.state_of("part")
    assert (state.state, state.ready, state.views, state.parts_open) == (8, True, ("front", "back"), 0)
    assert law(floor)


def test_a_view_alone_accepts_nothing(make: MakeLine) -> None:
    floor = make()
    assert trigger(floor, 7).ok
    expose(floor, 7, "front")
    (view,) = floor.results_of("front")
    (record,) = [wire.decode_record_message(parts)[1] for parts in floor.of_kind("record", "front")]
    assert not (view.accept or record.accept or record.flags & 1), "a view accepts"
    kept = wire.reply_results(floor.ask("get_result", station="front", from_=1))
    assert [(result.verdict.name, result.accept, result.accept_sent) for result in kept] == [("OK", False, False)]


@pytest.mark.parametrize("word", ["ng", "shape"])
@pytest.mark.parametrize("which", ["front", "back"])
def test_one_bad_view_makes_the_part_bad(make: MakeLine, which: str, word: str) -> None:
    floor = make()
    assert trigger(floor, 7).ok
    for view in ("front", "back"):
        expose(floor, 7, view, word=word if view == which else "ok")
    (result,) = floor.results_of("part")
    assert (result.accept, result.verdict.name) == (False, "NG")
    (bad,) = [own for own in floor.results_of(which)]
    assert (result.reason, result.score) == (bad.reason, bad.score)
    assert law(floor)


@pytest.mark.parametrize("lost", ["front", "back"])
def test_a_view_without_a_frame_makes_the_part_unknown(make: MakeLine, lost: str) -> None:
    floor = make()
    assert trigger(floor, 7).ok
    expose(floor, 7, "back" if lost == "front" else "front")
    floor.pass_ms(310)
    assert combined(floor) == [(7, "NO_FRAME", False)]
    expose(floor, 7, lost)
    assert combined(floor) == [(7, "NO_FRAME", False)], "the late picture answers nothing"
    assert floor.reasons_of(lost) == ["NO_FRAME", "TRIGGER_EXPIRED"]
    assert law(floor)


def test_pictures_swapped_between_two_parts_or_two_cameras_accept_neither(make: MakeLine) -> None:
    floor = make()
    assert trigger(floor, 1).ok and trigger(floor, 2).ok
    promises = [wire.decode_trigger(parts).promise for parts in floor.of_kind("trigger", "front")]
    expose(floor, 1, "back")
    expose(floor, 2, "back")
    expose(floor, 1, "front", promise=promises[1])
    expose(floor, 2, "front", promise=promises[0])
    floor.pass_ms(310)
    assert combined(floor) == [(1, "NO_FRAME", False), (2, "NO_FRAME", False)]
    assert floor.reasons_of("front")[:2] == ["TRIGGER_EXPIRED"] * 2
    assert law(floor)


def test_what_one_view_cannot_take_leaves_no_trigger_at_the_other(make: MakeLine) -> None:
    floor = make(triggers={"timeout_max_ms": 300, "pending_max": 1})
    assert trigger(floor, 1).ok
    expose(floor, 1, "front")
    assert len(floor.of("front").triggers) == 0 and len(floor.of("back").triggers) == 1
    reply = trigger(floor, 2)
    assert (reply.code, "view back" in reply.text) == ("BUSY", True)
    assert len(floor.of("front").triggers) == 0, "no view keeps a trigger of a part that was not taken"
    assert trigger(floor, 3, recipe="b").code == "REFUSED"
    assert floor.ask("stop", station="back").ok
    assert trigger(floor, 4).code == "WRONG_STATE"
    floor.pass_ms(310)
    assert combined(floor) == [(1, "NOT_RUNNING", False)]
    assert floor.of("front").triggers.refusal(2) == ""
    assert law(floor)


@pytest.mark.parametrize("word", ["busy", "refused", "stopped"])
def test_after_a_trigger_that_was_not_taken_a_later_exposure_may_show_that_part(make: MakeLine, word: str) -> None:
    """The camera does not hear of the next part, and exposes late: it is the next part that it sees."""
    floor = make(triggers={"timeout_max_ms": 300, "pending_max": 1 if word == "busy" else 4})
    assert trigger(floor, 1, part_id="A").ok
    expose(floor, 1, "back")
    floor.pass_ms(20)
    if word == "stopped":
        assert floor.ask("stop", station="back").ok
    assert not trigger(floor, 2, part_id="B", **({"recipe": "b"} if word == "refused" else {})).ok
    floor.pass_ms(20)
    expose(floor, 1, "front")
    assert combined(floor) == [(1, "AMBIGUOUS", False)]
    assert law(floor)


def test_a_view_is_triggered_by_its_combined_station_alone(make: MakeLine) -> None:
    floor = make()
    for op, fields in (("trigger", {"trigger_id": 5, "timeout_ms": 100}), ("start", {"mode": "single"})):
        reply = floor.ask(op, station="front", **fields)
        assert reply.code in ("REFUSED", "WRONG_STATE"), op
    assert floor.ask("trigger", station="front", trigger_id=5, timeout_ms=100).code == "REFUSED"
    assert trigger(floor, 6, view=1).code == "REFUSED", "its views are triggered together"
    assert floor.ask("expect", station="part", trigger_id=7).code == "REFUSED"


def test_state_is_that_of_the_view_that_is_least_ready(make: MakeLine) -> None:
    floor = make()
    assert floor.ask("stop", station="part").ok
    assert [floor.state_of(name).state for name in ("front", "back", "part")] == [6, 6, 6]
    assert floor.ask("start", station="front").ok
    assert floor.state_of("part").state == State.READY
    assert floor.ask("start", station="part").ok, "where it is so already nothing is done"
    assert floor.state_of("part").state == State.CONTINUOUS_EXECUTION
    assert floor.ask("halt", station="back").ok
    assert (floor.state_of("part").state, floor.state_of("part").ready) == (State.HALTED, False)
    assert floor.ask("reset", station="part").ok
    floor.settle()
    assert floor.ask("start", station="part").ok
    floor.sockets.connected = False
    assert not floor.state_of("part").ready, "a camera is gone"
    assert floor.ask("start", station="part", mode="single").code == "REFUSED"
    assert floor.ask("set_threshold", station="part", threshold=1.0).code == "REFUSED"


@pytest.mark.parametrize(("op", "reason"), [("abort", "ABORTED"), ("halt", "ABORTED"), ("reset", "ABORTED")])
def test_what_is_open_is_answered_at_once_when_an_operator_says_so(make: MakeLine, op: str, reason: str) -> None:
    floor = make()
    assert trigger(floor, 1).ok
    expose(floor, 1, "front")
    assert floor.ask(op, station="part").ok
    assert combined(floor) == [(1, reason, False)]
    assert law(floor)


def test_one_camera_sees_the_part_three_times_one_after_the_other(make: MakeLine) -> None:
    floor = make(THRICE)
    assert trigger(floor, 1).ok
    for given in (1, 2, 3):
        assert len(floor.of_kind("trigger", "front")) == given
        expose(floor, 1, "front")
    assert combined(floor) == [(1, "GOOD", True)]
    assert [view.result_id for view in floor.results_of("part")[0].views] == [1, 2, 3]
    assert trigger(floor, 2).ok
    expose(floor, 2, "front")
    floor.pass_ms(310)
    assert combined(floor)[1:] == [(2, "NO_FRAME", False)], "what can no longer be accepted is answered at once"
    assert law(floor)


def test_a_part_that_still_waits_for_exposures_is_over_when_the_next_one_comes(make: MakeLine) -> None:
    floor = make(THRICE)
    assert trigger(floor, 1).ok
    expose(floor, 1, "front")
    assert trigger(floor, 1).code == "BUSY", "the same trigger again is the same part"
    assert len(floor.desk.combined[0].parts) == 1
    assert trigger(floor, 2).code == "BUSY"
    floor.settle()
    assert combined(floor) == [(1, "AMBIGUOUS", False)]
    assert law(floor)


def test_the_plc_triggers_each_view_itself(make: MakeLine) -> None:
    rules = {**TWO, "triggered": "one_by_one", "complete_ms": 3000}
    floor = make(rules)
    assert trigger(floor, 1).code == "REFUSED", "which view?"
    assert trigger(floor, 1, view=3).code == "REFUSED"
    assert trigger(floor, 1, view=2).code == "REFUSED", "view 1 first"
    assert trigger(floor, 1, view=1).ok
    expose(floor, 1, "front")
    assert trigger(floor, 2, view=1).ok, "the next part is at the first camera while this one is on its way"
    assert trigger(floor, 1, view=2).ok
    expose(floor, 2, "front")
    expose(floor, 1, "back")
    assert combined(floor) == [(1, "GOOD", True)]
    assert trigger(floor, 2, view=1).code == "REFUSED"
    floor.settle()
    assert combined(floor)[1:] == [(2, "VIEW_CONFLICT", False)], "a view that is triggered twice: which part is it?"
    assert trigger(floor, 3, view=1, part_id="A").ok
    assert trigger(floor, 3, view=2, part_id="B").code == "REFUSED"
    floor.settle()
    assert combined(floor)[2:] == [(3, "VIEW_CONFLICT", False)]
    assert trigger(floor, 4, view=1).ok
    expose(floor, 4, "front")
    floor.pass_ms(3000)
    assert combined(floor)[3:] == [(4, "VIEW_MISSING", False)]
    assert floor.results_of("part")[3].deadline_missed
    assert law(floor)


def test_a_wired_part_is_announced_to_every_view(make: MakeLine) -> None:
    floor = make({**TWO, "complete_ms": 2000}, "hard_wired")
    floor.pass_ms(700)
    floor.pass_ms(10)
    assert floor.ask("expect", station="part", trigger_id=1).ok
    for view in ("front", "back"):
        floor.send(camera=view)
    floor.settle()
    for _ in range(40):
        floor.pass_ms(10)
    assert combined(floor) == [(1, "GOOD", True)]
    assert floor.ask("expect", station="part", trigger_id=2).ok
    floor.send(camera="front")
    floor.settle()
    for _ in range(60):
        floor.pass_ms(10)
    assert combined(floor)[1:] == [(2, "NO_FRAME", False)]
    assert law(floor)


def test_a_restart_answers_each_open_part_once_and_its_late_views_not(make: MakeLine, tmp_path: Path) -> None:
    floor = make()
    assert trigger(floor, 1).ok and trigger(floor, 2, part_id="B").ok
    expose(floor, 1, "front", "back")
    expose(floor, 2, "front")
    old = {view: floor.frame(camera=view, trigger_id=2) for view in ("front", "back")}
    floor.close()
    again = make()
    assert combined(again) == [(2, "RESTARTED", False)]
    assert again.results_of("part")[0].part_id == "B"
    for frame in old.values():
        again.desk.on_frame(wire.encode_frame(frame))
    again.settle()
    assert combined(again) == [(2, "RESTARTED", False)]
    assert law(again)
    again.close()
    third = make()
    assert combined(third) == []
    reply = third.ask("get_result", station="part", from_=1)
    kept = [(result.trigger_id, result.reason.name) for result in wire.reply_results(reply)]
    assert kept == [(1, "GOOD"), (2, "RESTARTED")]


def test_a_recipe_changes_in_every_view_or_the_part_is_not_judged(make: MakeLine) -> None:
    rows = {"gear": {"front": "a", "back": "b"}}
    floor = make({**TWO, "recipes": rows})
    assert floor.state_of("part").recipe == "a", "the same in each view"
    reply = floor.ask("prepare_recipe", station="part", recipe="gear")
    assert reply.code == "ACCEPTED" and reply.recipe_change == 1
    assert floor.ask("prepare_recipe", station="part", recipe="gear").code == "BUSY"
    assert trigger(floor, 1).ok, "the recipe of before is active"
    floor.settle()
    state = floor.state_of("part")
    assert (state.recipe, state.state) == ("gear", 8)
    assert state.recipe_change is not None and state.recipe_change.status == "done"
    assert [floor.state_of(name).recipe for name in ("front", "back")] == ["a", "b"]
    expose(floor, 1, "front", "back")
    assert combined(floor) == [(1, "WRONG_RECIPE", False)], "triggered before, judged after"
    assert floor.ask("prepare_recipe", station="front", recipe="b").ok
    floor.settle()
    assert floor.state_of("part").recipe == "b"
    assert floor.ask("prepare_recipe", station="back", recipe="a").ok
    floor.settle()
    state = floor.state_of("part")
    assert (state.recipe, state.state, state.ready) == ("", State.INITIALIZED, False), "front b, back a: no row"
    assert "VIEWS" in state.alarms
    assert trigger(floor, 2).code == "WRONG_STATE"
    assert floor.ask("prepare_recipe", station="part", recipe="none").code == "REFUSED"
    assert floor.ask("unprepare_recipe", station="part").code == "WRONG_STATE"
    assert floor.ask("stop", station="part").ok
    assert floor.ask("unprepare_recipe", station="part").code == "ACCEPTED"
    floor.settle()
    assert [floor.state_of(name).recipe for name in ("front", "back", "part")] == ["", "", ""]


def test_a_change_that_fails_in_one_view_has_failed(make: MakeLine) -> None:
    floor = make()
    opening, loader = floor.opening["back"], floor.of("back").controller._loader
    loader.start = lambda name, in_child_first: opening.append("none")  # type: ignore[method-assign]
    assert floor.ask("prepare_recipe", station="part", recipe="b").ok
    floor.settle()
    state = floor.state_of("part")
    assert state.recipe_change is not None and state.recipe_change.status == "failed"
    assert "view back" in state.recipe_change.text
    assert (state.recipe, state.ready) == ("", False), "front b, back a"


def test_counters_and_batch_are_those_of_parts(make: MakeLine) -> None:
    floor = make()
    assert floor.ask("set_batch", station="part", lot="L-9").ok
    assert [floor.state_of(name).lot for name in ("front", "back", "part")] == ["L-9"] * 3
    assert trigger(floor, 1).ok
    expose(floor, 1, "front", "back")
    counted = [floor.of(name).counting.message().ok for name in ("front", "back")]
    part = floor.desk.combined[0].counting
    assert (counted, part.message().ok, part.message().rows[0].lot) == ([1, 1], 1, "L-9")
    assert floor.ask("reset_counters", station="part").ok
    assert [floor.of("front").counting.message().ok, part.message().ok] == [0, 0]


def test_a_lost_journal_accepts_nothing(make: MakeLine) -> None:
    floor = make()
    assert trigger(floor, 1).ok
    expose(floor, 1, "front")
    floor.desk.combined[0].journal.path.unlink()
    expose(floor, 1, "back")
    assert [accept for _, _, accept in combined(floor)] == [False]
    assert floor.state_of("part").state == State.ERROR
    assert trigger(floor, 2).code == "WRONG_STATE"


def test_the_end_of_the_process_answers_open_parts(make: MakeLine) -> None:
    floor = make()
    assert trigger(floor, 1).ok
    expose(floor, 1, "front")
    floor.desk._answer_everything()
    assert combined(floor) == [(1, Reason.SHUTDOWN.name, False)]
