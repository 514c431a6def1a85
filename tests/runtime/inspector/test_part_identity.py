"""What a part is called, from its trigger to its result, whatever happens to its frame in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asperity.runtime.frame import Result
from tests.runtime.inspector.station_floor import Floor, MakeFloor, balanced, floors
from tests.runtime.wire.test_wire_properties import batch_texts, part_ids, positions

GS1 = "010401234567890121x-4\u00fc\x1d10L-2026/7"
TRIGGER = {"part_id": GS1, "lot": "L-2026/7", "order": "4500012345", "position": -123_456}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as build:
        yield build


def said(result: Result) -> tuple[Any, ...]:
    return result.part_id, result.lot, result.order, result.shift, result.position


def test_a_result_carries_on_what_its_trigger_said_and_the_rest_is_the_stations(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    assert floor.ask("set_batch", lot="old", shift="early").code == "OK"
    assert floor.ask("trigger", trigger_id=7, timeout_ms=500, **TRIGGER).code == "ACCEPTED"
    assert floor.ask("set_batch", shift="late").code == "OK", "of the next parts"
    floor.send(trigger_id=7)
    floor.settle()
    floor.ask("trigger", trigger_id=8, timeout_ms=100)
    floor.pass_ms(200)
    judged, missed = floor.results
    assert judged.accept and said(judged) == (GS1, "L-2026/7", "4500012345", "early", -123_456)
    assert missed.reason.name == "NO_FRAME" and said(missed) == ("", "old", "", "late", None)
    assert (floor.state.lot, floor.state.order, floor.state.shift) == ("old", "", "late")
    assert floor.ask("set_batch", lot="").code == "OK"
    assert (floor.state.lot, floor.state.shift) == ("", "late"), "an empty one is removed, an absent one stays"
    assert balanced(floor)
    done = [entry["fields"] for entry in floor.audit() if entry["op"] == "set_batch"]
    assert [fields.get("lot") for fields in done] == ["old", None, ""] and done[1]["shift"] == "late"


def test_with_a_hard_wired_trigger_the_announcement_says_it(make: MakeFloor) -> None:
    wired = {"late_ms": 60, "arrival_max_ms": 80, "pitch_min_ms": 400, "quiet_ms": 1500}
    floor = make("ok", trigger_mode="hard_wired", hard_wired=wired)
    floor.pass_ms(1600)
    floor.ask("set_batch", lot="station")
    floor.send()
    floor.settle()
    assert floor.ask("expect", trigger_id=7, **TRIGGER).code == "ACCEPTED"
    floor.pass_ms(400)
    (result,) = floor.results
    assert result.accept and said(result) == (GS1, "L-2026/7", "4500012345", "", -123_456)


def test_a_restarted_station_answers_with_what_the_trigger_said(tmp_path: Path) -> None:
    with floors(tmp_path) as build:
        before = build("ok", trigger_mode="software")
        before.ask("trigger", trigger_id=7, timeout_ms=500, **TRIGGER)
        before.ask("trigger", trigger_id=8, timeout_ms=500, **TRIGGER)
        before.send(trigger_id=7)
        journal = before.journal.path
        before.close()
        after = Floor(journal, "ok", trigger_mode="software")
        try:
            assert [result.reason.name for result in after.results] == ["RESTARTED", "RESTARTED"]
            assert {said(result) for result in after.results} == {(GS1, "L-2026/7", "4500012345", "", -123_456)}
        finally:
            after.close()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"part_id": "a\nb"}, "part_id"), ({"part_id": "\x1d" * 86}, "part_id"), ({"part_id": "\u202ex"}, "part_id"),
        ({"lot": "a\x1db"}, "lot"), ({"shift": "\u00fc" * 33}, "shift"), ({"position": 2**53}, "position"),
    ],
)  # fmt: skip
def test_a_trigger_that_breaks_a_rule_is_refused_by_field_and_pends_nothing(
    make: MakeFloor, fields: dict[str, Any], why: str
) -> None:
    floor = make("ok", trigger_mode="software")
    body = msgspec.json.encode({"v": 1, "id": "1", "op": "trigger", "trigger_id": 7, "timeout_ms": 500, **fields})
    _, answer = floor.desk.requests.answer([b"client"], [body])
    reply = msgspec.json.decode(answer)
    assert reply["code"] == "BAD_REQUEST" and why in reply["text"]
    assert floor.journal.promises() == {} and floor.of_kind("trigger") == []


def test_a_text_above_the_stations_own_limit_is_refused(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software", parts={"text_max_nbytes": 8})
    for op, fields in (("set_batch", {}), ("trigger", {"trigger_id": 7, "timeout_ms": 500})):
        reply = floor.ask(op, order="123456789", **fields)
        assert reply.code == "REFUSED" and "text_max_nbytes" in reply.text
    assert floor.journal.promises() == {} and floor.state.order == ""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    with floors(tmp_path_factory.mktemp("line")) as build:
        yield build("ok", trigger_mode="software")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part_ids, batch_texts, positions, st.sampled_from(["frame", "none", "other"]))
def test_whatever_a_part_is_called_its_result_says_so(
    line: Floor, part_id: str, lot: str, position: int | None, comes: str
) -> None:
    """Through request, journal, result and reply; a picture of no trigger never carries a trigger's identity."""
    number, before = next(line.ids) + 1000, len(line.results)
    assert line.ask("trigger", trigger_id=number, timeout_ms=50, part_id=part_id, lot=lot, position=position).ok
    if comes != "none":
        line.send(trigger_id=number, part_id="frame's own", **({"promise": 1} if comes == "other" else {}))
    line.settle()
    line.pass_ms(100)
    new = line.results[before:]
    (own,) = [result for result in new if result.trigger_id == number]
    unnamed = "frame's own" if comes == "frame" else ""
    assert (own.part_id, own.lot, own.position) == (part_id or unnamed, lot, position)
    assert own.accept == (comes == "frame")
    assert all(result.position is None and not result.accept for result in new if result is not own)
    kept = line.ask("get_result", from_=own.result_id, to=own.result_id).results
    assert kept is not None and len(kept) == 1
