"""The wire's promises: golden bytes, limits, what is refused and what a receiver may believe."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import pytest
import wire_golden as golden

from runtime import wire
from runtime.errors import FrameRefused, WireError
from runtime.frame import Frame, Intrinsics, Result, Verdict
from runtime.reasons import JUDGED, Reason

GOLDEN = golden.load()
DECODERS: dict[str, Callable[[list[bytes]], object]] = {
    "result": wire.decode_result,
    "record": wire.decode_record_message,
    "state": wire.decode_state,
    "event": wire.decode_event,
    "trigger": wire.decode_trigger,
    "map": wire.decode_bulk,
    "picture": wire.decode_bulk,
    "request": lambda parts: wire.decode_request(parts[0]),
    "reply": lambda parts: wire.decode_reply(parts[0]),
    "frame": wire.decode_frame,
}
JSON_PART = {"request": 0, "reply": 0}


def edited(name: str, **changes: Any) -> list[bytes]:
    """The golden message ``name`` with fields of its JSON changed (``...`` removes one)."""
    parts = list(GOLDEN[name])
    index = JSON_PART.get(name.split("_", maxsplit=1)[0], 1)
    body = json.loads(parts[index]) | changes
    kept = {key: value for key, value in body.items() if value is not ...}
    parts[index] = json.dumps(kept, separators=(",", ":")).encode()
    return parts


def edited_stream(index: int, **changes: Any) -> list[bytes]:
    """The golden frame with one stream's fields changed."""
    streams = json.loads(GOLDEN["frame_xyz"][1])["streams"]
    streams[index] |= changes
    return edited("frame_xyz", streams=streams)


def refusal(parts: list[Any]) -> str:
    with pytest.raises(FrameRefused) as caught:
        wire.decode_frame(parts)
    assert caught.value.reason is Reason.REFUSED_MESSAGE
    return str(caught.value)


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
    with pytest.raises((WireError, FrameRefused), match="v is 2, this side speaks version 1"):
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


# Frames


def test_encoding_and_decoding_copy_no_pixel() -> None:
    rgb = np.zeros((480, 640, 3), np.uint8)
    xyz = np.ones((480, 640, 3), np.float32)
    parts = wire.encode_frame(replace(golden.FRAME_XYZ, rgb=rgb, xyz=xyz))
    assert np.shares_memory(np.frombuffer(parts[2], np.uint8), rgb)
    assert np.shares_memory(np.frombuffer(parts[3], np.float32), xyz)
    frame = wire.decode_frame(parts)
    assert np.shares_memory(frame.rgb, rgb)
    assert frame.xyz is not None and np.shares_memory(frame.xyz, xyz)
    assert not frame.rgb.flags.writeable and not frame.xyz.flags.writeable
    assert xyz.flags.writeable, "the sender's own array is left as it was"


def test_misaligned_memory_is_copied_not_passed_on() -> None:
    parts: list[Any] = list(GOLDEN["frame_xyz"])
    shifted = bytearray(len(parts[3]) + 1)
    shifted[1:] = parts[3]
    parts[3] = memoryview(shifted)[1:]
    frame = wire.decode_frame(parts)
    assert frame.xyz is not None and frame.xyz.flags.aligned
    assert np.array_equal(frame.xyz, golden.XYZ)


def test_strided_and_big_endian_arrays_arrive_as_they_look() -> None:
    big = np.stack([golden.XYZ, golden.XYZ], axis=1)[:, 0].astype(">f4")
    sent = replace(golden.FRAME_XYZ, rgb=golden.RGB[:, ::-1], xyz=big)
    received = wire.decode_frame([bytes(part) for part in wire.encode_frame(sent)])
    assert np.array_equal(received.rgb, golden.RGB[:, ::-1])
    assert received.xyz is not None and received.xyz.dtype == np.dtype("<f4")
    assert np.array_equal(received.xyz, golden.XYZ)


def test_missing_points_may_be_nan_or_infinite() -> None:
    xyz = golden.XYZ.copy()
    xyz[0, 0] = np.nan
    xyz[0, 1] = np.inf
    received = wire.decode_frame(wire.encode_frame(replace(golden.FRAME_XYZ, xyz=xyz)))
    assert received.xyz is not None and np.array_equal(received.xyz, xyz, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"camera": "Cam 1"}, "camera = 'Cam 1'"),
        ({"camera": "cam2"}, "topic names camera cam1, the header cam2"),
        ({"camera": "cam1\n"}, "camera = "),
        ({"camera_session": "run 1"}, "camera_session = 'run 1'"),
        ({"seq": -1}, "seq = -1"),
        ({"seq": 2**53}, "seq = 9007199254740992"),
        ({"seq": "7"}, "seq = '7'"),
        ({"seq": True}, "seq = True"),
        ({"seq": 1.5}, "seq = 1.5"),
        ({"seq": ...}, "missing required field `seq`"),
        ({"trigger_id": 2**32}, "trigger_id = 4294967296"),
        ({"part_id": "x" * 65}, "part_id = "),
        ({"part_id": "Ü7"}, "part_id = "),
        ({"part_id": "a\nb"}, "part_id = "),
        ({"recipe": ""}, "recipe = ''"),
        ({"clock": "atomic"}, "clock = 'atomic'"),
        ({"t_exposure_us": -5}, "t_exposure_us = -5"),
        ({"streams": []}, "streams = []"),
        ({"intrinsics": {"fx": 1, "fy": 1, "cx": 0}}, "missing required field `cy`"),
        ({"intrinsics": {"fx": 0, "fy": 1, "cx": 0, "cy": 0}}, "focal lengths must be above 0"),
        ({"encoding": "jpeg"}, "encoding 'jpeg' is reserved"),
    ],
)
def test_a_wrong_header_field_is_named_with_its_value(change: dict[str, Any], words: str) -> None:
    assert words in refusal(edited("frame_xyz", **change))


@pytest.mark.parametrize(
    ("index", "change", "words"),
    [
        (1, {"dtype": "f8"}, "streams[1].dtype = 'f8'"),
        (1, {"dtype": "u2", "nbytes": 72}, "stream xyz: dtype u2 is not one of f4"),
        (0, {"dtype": "u2"}, "stream rgb: dtype u2 is not one of u1"),
        (1, {"shape": [3, 4]}, "is not (rows, columns, 3)"),
        (1, {"shape": [3, 4, 4]}, "is not (rows, columns, 3)"),
        (1, {"shape": [4, 3, 3]}, "streams differ in size"),
        (1, {"shape": [3, 0, 3]}, "shape[1] = 0"),
        (1, {"shape": [3, -4, 3]}, "shape[1] = -4"),
        (1, {"shape": [2**40, 2**40, 3]}, "is above 16384 a side"),
        (1, {"shape": [16384, 16384, 3]}, "16777216 pixels"),
        (1, {"nbytes": 143}, "all three must be equal"),
        (1, {"buffer": 0}, "must name each of the 2 buffers once"),
        (1, {"buffer": 7}, "must name each of the 2 buffers once"),
        (1, {"buffer": -1}, "buffer = -1"),
        (1, {"name": "rgb"}, "a name occurs twice"),
        (1, {"name": "normals"}, "name = 'normals'"),
        (1, {"name": "depth"}, "is not (rows, columns)"),
        (1, {"unit": "inch"}, "unit = 'inch'"),
        (1, {"scale": 0}, "scale is 0"),
        (1, {"scale": None}, "scale = None"),
        (1, {"encoding": "png"}, "encoding 'png' is reserved"),
    ],
)
def test_a_wrong_stream_is_named_with_its_value(index: int, change: dict[str, Any], words: str) -> None:
    assert words in refusal(edited_stream(index, **change))


@pytest.mark.parametrize(
    "change", [lambda buffer: buffer[:-1], lambda buffer: buffer + b"x", lambda buffer: buffer[:12]]
)
def test_a_buffer_of_another_length_is_refused(change: Callable[[bytes], bytes]) -> None:
    *head, last = GOLDEN["frame_xyz"]
    assert "all three must be equal" in refusal([*head, change(last)])


@pytest.mark.parametrize("depth", [100, 1000, 7000])
def test_deep_nesting_in_a_field_that_is_not_known_is_passed_over_or_refused(depth: int) -> None:
    topic, header, *buffers = GOLDEN["frame_xyz"]
    nested = header[:-1] + b',"later":' + b"[" * depth + b"]" * depth + b"}"
    try:
        assert wire.decode_frame([topic, nested, *buffers]).seq == 41
    except FrameRefused as refused:  # where the interpreter's recursion ends depends on its version
        assert depth > 100 and refused.reason is Reason.REFUSED_MESSAGE
    assert wire.peek_identity([topic, nested, *buffers]).camera == "cam1"


def test_bytes_that_are_not_utf_8_are_refused_wherever_they_stand() -> None:
    topic, header, *buffers = GOLDEN["frame_xyz"]
    for field in (b',"later":"\xff"}', b',"lat\xffer":0}'):
        refusal([topic, header[:-1] + field, *buffers])


def test_depth_without_intrinsics_is_refused() -> None:
    assert "depth needs fx, fy, cx, cy" in refusal(edited("frame_depth", intrinsics=None))


def test_a_number_no_float_can_hold_is_refused() -> None:
    header = GOLDEN["frame_xyz"][1].replace(b'"scale":1.0', b'"scale":1e999')
    refusal([GOLDEN["frame_xyz"][0], header, *GOLDEN["frame_xyz"][2:]])
    header = GOLDEN["frame_xyz"][1].replace(b'"scale":1.0', b'"scale":NaN')
    refusal([GOLDEN["frame_xyz"][0], header, *GOLDEN["frame_xyz"][2:]])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 9])
def test_a_wrong_number_of_parts_is_refused(count: int) -> None:
    refusal((GOLDEN["frame_xyz"] + [b"x"] * 9)[:count])


@pytest.mark.parametrize(
    "topic",
    [b"", b"frame", b"frame/cam1", b"frame//", b"result/cam1/", b"frame/cam1/\n", b"frame/c\xe4m/", b"x" * 5000],
)
def test_a_wrong_topic_is_refused(topic: bytes) -> None:
    refusal([topic, *GOLDEN["frame_xyz"][1:]])


def test_the_header_may_have_16_KiB_and_not_a_byte_more() -> None:
    topic, header, *buffers = GOLDEN["frame_xyz"]
    full = header[:-1] + b" " * (wire.MAX_HEADER_BYTES - len(header)) + b"}"
    assert wire.decode_frame([topic, full, *buffers]).seq == 41
    assert "16385 bytes long; at most 16384" in refusal([topic, full[:-1] + b" }", *buffers])


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[" * 16000, b'{"v":1,' * 2000, b"null", b"[1]", b'"x"', b"\x00" * 64]
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    refusal([GOLDEN["frame_xyz"][0], body, *GOLDEN["frame_xyz"][2:]])


def test_a_part_that_is_no_buffer_is_refused() -> None:
    refusal([GOLDEN["frame_xyz"][0], "text", *GOLDEN["frame_xyz"][2:]])
    refusal([*GOLDEN["frame_xyz"][:3], np.ones((6, 12), np.float32)[:, ::2].data])


def test_an_error_message_stays_short_whatever_was_sent() -> None:
    assert len(refusal(edited("frame_xyz", camera="x" * 15000))) < 400
    assert len(refusal(edited("frame_xyz", clock="x" * 15000))) < 400
    assert len(refusal(edited("frame_xyz", streams=["\x00" * 9] * 900))) < 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"camera": "Cam"}, "camera = 'Cam'"),
        ({"camera_session": ""}, "camera_session = ''"),
        ({"seq": -1}, "seq = -1"),
        ({"seq": np.int64(3)}, "cannot be written as JSON"),
        ({"xyz": golden.XYZ.astype(np.float64)}, "xyz is float64"),
        ({"rgb": golden.RGB.astype(np.float32)}, "rgb is float32"),
        ({"rgb": golden.RGB[:2]}, "streams differ in size"),
        ({"rgb": golden.RGB[:0]}, "no pixels"),
        ({"xyz": None}, "exactly one of xyz and depth"),
        ({"depth": golden.DEPTH}, "exactly one of xyz and depth"),
        ({"xyz": None, "depth": golden.DEPTH}, "depth needs"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"invalid": float("nan")}, "invalid is nan"),
        ({"scale": -1.0}, "scale is -1.0"),
        ({"part_id": "x" * 65}, "part_id"),
        ({"intrinsics": Intrinsics(1.0, float("inf"), 0.0, 0.0)}, "fy is inf"),
        ({"intrinsics": Intrinsics(1.0, 1.0, 0.0, 0.0, dist=(float("nan"),))}, "dist[0] is nan"),
    ],
)
def test_a_frame_that_would_be_refused_is_not_sent(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WireError) as caught:
        wire.encode_frame(replace(golden.FRAME_XYZ, **change))
    assert words in str(caught.value)


def test_identity_of_a_refused_message_is_what_can_be_told() -> None:
    whole = wire.FrameIdentity("cam1", golden.CAMERA_SESSION, 41, 0, "", 1_790_000_000_000_001)
    assert wire.peek_identity(GOLDEN["frame_xyz"]) == whole == wire.identity(golden.FRAME_XYZ)
    assert wire.peek_identity(edited("frame_xyz", streams=7)) == whole
    assert wire.peek_identity(edited("frame_xyz", seq=-1, part_id="ok")) == replace(whole, seq=None, part_id="ok")
    assert wire.peek_identity(edited("frame_xyz", v=2)) == wire.FrameIdentity("cam1")
    assert wire.peek_identity([b"frame/cam1/", b"{"]) == wire.FrameIdentity("cam1")
    assert wire.peek_identity([b"\xff"]) == wire.peek_identity([]) == wire.FrameIdentity()


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


# Results: energise to pass


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.OK),
        ({"accept": ...}, Verdict.UNKNOWN),
        ({"accept": False}, Verdict.UNKNOWN),
        ({"verdict": ...}, Verdict.UNKNOWN),
        ({"verdict": 0}, Verdict.UNKNOWN),
        ({"verdict": 2}, Verdict.UNKNOWN),
        ({"verdict": 3}, Verdict.UNKNOWN),
        ({"reason_code": ...}, Verdict.UNKNOWN),
        ({"reason_code": 4}, Verdict.UNKNOWN),
        ({"reason_code": 999}, Verdict.UNKNOWN),
        ({"reason_code": int(Reason.STALE)}, Verdict.UNKNOWN),
        ({"reason_code": int(Reason.SCORE_ABOVE_THRESHOLD)}, Verdict.UNKNOWN),
        ({"score": None}, Verdict.UNKNOWN),
        ({"score": ...}, Verdict.UNKNOWN),
        ({"threshold": None}, Verdict.UNKNOWN),
        ({"score": 2.6}, Verdict.UNKNOWN),
        ({"score": 2.5}, Verdict.OK),
    ],
)
def test_ok_is_believed_only_if_everything_agrees(change: dict[str, Any], verdict: Verdict) -> None:
    received = wire.decode_result(edited("result_ok", **change))
    assert received.verdict is verdict
    assert received.accept is (verdict is Verdict.OK)


def test_codes_that_are_not_known_are_kept_for_people() -> None:
    received = wire.decode_result(edited("result_ok", verdict=9, reason_code=77, reason="FROM_LATER"))
    assert (received.verdict_code, received.reason_code, received.reason_text) == (9, 77, "FROM_LATER")
    assert received.verdict is Verdict.UNKNOWN and received.reason not in JUDGED


@pytest.mark.parametrize(
    "change", [{"score": "2"}, {"verdict": -1}, {"result_id": 0}, {"result_id": ...}, {"accept": 1}]
)
def test_a_malformed_result_is_no_result(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.decode_result(edited("result_ok", **change))


def test_a_result_fits_2_KiB_whatever_it_holds() -> None:
    big = replace(
        golden.RESULT_OK,
        station="s" * 32,
        camera="c" * 32,
        part_id='"' * 64,
        recipe="r" * 32,
        bundle="\\" * 64,
        result_id=2**53 - 1,
        seq=2**53 - 1,
        score=-1.2345678901234567e-300,
        threshold=1.2345678901234567e300,
        latency_us=dict.fromkeys(("recv", "pre", "rgb", "points", "knn", "post", "total"), 2**53 - 1),
        deadline_us=2**53 - 1,
    )
    assert len(wire.encode_result_body(big)) <= wire.MAX_RESULT_BYTES
    with pytest.raises(WireError, match="at most 2048"):
        wire.decode_result([b"result/st1/", GOLDEN["result_ok"][1] + b" " * 2048])


@pytest.mark.parametrize("change", [{"station": "St"}, {"result_id": 2**53}, {"seq": -1}, {"part_id": "\u00e4"}])
def test_a_result_that_breaks_the_contract_is_not_sent(change: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        wire.encode_result(replace(golden.RESULT_OK, **change))


# The 64-byte record


def test_record_fields_lie_where_the_table_says() -> None:
    record = wire.encode_record(golden.RESULT_OK, state=8, station_number=3)
    assert len(record) == 64

    def at(form: str, offset: int) -> Any:
        return struct.unpack_from("<" + form, record, offset)[0]

    assert record[:4] == b"ASPR"
    assert list(record[4:8]) == [1, 8, 1, 1]
    assert (at("Q", 8), at("Q", 16), at("q", 24)) == (1001, 41, 1_790_000_000_000_001)
    assert at("I", 32) == int(golden.SESSION.replace("-", ""), 16) & 0xFFFFFFFF
    assert (at("I", 36), at("f", 40), at("f", 44)) == (7, 0.8125, 2.5)
    assert (at("I", 48), at("H", 52), at("H", 54), at("I", 56)) == (126000, int(Reason.GOOD), 3, 4711)
    assert at("I", 60) == zlib.crc32(record[:60])


def test_record_flags_and_numbers_of_an_unknown() -> None:
    record = wire.decode_record(wire.encode_record(golden.RESULT_UNKNOWN, state=8, station_number=3))
    assert (record.verdict, record.flags, record.score, record.threshold) == (0, 2, 0.0, 0.0)
    ng = wire.decode_record(wire.encode_record(golden.RESULT_NG, state=8, station_number=3))
    assert (ng.verdict, ng.flags, ng.accept, ng.part_number) == (2, 4, False, 0)


def test_a_score_beyond_f32_is_no_score_and_no_verdict() -> None:
    huge = replace(golden.RESULT_OK, score=-1e300)
    record = wire.decode_record(wire.encode_record(huge, state=8, station_number=3))
    assert (record.verdict, record.flags, record.score, record.accept) == (0, 0, 0.0, False)


@pytest.mark.parametrize(
    ("part_id", "number"),
    [("4711", 4711), ("0", 0), ("4294967295", 2**32 - 1), ("4294967296", 0), ("-7", 0), ("7 ", 0), ("", 0), ("A7", 0)],
)
def test_part_number_is_0_if_the_id_is_no_number(part_id: str, number: int) -> None:
    record = wire.encode_record(replace(golden.RESULT_OK, part_id=part_id), state=8, station_number=3)
    assert wire.decode_record(record).part_number == number


@pytest.mark.parametrize("bit", range(0, 512, 7))
def test_a_damaged_record_is_refused(bit: int) -> None:
    record = bytearray(GOLDEN["record_ok"][1])
    record[bit // 8] ^= 1 << bit % 8
    with pytest.raises(WireError):
        wire.decode_record(bytes(record))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (5, "B", 3),
        (5, "B", 0),
        (5, "B", 4),
        (6, "B", 2),
        (6, "B", 7),
        (7, "B", 0),
        (40, "f", 3.0),
        (52, "H", 2),
        (52, "H", 99),
    ],
)
def test_record_accept_needs_every_field_to_agree(offset: int, form: str, value: float) -> None:
    record = bytearray(GOLDEN["record_ok"][1])
    assert wire.decode_record(bytes(record)).accept
    struct.pack_into("<" + form, record, offset, value)
    struct.pack_into("<I", record, 60, zlib.crc32(record[:60]))
    assert not wire.decode_record(bytes(record)).accept


def test_record_of_another_version_or_with_nan_is_refused() -> None:
    for offset, form, value in ((4, "B", 2), (40, "f", float("nan")), (44, "f", float("inf"))):
        record = bytearray(GOLDEN["record_ok"][1])
        struct.pack_into("<" + form, record, offset, value)
        struct.pack_into("<I", record, 60, zlib.crc32(record[:60]))
        with pytest.raises(WireError):
            wire.decode_record(bytes(record))


def test_a_record_number_that_does_not_fit_is_not_sent() -> None:
    with pytest.raises(WireError):
        wire.encode_record(golden.RESULT_OK, state=8, station_number=70000)


# State, control, bulk


@pytest.mark.parametrize("state", [0, 1, 2, 3, 4, 5, 9, 200])
def test_ready_is_believed_in_ready_states_only(state: int) -> None:
    assert not wire.decode_state(edited("state", state=state)).can_judge
    assert not wire.decode_state(edited("state", ready=...)).can_judge


def test_state_knows_whether_the_law_holds() -> None:
    assert not wire.decode_state(edited("state", received=1001)).balanced
    assert not wire.decode_state(edited("state", unknown_by_reason={"LOST": 2})).balanced


def test_a_state_with_a_number_that_is_none_is_not_sent() -> None:
    for change in ({"expected_rate_hz": float("inf")}, {"gpu": {"power_w": float("nan")}}):
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
        with pytest.raises(WireError, match=f"{name} is absent"):
            wire.decode_request(json.dumps(body).encode())


def test_an_operation_not_known_can_still_be_answered() -> None:
    request = wire.decode_request(b'{"v":1,"id":"9","op":"dance","tempo":3}')
    assert (request.op, request.id) == ("dance", "9")
    assert wire.peek_request_id(b'{"v":1,"id":"9","op":7}') == "9"
    assert wire.peek_request_id(b'{"id":9}') == wire.peek_request_id(b"[") == wire.peek_request_id(b"") == ""


def test_get_result_does_not_run_backwards() -> None:
    with pytest.raises(WireError, match="lies before"):
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
        ({"dtype": "u1"}, "is no map"),
        ({"shape": [4, 4, 3]}, "is no map"),
        ({"nbytes": 65}, "64"),
        ({"shape": [2, 4]}, "32"),
        ({"encoding": "png"}, "reserved"),
    ],
)
def test_a_wrong_map_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(WireError, match=words):
        wire.decode_bulk(edited("map", **change))
