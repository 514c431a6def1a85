"""Frames on the wire: no pixel copied, and whatever breaks the contract refused by its name and value."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asperity.runtime import wire
from asperity.runtime.errors import FrameRefused, WireError
from asperity.runtime.frame import Intrinsics
from asperity.runtime.reasons import Reason
from tests.runtime.wire import wire_golden as golden
from tests.runtime.wire.wire_edits import GOLDEN, edited


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
        ({"part_id": "x" * 257}, "part_id = "),
        ({"part_id": "\x1d" * 86}, "in JSON"),
        ({"part_id": "Ü\u202e7"}, "part_id = "),
        ({"part_id": "a\x1cb"}, "part_id = "),
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
        (1, {"shape": [2**40, 2**40, 3]}, "1 to 16384 per side"),
        (1, {"shape": [16384, 16384, 3]}, "16777216 in total"),
        # Monochrome, Bayer, packed and deeper pixels: nothing is unpacked, cut or guessed.
        (0, {"shape": [3, 4], "nbytes": 12}, "is not (rows, columns, 3)"),
        (0, {"shape": [3, 4, 1], "nbytes": 12}, "is not (rows, columns, 3)"),
        (0, {"shape": [3, 4, 4], "nbytes": 48}, "is not (rows, columns, 3)"),
        (0, {"nbytes": 54}, "all three must be equal"),
        (0, {"dtype": "f4", "nbytes": 144}, "stream rgb: dtype f4 is not one of u1"),
        *[(0, {"dtype": dtype}, f"dtype = '{dtype}'") for dtype in ("u4", "i2", ">u2", "f2", "f8", "Mono12p", "")],
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
        ({"part_id": "x" * 257}, "part_id"),
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
