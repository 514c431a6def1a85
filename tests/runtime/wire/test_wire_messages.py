"""Every kind of message: golden bytes, versions and topics; and the rules of state, control and bulk messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import pytest

from asperity.runtime import wire
from asperity.runtime.errors import FrameRefused, WireError
from asperity.runtime.frame import Frame, Result
from asperity.runtime.reasons import Reason
from asperity.runtime.wire.clocks import Clocks, ComputerClock
from tests.runtime.wire import wire_golden as golden
from tests.runtime.wire.wire_edits import GOLDEN, JSON_PART, edited

DECODERS: dict[str, Callable[[list[bytes]], object]] = {
    "result": wire.decode_result,
    "record": wire.decode_record_message,
    "state": wire.decode_state,
    "event": wire.decode_event,
    "trigger": wire.decode_trigger,
    "counters": wire.decode_counters,
    "map": wire.decode_bulk,
    "picture": wire.decode_bulk,
    "request": lambda parts: wire.decode_request(parts[0]),
    "reply": lambda parts: wire.decode_reply(parts[0]),
    "frame": wire.decode_frame,
}


def same_frame(a: Frame, b: Frame) -> bool:
    for field in fields(Frame):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            if left.dtype != right.dtype or not np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
                return False
        elif left != right:
            return False
    return True


# Golden bytes


def test_golden_file_covers_every_kind() -> None:
    assert GOLDEN.keys() == golden.messages().keys()
    assert {name.split("_")[0] for name in GOLDEN} == DECODERS.keys()


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_encoding_gives_the_golden_bytes(name: str) -> None:
    assert golden.messages()[name] == GOLDEN[name]


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_bytes_decode(name: str) -> None:
    DECODERS[name.split("_", maxsplit=1)[0]](GOLDEN[name])


@pytest.mark.parametrize(("name", "frame"), [("frame_xyz", golden.FRAME_XYZ), ("frame_depth", golden.FRAME_DEPTH)])
def test_golden_frames_are_the_frames(name: str, frame: Frame) -> None:
    assert same_frame(wire.decode_frame(GOLDEN[name]), frame)


def test_a_verdict_that_is_taken_back_leaves_nothing_of_how_it_came_about() -> None:
    """As where the journal cannot keep a result: it is sent as unknown, and says no more than one that never was."""
    judged = replace(golden.RESULT_NG, modality="points")
    assert json.loads(wire.encode_result_body(judged))["modality"] == "points", "the control"
    back = json.loads(wire.encode_result_body(judged.unknown(Reason.ENGINE)))
    nothing = {
        "verdict": 0, "accept": False, "score": None, "threshold": None, "p_value": None, "region": None, "modality": ""
    }  # fmt: skip
    assert {name: back[name] for name in nothing} == nothing


@pytest.mark.parametrize("name", ["result_ok", "result_ng", "result_unknown"])
def test_golden_results_are_the_results(name: str) -> None:
    sent: Result = getattr(golden, name.upper())
    received = wire.decode_result(GOLDEN[name])
    for field in fields(Result):
        assert getattr(received, field.name) == getattr(sent, field.name), field.name
    assert (received.verdict_code, received.accept_sent, received.reason_code, received.reason_text) == (
        sent.verdict,
        sent.accept,
        sent.reason,
        sent.reason.name,
    )


def test_golden_control_and_state_are_the_nouns() -> None:
    assert wire.decode_state(GOLDEN["state"]) == golden.STATE
    assert golden.STATE.balanced and golden.STATE.can_judge
    assert wire.decode_event(GOLDEN["event"]) == golden.EVENT
    assert wire.decode_trigger(GOLDEN["trigger"]) == golden.TRIGGER
    for name, request in golden.REQUESTS.items():
        assert wire.decode_request(GOLDEN[f"request_{name}"][0]) == request
    results = wire.reply_results(wire.decode_reply(GOLDEN["reply_get_result"][0]))
    assert [result.result_id for result in results] == [1001, 1002, 1003]
    assert [result.accept for result in results] == [True, False, False]


@pytest.mark.parametrize("name", sorted(name for name in GOLDEN if not name.startswith("record")))
def test_a_message_of_another_version_is_refused_and_says_so(name: str) -> None:
    with pytest.raises((WireError, FrameRefused), match="v is 2, this side uses version 1"):
        DECODERS[name.split("_", maxsplit=1)[0]](edited(name, v=2))
    with pytest.raises((WireError, FrameRefused), match="v is None"):
        DECODERS[name.split("_", maxsplit=1)[0]](edited(name, v=...))
    with pytest.raises((WireError, FrameRefused), match="v is True"):
        DECODERS[name.split("_", maxsplit=1)[0]](edited(name, v=True))


@pytest.mark.parametrize("name", sorted(name for name in GOLDEN if not name.startswith("record")))
def test_a_field_added_later_is_ignored(name: str) -> None:
    decode = DECODERS[name.split("_", maxsplit=1)[0]]
    now, later = decode(GOLDEN[name]), decode(edited(name, added_later={"deep": [1, {"x": None}]}))
    if isinstance(now, msgspec.Struct):
        assert msgspec.json.encode(now) == msgspec.json.encode(later)
    else:
        assert repr(now) == repr(later)


# Topics


def test_topics_end_in_a_slash_and_come_apart_again() -> None:
    assert wire.topic("result", "st1") == b"result/st1/"
    assert wire.split_topic(b"result/st1/") == ("result", "st1")
    for bad in (("result", "St1"), ("result", ""), ("result", "a/b"), ("result", "x" * 33), ("verdict", "st1")):
        with pytest.raises(WireError):
            wire.topic(*bad)


@pytest.mark.parametrize("name", ["result_ok", "state", "event", "trigger", "map"])
def test_topic_and_body_must_name_the_same_station(name: str) -> None:
    kind = name.split("_", maxsplit=1)[0]
    with pytest.raises(WireError, match="both must be the same"):
        DECODERS[kind]([f"{kind}/st2/".encode(), *GOLDEN[name][1:]])


# State, control, bulk


@pytest.mark.parametrize("state", [0, 1, 2, 3, 4, 5, 9, 200])
def test_ready_is_believed_in_ready_states_only(state: int) -> None:
    assert not wire.decode_state(edited("state", state=state)).can_judge
    assert not wire.decode_state(edited("state", ready=...)).can_judge


def test_state_knows_whether_the_law_holds() -> None:
    assert not wire.decode_state(edited("state", received=1001)).balanced
    assert not wire.decode_state(edited("state", unknown_by_reason={"LOST": 2})).balanced


def test_a_state_with_a_number_that_is_none_is_not_sent() -> None:
    clocks = Clocks(computer=ComputerClock(offset_ms=float("nan")))
    for change in ({"expected_rate_hz": float("inf")}, {"gpu": {"power_w": float("nan")}}, {"clocks": clocks}):
        with pytest.raises(WireError):
            wire.encode_state(msgspec.structs.replace(golden.STATE, **change))


@pytest.mark.parametrize("op", sorted(wire.OPERATIONS))
def test_an_operation_without_a_field_it_needs_is_refused(op: str) -> None:
    everything = {"from": 1, "to": 2, "trigger_id": 1, "part_id": "", "recipe": "r", "timeout_ms": 1, "threshold": 1.0}
    operation = wire.OPERATIONS[op]
    named = {name: everything[name] for name in operation.required}
    assert wire.decode_request(json.dumps({"v": 1, "id": "1", "op": op} | named).encode()).op == op
    for name in operation.required:
        body = {"v": 1, "id": "1", "op": op} | {key: value for key, value in named.items() if key != name}
        with pytest.raises(WireError, match=f"{name} is missing"):
            wire.decode_request(json.dumps(body).encode())


def test_an_operation_not_known_can_still_be_answered() -> None:
    request = wire.decode_request(b'{"v":1,"id":"9","op":"dance","tempo":3}')
    assert (request.op, request.id) == ("dance", "9")
    assert wire.peek_request_id(b'{"v":1,"id":"9","op":7}') == "9"
    assert wire.peek_request_id(b'{"id":9}') == wire.peek_request_id(b"[") == wire.peek_request_id(b"") == ""


def test_get_result_does_not_run_backwards() -> None:
    with pytest.raises(WireError, match="is less than"):
        wire.encode_request(wire.Request(id="1", op="get_result", from_=5, to=4))


def test_a_reply_cannot_be_ok_with_a_bad_code() -> None:
    with pytest.raises(WireError, match="only OK and ACCEPTED"):
        wire.encode_reply(wire.Reply(id="1", ok=True, code="BUSY"))
    with pytest.raises(WireError):
        wire.decode_reply(edited("reply_busy", ok=True)[0])


def test_a_full_reply_fits_a_control_message() -> None:
    biggest = b'{"v":1,"pad":"' + b"x" * (wire.MAX_RESULT_BYTES - 16) + b'"}'
    reply = wire.Reply(id="1", ok=True, code="OK", results=(msgspec.Raw(biggest),) * wire.MAX_RESULTS_PER_REPLY)
    assert len(wire.encode_reply(reply)) < wire.MAX_CONTROL_BYTES


def test_the_envelope_is_kept_for_the_reply() -> None:
    assert wire.split_envelope([b"id", b"", b"{}"]) == ([b"id", b""], b"{}")
    assert wire.split_envelope([b"{}"]) == ([], b"{}")
    for parts in ([], [b""] * 4):
        with pytest.raises(WireError):
            wire.split_envelope(parts)


def test_bulk_arrays_come_as_views_and_hold_no_nan() -> None:
    bulk = wire.decode_bulk(GOLDEN["map"])
    assert np.array_equal(bulk.array, golden.MAP.array) and bulk.window == golden.MAP.window
    assert np.shares_memory(bulk.array, np.frombuffer(GOLDEN["map"][2], np.float32))
    assert np.array_equal(wire.decode_bulk(GOLDEN["picture"]).array, golden.RGB)
    with pytest.raises(WireError, match="not finite"):
        wire.encode_bulk(replace(golden.MAP, array=np.full((2, 2), np.nan, np.float32)))
    with pytest.raises(WireError, match="not finite"):
        wire.decode_bulk([*GOLDEN["map"][:2], np.full(16, np.nan, "<f4").tobytes()])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "u1"}, "is not a map"),
        ({"shape": [4, 4, 3]}, "is not a map"),
        ({"nbytes": 65}, "64"),
        ({"shape": [2, 4]}, "32"),
        ({"encoding": "png"}, "reserved"),
    ],
)
def test_a_wrong_map_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WireError, match=words):
        wire.decode_bulk(edited("map", **change))


# A key that is given twice


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("name", [name for name in sorted(GOLDEN) if not name.startswith("record")])
def test_a_message_with_a_key_twice_is_refused_whichever_it_is(name: str, escaped: bool) -> None:
    """Readers differ in which value they take, so that one part or command would be two."""
    kind = name.split("_", maxsplit=1)[0]
    at = JSON_PART.get(kind, 1)
    for key, value in json.loads(GOLDEN[name][at]).items():
        parts = list(GOLDEN[name])
        said = f"\\u{ord(key[0]):04x}{key[1:]}" if escaped else key
        parts[at] = parts[at].rstrip()[:-1] + f',"{said}":{json.dumps(value)}}}'.encode()
        with pytest.raises((WireError, FrameRefused), match=f"has the key '{key}' twice"):
            DECODERS[kind](parts)


def test_of_a_message_with_a_key_twice_what_is_given_once_is_known_and_nothing_guessed() -> None:
    frame = list(GOLDEN["frame_xyz"])
    assert wire.peek_identity(frame).seq is not None
    frame[1] = frame[1][:-1] + b',"trigger_id":7,"trigger_id":8}'
    frame[1] = frame[1].replace(b'"streams":[{', b'"streams":[{"name":"xyz",')
    known, whole = wire.peek_identity(frame), wire.peek_identity(GOLDEN["frame_xyz"])
    assert known == replace(whole, trigger_id=0)
    assert wire.peek_request_id(b'{"v":1,"id":"a","op":"stop","op":"start","x":{"id":1,"id":2}}') == "a"
    assert wire.peek_request_id(b'{"v":1,"id":"a","op":"stop","id":"b"}') == ""
