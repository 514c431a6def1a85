"""Broken messages: a frame message becomes a Frame or is refused, with a result that can be sent; nothing else happens.

``ASPERITY_FUZZ=100000 pytest tests/runtime/wire/test_wire_fuzz.py`` for the long run.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime import wire
from asperity.runtime.errors import FrameRefused, WireError
from asperity.runtime.frame import Frame, Result, Verdict
from asperity.runtime.reasons import Reason
from tests.runtime.wire import wire_golden as golden

MESSAGES = int(os.environ.get("ASPERITY_FUZZ", "5000"))
SEEDS = 10
GOLDEN = golden.load()
FRAMES = [GOLDEN["frame_xyz"], GOLDEN["frame_depth"]]
NASTY: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 4, 7, 8, 255, 256, 10**400),
    *(2**31, 2**32, 2**53 - 1, 2**53, 2**63, 2**64, -(2**63)),
    *(0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf")),
    *("", "0", "rgb", "xyz", "depth", "u1", "u2", "f4", "f8", "cam1", "mm", "ptp"),
    *("\0", "\ud800", "\U0001f600", "x" * 65, "x" * 4000),
    *([], {}, [[]], [{}], [1, 2, 3], [3, 4], [3, 4, 3], [0, 0, 3], [2**40, 2**40, 3], [1] * 100),
    *({"v": 1}, {"name": "rgb"}),
]


def fate(parts: list[Any]) -> Frame | Reason:
    """Decode; whatever is no Frame and no refusal escapes and fails the test."""
    known = wire.peek_identity(parts)
    try:
        frame = wire.decode_frame(parts)
    except FrameRefused as refused:
        assert refused.reason is Reason.REFUSED_MESSAGE
        assert 0 < len(str(refused)) < 1000
        answer_is_sent(known, Reason.REFUSED_MESSAGE)
        return refused.reason
    assert known == wire.identity(frame)
    answer_is_sent(known, Reason.STALE)
    legal(frame, parts)
    return frame


def answer_is_sent(known: wire.FrameIdentity, reason: Reason) -> None:
    """Every message has its one result, and that result can be sent."""
    result = Result(
        station="st1",
        session=golden.SESSION,
        result_id=1,
        camera=known.camera,
        camera_session=known.camera_session,
        seq=known.seq or 0,
        trigger_id=known.trigger_id,
        part_id=known.part_id,
        reason=reason,
        t_exposure_us=known.t_exposure_us,
    )
    received = wire.decode_result(wire.encode_result(result))
    assert received.verdict is Verdict.UNKNOWN and not received.accept
    wire.decode_record(wire.encode_record(result, state=8, station_number=1))


def legal(frame: Frame, parts: list[Any]) -> None:
    """A frame that passed keeps every promise of the noun, and can be sent on."""
    solid = frame.xyz if frame.xyz is not None else frame.depth
    assert solid is not None and (frame.xyz is None) != (frame.depth is None)
    assert frame.rgb.dtype == np.uint8 and frame.rgb.ndim == 3 and frame.rgb.shape[2] == 3
    assert solid.shape[:2] == frame.rgb.shape[:2]
    assert frame.rgb.nbytes + solid.nbytes == sum(memoryview(part).nbytes for part in parts[2:])
    assert np.isfinite([frame.scale, frame.offset]).all() and frame.scale > 0
    int(frame.rgb.sum()), np.nan_to_num(solid).max()  # every byte can be read
    wire.decode_frame([bytes(part) for part in wire.encode_frame(frame)])


def mutated(parts: list[bytes], rng: random.Random) -> list[bytes]:
    """One to four faults: bytes, lengths, types, values, parts."""
    parts = list(parts)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not parts:
            break
        rng.choice(FAULTS)(parts, rng)
    return parts


def _flip_bytes(parts: list[bytes], rng: random.Random) -> None:
    index = rng.randrange(len(parts))
    body = bytearray(parts[index])
    for _ in range(rng.randint(1, 8)):
        if body:
            body[rng.randrange(len(body))] = rng.randrange(256)
    parts[index] = bytes(body)


def _cut_or_grow(parts: list[bytes], rng: random.Random) -> None:
    index = rng.randrange(len(parts))
    body = parts[index]
    at = rng.randint(0, len(body))
    parts[index] = rng.choice(
        (body[:at], body[at:], body + body[:at], body[:at] + rng.randbytes(rng.randint(0, 40)), b"")
    )


def _change_parts(parts: list[bytes], rng: random.Random) -> None:
    index = rng.randrange(len(parts))
    match rng.randrange(5):
        case 0:
            del parts[index]
        case 1:
            parts.insert(index, rng.choice(parts))
        case 2:
            parts.extend([b""] * rng.randint(1, 9))
        case 3:
            rng.shuffle(parts)
        case _:
            parts[index] = rng.choice(rng.choice(FRAMES))


def _change_header(parts: list[bytes], rng: random.Random) -> None:
    """Another value somewhere in the JSON, or one field fewer or more."""
    if len(parts) < 2:
        return
    try:
        tree = json.loads(parts[1])
    except (ValueError, RecursionError):
        return
    places = list(_places(tree))
    if not places:
        return
    node, key = rng.choice(places)
    match rng.randrange(4):
        case 0 if isinstance(node, dict):
            del node[key]
        case 1 if isinstance(node, dict):
            node[rng.choice(("encoding", "pose", "v", "new", ""))] = rng.choice(NASTY)
        case 2:
            other, other_key = rng.choice(places)
            node[key] = (
                json.loads(json.dumps(other[other_key]))
                if other_key in (other if isinstance(other, dict) else range(len(other)))
                else None
            )
        case _:
            node[key] = rng.choice(NASTY)
    parts[1] = json.dumps(tree).encode()


def _nest(parts: list[bytes], rng: random.Random) -> None:
    if len(parts) < 2:
        return
    depth = rng.choice((10, 1000, 5000, 20000))
    parts[1] = rng.choice(
        (
            b"[" * depth,
            b'{"v":1,"x":' + b"[" * depth,
            b'{"x":' * depth,
            b'{"v":1,"x":' + b"[" * depth + b"]" * depth + b"}",
        )
    )


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON tree, containers first."""
    stack = [tree]
    while stack:
        node = stack.pop()
        for key in range(len(node)) if isinstance(node, list) else list(node) if isinstance(node, dict) else ():
            yield node, key
            stack.append(node[key])


FAULTS: list[Callable[[list[bytes], random.Random], None]] = [
    _flip_bytes, _cut_or_grow, _change_parts, _change_header, _change_header, _change_header, _nest,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(SEEDS))
def test_mutated_frames_are_frames_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    fates: Counter[str] = Counter()
    each = max(1, MESSAGES // SEEDS)
    for _ in range(each):
        result = fate(mutated(rng.choice(FRAMES), rng))
        fates["frame" if isinstance(result, Frame) else result.name] += 1
    assert fates.total() == each
    # A mutator that breaks everything, or nothing, tests nothing.
    assert 0 < fates["frame"] < each and 0 < fates["REFUSED_MESSAGE"] < each


@pytest.mark.parametrize("name", sorted(name for name in GOLDEN if not name.startswith("frame")))
def test_other_mutated_messages_decode_or_raise_wire_error(name: str) -> None:
    decoders: dict[str, Callable[[list[bytes]], object]] = {
        "result": wire.decode_result,
        "record": wire.decode_record_message,
        "state": wire.decode_state,
        "counters": wire.decode_counters,
        "event": wire.decode_event,
        "trigger": wire.decode_trigger,
        "map": wire.decode_bulk,
        "picture": wire.decode_bulk,
        "request": lambda parts: wire.decode_request(parts[-1]),
        "reply": lambda parts: wire.reply_results(wire.decode_reply(parts[-1])),
    }
    kind = name.split("_", maxsplit=1)[0]
    control = kind in ("request", "reply")
    rng = random.Random(name)
    seen: Counter[str] = Counter()
    for _ in range(max(50, MESSAGES // 40)):
        # Control has no topic: one is put before it, so that the same faults find the JSON.
        parts = mutated([b"control", *GOLDEN[name]] if control else GOLDEN[name], rng) or [b""]
        wire.peek_request_id(parts[-1])
        try:
            decoders[kind](parts)
        except WireError:
            seen["refused"] += 1
        else:
            seen["decoded"] += 1
    assert seen["refused"]


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)
HEADERS = [json.loads(parts[1]) for parts in FRAMES]


@settings(max_examples=max(100, MESSAGES // 20), deadline=None)
@given(
    st.sampled_from([0, 1]),
    st.dictionaries(st.sampled_from(sorted(HEADERS[1])), junk, max_size=3),
    st.dictionaries(st.sampled_from(sorted(HEADERS[1]["streams"][1])), junk, max_size=2),
    st.lists(st.binary(max_size=200), max_size=3),
    st.booleans(),
)
def test_headers_of_any_content_are_frames_or_refused(
    which: int, changes: dict[str, Any], stream_changes: dict[str, Any], extra: list[bytes], keep: bool
) -> None:
    header = dict(HEADERS[which])
    header["streams"] = [header["streams"][0], header["streams"][1] | stream_changes]
    body = json.dumps(header | changes).encode()
    fate([FRAMES[which][0], body, *(FRAMES[which][2:] if keep else []), *extra])


@settings(max_examples=max(100, MESSAGES // 20), deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=10))
def test_messages_of_any_bytes_are_refused(parts: list[bytes]) -> None:
    assert fate(parts) is Reason.REFUSED_MESSAGE
