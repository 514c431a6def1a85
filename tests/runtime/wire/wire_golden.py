"""The golden bytes of every message kind: what each must look like on the wire, for ever.

    python tests/runtime/wire/wire_golden.py --write

writes ``tests/runtime/wire/golden/wire.json``; without ``--write`` it says whether the files differ. A change of a
file is a change of the contract: it needs a decision record, ``docs/wire.md`` and every client in the same commit.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from asperity.runtime import wire
from asperity.runtime.frame import Frame, Intrinsics, Region, Result, Verdict, ViewSummary, Window
from asperity.runtime.reasons import Reason
from asperity.runtime.wire.clocks import CameraClock, Clocks, ComputerClock

FILE = Path(__file__).parent / "golden" / "wire.json"
CAMERA_SESSION = "0b0e7a1c-3f52-4c1e-9d0a-5f6e7d8c9b0a"
SESSION = "7d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d"

ROWS, COLUMNS = 3, 4
RGB = np.arange(ROWS * COLUMNS * 3, dtype=np.uint8).reshape(ROWS, COLUMNS, 3)
XYZ = (np.arange(ROWS * COLUMNS * 3, dtype=np.float32) * 20 - 50).reshape(ROWS, COLUMNS, 3)
DEPTH = np.arange(5000, 5000 + ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)

FRAME_XYZ = Frame(
    camera="cam1",
    camera_session=CAMERA_SESSION,
    seq=41,
    rgb=RGB,
    xyz=XYZ,
    unit="mm",
    t_exposure_us=1_790_000_000_000_001,
    t_sent_us=1_790_000_000_002_500,
    clock="ptp",
)
FRAME_DEPTH = Frame(
    camera="cam1",
    camera_session=CAMERA_SESSION,
    seq=2**53 - 1,
    rgb=RGB,
    depth=DEPTH,
    intrinsics=Intrinsics(
        fx=600.5, fy=601.25, cx=1.5, cy=1.0, model="brown-conrady", dist=(0.1, -0.01, 0.0, 0.0, 0.002)
    ),
    unit="mm",
    scale=0.1,
    offset=0.0,
    invalid=0.0,
    trigger_id=2**32 - 1,
    promise=2**53 - 1,
    part_id='lot 7/"42"',
    recipe="gear-2",
    t_exposure_us=1_790_000_000_000_001,
    t_sent_us=1_790_000_000_002_500,
    clock="device",
    sensor="stereo 0815",
)
RESULT_OK = Result(
    station="st1",
    session=SESSION,
    result_id=1001,
    camera="cam1",
    camera_session=CAMERA_SESSION,
    seq=41,
    trigger_id=7,
    part_id="4711",
    verdict=Verdict.OK,
    reason=Reason.GOOD,
    score=0.8125,
    threshold=2.5,
    p_value=0.42,
    recipe="gear-2",
    bundle="0123456789ab",
    t_exposure_us=1_790_000_000_000_001,
    t_done_us=1_790_000_000_140_000,
    latency_us={"recv": 2500, "pre": 8000, "rgb": 9000, "points": 66000, "knn": 40000, "post": 500, "total": 126000},
    deadline_us=500_000,
    region=Region(x=120, y=64, w=12, h=9, area_px=77),
    modality="rgb",
)
RESULT_NG = Result(
    station="st1",
    session=SESSION,
    result_id=1002,
    camera="cam1",
    camera_session=CAMERA_SESSION,
    seq=42,
    part_id="A-7",
    verdict=Verdict.NG,
    reason=Reason.SCORE_ABOVE_THRESHOLD,
    score=7.75,
    threshold=2.5,
    p_value=0.004,
    recipe="gear-2",
    bundle="0123456789ab",
    t_exposure_us=1_790_000_000_200_000,
    t_done_us=1_790_000_000_340_000,
    latency_us={"total": 140000},
    deadline_us=500_000,
    simulated=True,
    region=Region(x=-3, y=0, w=12, h=9, area_px=77),
    modality="points",
)
RESULT_UNKNOWN = Result(
    station="st1",
    session=SESSION,
    result_id=1003,
    camera="cam1",
    camera_session=CAMERA_SESSION,
    seq=43,
    reason=Reason.DEADLINE,
    t_exposure_us=1_790_000_000_400_000,
    t_done_us=1_790_000_000_900_000,
    deadline_us=500_000,
    deadline_missed=True,
)
RESULT_UNANNOUNCED = Result(
    station="st1",
    session=SESSION,
    result_id=1005,
    camera="cam1",
    camera_session=CAMERA_SESSION,
    seq=45,
    reason=Reason.UNANNOUNCED,
    recipe="gear-2",
    bundle="0123456789ab",
    t_exposure_us=1_790_000_000_800_000,
    t_done_us=1_790_000_000_950_000,
    deadline_us=500_000,
)
GS1_ID = "010401234567890121x-4\u00fc\x1d10L-2026/\"7\"\x1d3103001750"
RESULT_GS1 = replace(
    RESULT_OK, result_id=1006, seq=46, part_id=GS1_ID, lot="L-2026/7", order="4500012345", shift="Fr\u00fch",
    position=-9_007_199_254_740_991,
)  # fmt: skip
RESULT_VIEW = replace(RESULT_OK, station="front", result_id=77, view_of="st1")
"""One view of a part: ok, and it accepts nothing."""
RESULT_PART = Result(
    station="st1",
    session=SESSION,
    result_id=1007,
    trigger_id=7,
    part_id="4711",
    verdict=Verdict.OK,
    reason=Reason.GOOD,
    score=0.8125,
    threshold=2.5,
    recipe="gear-2",
    t_exposure_us=1_790_000_000_000_001,
    t_done_us=1_790_000_000_150_000,
    latency_us={"total": 150000},
    deadline_us=1_000_000,
    views=(ViewSummary("front", 77, 1, 1, 0.8125), ViewSummary("back", 78, 1, 1, 0.25)),
)
RESULT_PART_MISSING = replace(
    RESULT_PART.unknown(Reason.VIEW_MISSING), result_id=1008, deadline_missed=True,
    views=(ViewSummary("front", 79, 1, 1, 0.8125), ViewSummary("back", 0, 0, 0)),
)  # fmt: skip
RESULT_TIMING_ONLY = Result(
    station="st1",
    session=SESSION,
    result_id=1004,
    camera="cam1",
    camera_session=CAMERA_SESSION,
    seq=44,
    part_id="A-8",
    reason=Reason.TIMING_ONLY,
    score=0.25,
    threshold=2.5,
    recipe="gear-2",
    bundle="0123456789ab",
    t_exposure_us=1_790_000_000_600_000,
    t_done_us=1_790_000_000_740_000,
    latency_us={"total": 140000},
    deadline_us=500_000,
    region=Region(x=120, y=64, w=12, h=9, area_px=77),
)
STATE = wire.StationState(
    station="st1",
    session=SESSION,
    uptime_ms=86_400_000,
    beat=12345,
    beat_timeout_ms=600,
    state=int(wire.State.CONTINUOUS_EXECUTION),
    ready=True,
    autostart=True,
    triggers="hard_wired",
    synced=True,
    recipe="gear-2",
    recipe_change=wire.RecipeChange(2, "gear-3", "failed", "the bundle is of another version"),
    bundle="0123456789ab",
    threshold=2.5,
    engine=wire.EngineMessage("cpu", "x86_64", "fp32"),
    last_result_id=1003,
    expected_rate_hz=5.0,
    alarms=("camera is late",),
    received=1002,
    lost=2,
    ok=990,
    ng=10,
    unknown=3,
    in_flight=1,
    unknown_by_reason={"LOST": 2, "DEADLINE": 1},
    deadline_missed=1,
    late=1,
    gpu={"name": "none", "temperature_c": 41.5, "throttled": None},
    clocks=Clocks(
        computer=ComputerClock(synchronised=True, source="phc2sys+ptp4l", offset_ms=-0.0125, error_ms=0.5),
        camera=CameraClock(clock="ptp", offset_ms=38.25, jumps=1),
    ),
)
EVENT = wire.Event(
    station="st1",
    session=SESSION,
    t_us=1_790_000_000_900_000,
    severity="warning",
    code="DEADLINE",
    text="no verdict within 500 ms \u2013 the part is a reject",
    result_id=1003,
    camera="cam1",
    seq=43,
    actor="opcua line-3",
)
TRIGGER = wire.Trigger(
    station="st1",
    session=SESSION,
    trigger_id=7,
    promise=4_503_599_627_370_497,
    part_id="4711",
    recipe="gear-2",
    timeout_ms=500,
    t_us=1_790_000_000_000_000,
)
COUNTERS = wire.Counters(
    station="st1",
    session=SESSION,
    since_us=1_790_000_000_000_000,
    resets=2,
    ok=990,
    ng=10,
    unknown=3,
    by_reason={"SCORE_ABOVE_THRESHOLD": 8, "SHAPE_OUT_OF_RANGE": 2, "LOST": 2, "DEADLINE": 1},
    rows=(
        wire.CounterRow(recipe="gear-2", lot="L-2026/6", shift="late", ok=90),
        wire.CounterRow(
            recipe="gear-2", lot="L-2026/7", shift="Fr\u00fch", ok=800, ng=10, unknown=3,
            by_reason={"SCORE_ABOVE_THRESHOLD": 8, "SHAPE_OUT_OF_RANGE": 2, "LOST": 2, "DEADLINE": 1},
        ),
    ),
    other=wire.Tally(ok=100),
)  # fmt: skip
MAP = wire.Bulk(
    kind="map",
    station="st1",
    session=SESSION,
    result_id=1001,
    array=(np.arange(16, dtype=np.float32) / 4).reshape(4, 4),
    camera="cam1",
    seq=41,
    window=Window(-4, 0, 224),
    threshold=2.5,
)
PICTURE = wire.Bulk(kind="picture", station="st1", session=SESSION, result_id=1001, array=RGB, camera="cam1", seq=41)
REQUESTS = {
    "get_state": wire.Request(id="a-1", op="get_state", station="st1"),
    "get_result": wire.Request(id="a-2", op="get_result", station="st1", from_=1001, to=1003),
    "trigger": wire.Request(
        id="a-3", op="trigger", station="st1", trigger_id=7, part_id="4711", recipe="gear-2", timeout_ms=500
    ),
    "set_threshold": wire.Request(id="a-4", op="set_threshold", threshold=2.75),
    "expect": wire.Request(
        id="a-5",
        op="expect",
        trigger_id=8,
        part_id="4712",
        session=SESSION,
        uptime_ms=86_400_000,
        actor="modbus 10.0.0.7",
    ),
    "trigger_gs1": wire.Request(
        id="a-7", op="trigger", trigger_id=9, part_id=GS1_ID, timeout_ms=500, lot="L-2026/7", order="4500012345",
        shift="Fr\u00fch", position=123_456,
    ),
    "trigger_view": wire.Request(id="a-10", op="trigger", station="st1", trigger_id=10, timeout_ms=500, view=2),
    "reset_counters": wire.Request(id="a-9", op="reset_counters"),
    "set_batch": wire.Request(id="a-8", op="set_batch", lot="L-2026/7", order="", shift="Fr\u00fch"),
}


def replies() -> dict[str, wire.Reply]:
    """Replies; with results as the journal holds them."""
    bodies = tuple(msgspec.Raw(wire.encode_result_body(result)) for result in (RESULT_OK, RESULT_NG, RESULT_UNKNOWN))
    return {
        "get_state": wire.Reply(id="a-1", ok=True, code="OK", state=STATE),
        "get_result": wire.Reply(id="a-2", ok=True, code="OK", results=bodies, first_result_id=1, last_result_id=1003),
        "trigger": wire.Reply(id="a-3", ok=True, code="ACCEPTED"),
        "prepare_recipe": wire.Reply(id="a-6", ok=True, code="ACCEPTED", recipe_change=2),
        "too_old": wire.Reply(id="a-5", ok=False, code="TOO_OLD", text="it is of 1300 ms ago"),
        "busy": wire.Reply(id="a-3", ok=False, code="BUSY", text="trigger 6 is still awaited"),
    }


def messages() -> dict[str, list[bytes]]:
    """Every message kind by name, as the parts that cross the socket."""
    kinds: dict[str, list[bytes | memoryview]] = {
        "frame_xyz": wire.encode_frame(FRAME_XYZ),
        "frame_depth": wire.encode_frame(FRAME_DEPTH),
        "result_ok": [*wire.encode_result(RESULT_OK)],
        "result_gs1": [*wire.encode_result(RESULT_GS1)],
        "record_gs1": [*wire.record_message("st1", wire.encode_record(RESULT_GS1, state=8, station_number=3))],
        "trigger_gs1": [*wire.encode_trigger(msgspec.structs.replace(TRIGGER, part_id=GS1_ID))],
        "frame_gs1": wire.encode_frame(replace(FRAME_XYZ, trigger_id=7, promise=9, part_id=GS1_ID)),
        "state_batch": [*wire.encode_state(msgspec.structs.replace(STATE, lot="L-2026/7", shift="Fr\u00fch"))],
        "result_ng": [*wire.encode_result(RESULT_NG)],
        "result_unknown": [*wire.encode_result(RESULT_UNKNOWN)],
        "result_unannounced": [*wire.encode_result(RESULT_UNANNOUNCED)],
        "result_view": [*wire.encode_result(RESULT_VIEW)],
        "record_view": [*wire.record_message("front", wire.encode_record(RESULT_VIEW, state=8, station_number=4))],
        "result_part": [*wire.encode_result(RESULT_PART)],
        "record_part": [*wire.record_message("st1", wire.encode_record(RESULT_PART, state=8, station_number=3))],
        "result_part_missing": [*wire.encode_result(RESULT_PART_MISSING)],
        "state_part": [
            *wire.encode_state(msgspec.structs.replace(STATE, views=("front", "back"), parts_open=1, threshold=None))
        ],
        "state_view": [*wire.encode_state(msgspec.structs.replace(STATE, station="front", view_of="st1"))],
        "result_timing_only": [*wire.encode_result(RESULT_TIMING_ONLY)],
        "record_timing_only": [
            *wire.record_message("st1", wire.encode_record(RESULT_TIMING_ONLY, state=8, station_number=3))
        ],
        "record_ok": [*wire.record_message("st1", wire.encode_record(RESULT_OK, state=8, station_number=3))],
        "record_ng": [*wire.record_message("st1", wire.encode_record(RESULT_NG, state=8, station_number=3))],
        "record_unknown": [*wire.record_message("st1", wire.encode_record(RESULT_UNKNOWN, state=8, station_number=3))],
        "state": [*wire.encode_state(STATE)],
        "counters": [*wire.encode_counters(COUNTERS)],
        "event": [*wire.encode_event(EVENT)],
        "trigger": [*wire.encode_trigger(TRIGGER)],
        "map": wire.encode_bulk(MAP),
        "picture": wire.encode_bulk(PICTURE),
        **{f"request_{name}": [wire.encode_request(request)] for name, request in REQUESTS.items()},
        **{f"reply_{name}": [wire.encode_reply(reply)] for name, reply in replies().items()},
    }
    return {name: [bytes(part) for part in parts] for name, parts in kinds.items()}


def load() -> dict[str, list[bytes]]:
    """The golden messages as committed."""
    stored = json.loads(FILE.read_text())
    return {name: [_part_from(part) for part in parts] for name, parts in stored.items()}


def _part_to(part: bytes) -> dict[str, str]:
    """Readable where it is text, so that a change can be reviewed."""
    text = part.decode("utf-8", "replace")
    if text.encode() == part and "\0" not in text:
        return {"text": text}
    return {"base64": base64.b64encode(part).decode()}


def _part_from(part: dict[str, str]) -> bytes:
    return part["text"].encode() if "text" in part else base64.b64decode(part["base64"])


if __name__ == "__main__":
    written = json.dumps({name: [_part_to(p) for p in parts] for name, parts in messages().items()}, indent=1) + "\n"
    if "--write" in sys.argv:
        FILE.write_text(written)
    elif written != FILE.read_text():
        sys.exit(f"{FILE} differs from what the code writes")
