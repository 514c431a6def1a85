"""What an OPC UA client is shown: false, zero and a bad status in every doubt."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from hypothesis import given, settings

from asperity.runtime.client.ordering import Gap
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.link import Delivered, Item, View
from asperity.runtime.gateways.opcua.tags import (
    ACCEPT,
    AUTOMATIC_TAGS,
    MODE_TAGS,
    TAGS,
    Of,
    data_value,
    moment,
    transition_name,
)
from asperity.runtime.states import State
from asperity.runtime.wire import StationState
from asperity.testing import STATION
from tests.runtime.gateways.floor import COUNTERS, SESSION, result
from tests.runtime.wire.test_wire_properties import batch_texts, part_ids, positions

RUNNING = StationState(station=STATION, session=SESSION, beat=7, state=8, ready=True)
GOOD = View(accept=True, good=True, why="", state=RUNNING, last=None, results=1, gaps=0, missing=0)
PART = Delivered(result(5), True, 0.0)
VERDICT = next(tag for tag in TAGS if tag.name == "Verdict")


def shown(view: View = GOOD, item: Item | None = PART, accept: bool = True, heard: bool = True, ending: bool = False):  # type: ignore[no-untyped-def]
    now = moment(view, item, accept, heard, ending, "")
    return {tag.name: data_value(tag, now) for tag in TAGS}


def test_a_good_result_is_shown_with_all_its_tags_and_its_own_time() -> None:
    tags = shown()
    assert tags["Accept"].Value.Value is True and tags["Accept"].StatusCode.is_good()
    assert tags["ResultId"].Value.Value == tags["ResultIdCopy"].Value.Value == 5
    assert (tags["Verdict"].Value.Value, tags["Reason"].Value.Value, tags["Seq"].Value.Value) == (1, "GOOD", 105)
    assert tags["ResultId"].SourceTimestamp == datetime.datetime.fromtimestamp(1_790_000_000, datetime.timezone.utc)


def test_the_counters_are_tags_of_the_station() -> None:
    tags = shown(dataclasses.replace(GOOD, counters=COUNTERS))
    names = ("CountedOk", "CountedNg", "CountedUnknown", "CounterResets", "Yield")
    assert [tags[name].Value.Value for name in names] == [9, 2, 1, 3, 0.75]
    assert '"lot":"L-7\u00fc"' in tags["Counters"].Value.Value
    assert [shown()[name].Value.Value for name in (*names, "Counters")] == [0, 0, 0, 0, 0.0, ""]


@settings(max_examples=40)
@given(part_ids, batch_texts, positions)
def test_whatever_a_part_is_called_its_tags_say_so_on_the_wire(part_id: str, lot: str, position: int | None) -> None:
    tags = shown(item=Delivered(result(5, part_id=part_id, lot=lot, position=position), True, 0.0))
    names = ("PartId", "Lot", "Position", "PositionGiven")
    sent = {name: struct_from_binary(ua.DataValue, ua.utils.Buffer(struct_to_binary(tags[name]))) for name in names}
    assert [value.Value.Value for value in sent.values()] == [part_id, lot, position or 0, position is not None]


@pytest.mark.parametrize(
    ("code", "doubt"),
    [
        ("BadOutOfService", {"view": dataclasses.replace(GOOD, good=False, why="not ready")}),
        ("BadNoCommunication", {"heard": False}),
        ("BadShutdown", {"ending": True}),
        ("BadWaitingForInitialData", {"item": None}),
    ],
)
def test_in_every_doubt_result_tags_are_bad_accept_false_and_verdict_unknown(
    code: str, doubt: dict[str, object]
) -> None:
    tags = shown(**doubt)  # type: ignore[arg-type]
    for tag in TAGS:
        if tag.of is Of.RESULT:
            assert tags[tag.name].StatusCode.name == code, tag.name
    assert tags["Accept"].Value.Value is False and tags["Verdict"].Value.Value == Verdict.UNKNOWN
    sent = struct_from_binary(ua.DataValue, ua.utils.Buffer(struct_to_binary(tags["Accept"])))
    assert sent.Value.Value is False and sent.StatusCode.name == code, (
        "the value must go over the wire beside the status"
    )


def test_a_gap_is_shown_as_one_and_is_never_accepted() -> None:
    tags = shown(item=Gap(3, 9, "gone"))
    assert tags["Accept"].Value.Value is False and tags["Verdict"].Value.Value == 0
    assert tags["ResultId"].Value.Value == 9 and tags["Reason"].Value.Value == "missing: gone"


def test_a_link_that_says_no_is_believed_and_station_tags_live_on() -> None:
    assert shown(accept=False)["Accept"].Value.Value is False
    halted = dataclasses.replace(GOOD, good=False, state=StationState(station=STATION, session=SESSION, state=2))
    tags = shown(view=halted)
    assert tags["State"].Value.Value == 2 and tags["State"].StatusCode.is_good()
    assert tags["Ready"].Value.Value is False and tags["Accept"].StatusCode.is_bad()


def test_every_tag_of_every_state_can_be_encoded_and_unknown_states_have_no_name() -> None:
    for number in (*State, 0, 4, 99):
        state = StationState(station=STATION, session=SESSION, state=number)
        now = moment(dataclasses.replace(GOOD, state=state), PART, True, True, False, "")
        for tag in (*TAGS, *MODE_TAGS, *AUTOMATIC_TAGS):
            assert struct_to_binary(data_value(tag, now))
    mode = {tag.name: tag for tag in MODE_TAGS}
    known = moment(dataclasses.replace(GOOD, state=RUNNING), PART, True, True, False, "")
    assert data_value(mode["CurrentState"], known).Value.Value.Text == "Operational"
    assert data_value(mode["CurrentState.Number"], known).Value.Value == 4
    odd = moment(
        dataclasses.replace(GOOD, state=StationState(station=STATION, session=SESSION, state=99)),
        PART,
        True,
        True,
        False,
        "",
    )
    assert data_value(mode["CurrentState"], odd).Value.Value.Text == "Unknown"


def test_transitions_are_named_as_in_opc_40100() -> None:
    def name(before: State, after: State) -> str:
        states = [StationState(station=STATION, session=SESSION, state=int(number)) for number in (before, after)]
        return transition_name(*states)

    assert name(State.READY, State.CONTINUOUS_EXECUTION) == "ReadyToContinuousExecution"
    assert name(State.PREOPERATIONAL, State.INITIALIZED) == "PreoperationalToInitialized"
    assert name(State.CONTINUOUS_EXECUTION, State.ERROR) == "OperationalToError"
    assert name(State.ERROR, State.PREOPERATIONAL) == "ErrorToPreoperational"


def test_accept_is_written_last_and_its_meaning_is_told() -> None:
    assert ACCEPT.name == "Accept" and "false" in ACCEPT.meaning and VERDICT.of is Of.RESULT
