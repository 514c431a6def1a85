"""The Modbus registers in one place: source of the gateway, of docs/plc.md, of the Structured Text and of the tests.

Registers are big-endian, the high word first; addresses count from 0, as they are on the wire (a PLC that counts from
40001 adds that). Function codes 3 and 4 read the same registers; 6 and 16 write those of access ``rw``.
The status block is read whole in one request and is then consistent: no field of it is older than another.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TABLE_VERSION = 2

Kind = Literal["u16", "u32", "i64", "f32", "text64", "text256"]
"""``text64``: a u16 with the count of bytes, then 64 bytes of UTF-8, two per register, the first in the high byte; the
rest is 0."""
WORDS: dict[Kind, int] = {"u16": 1, "u32": 2, "i64": 4, "f32": 2, "text64": 33, "text256": 129}
FORMATS: dict[Kind, str] = {"u16": "H", "u32": "I", "i64": "q", "f32": "f", "text64": "H64s", "text256": "H256s"}
UNSIGNED: dict[Kind, int] = {"u16": 0xFFFF, "u32": 0xFFFFFFFF}
Value = int | float | bytes
F32_MAX = (2 - 2.0**-23) * 2.0**127


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of the table."""

    name: str
    address: int
    kind: Kind
    access: Literal["r", "rw"]
    meaning: str


def _read(name: str, address: int, kind: Kind, meaning: str) -> Row:
    return Row(name, address, kind, "r", meaning)


def _write(name: str, address: int, kind: Kind, meaning: str) -> Row:
    return Row(name, address, kind, "rw", meaning)


STATUS: tuple[Row, ...] = (
    _read("beat", 0, "u16", "low 16 bits of the inspector's heartbeat counter; unchanged for beat_timeout_ms: reject"),
    _read("accept", 1, "u16", "1: the part of the shown result may pass; any other value: reject"),
    _read("quality", 2, "u16", "1: the station is ready and its heartbeat advances; 0: do not trust any value here"),
    _read("state", 3, "u16", "state of the station (docs/states.md); 0: none received yet"),
    _read("result_valid", 4, "u16", "number of the shown result, 1 to 65535; 0: no result is shown, its fields are 0"),
    _read("verdict", 5, "u16", "0 unknown, 1 ok, 2 ng"),
    _read("reason", 6, "u16", "reason code (docs/wire.md)"),
    _read(
        "waiting", 7, "u16", "results not acknowledged yet, including the shown one; at most [modbus] buffer_results"
    ),
    _read("result_no", 8, "u32", "low 32 bits of result_id"),
    _read("seq", 10, "u32", "low 32 bits of the frame's seq"),
    _read("trigger_id", 12, "u32", "the trigger that the result answers; 0: none"),
    _read("part_number", 14, "u32", "part_id as a number; 0: it is not a number"),
    _read("score", 16, "f32", "anomaly score; 0 if there is none, and verdict is 0"),
    _read("threshold", 18, "f32", "ok needs score <= threshold; 0 if there is none"),
    _read("latency_us", 20, "u32", "time from arrival of the frame to its result, microseconds"),
    _read("missing_before", 22, "u32", "results lost (overrun, gap) immediately before the shown one"),
    _read("deadline_missed", 24, "u16", "1: the deadline passed before a verdict"),
    _read("simulated", 25, "u16", "1: not scored by a real engine"),
    _read("overrun", 26, "u16", "1: a result was dropped since clear_overrun because it was not acknowledged in time"),
    _read("recipe", 27, "u16", "number of the active recipe now, from [modbus] recipes; 0: none or not listed"),
    _read("overruns", 28, "u32", "results dropped since the gateway started"),
    _read("gaps", 30, "u32", "gaps in the station's results since the gateway started"),
    _read("missing", 32, "u32", "results in those gaps"),
    _read("results", 34, "u32", "results received by the gateway since it started"),
    _read("beat_timeout_ms", 36, "u16", "longest time the heartbeat may stay unchanged"),
    _read("alarms", 37, "u16", "number of alarms of the station; the HTTP page names and explains them"),
    _read("session", 38, "u32", "low 32 bits of the inspector's session; a different value: it was restarted"),
    _read("command_status", 40, "u16", "outcome of command (table of status codes)"),
    _read("recipe_status", 41, "u16", "outcome of recipe_select"),
    _read("trigger_status", 42, "u16", "outcome of trigger_request; the result itself arrives like any other"),
    _read("table_version", 43, "u16", f"{TABLE_VERSION}"),
    _read("result_recipe", 44, "u16", "number of the recipe that judged the shown result; 0: none, not listed"),
    _read(
        "recipe_change",
        45,
        "u16",
        "last recipe change, regardless of who requested it: 0 none, 1 in progress, 2 done, 3 failed",
    ),
    _read("triggers", 46, "u16", "trigger mode of the station: 0 not known, 1 free_run, 2 software, 3 hard_wired"),
    _read(
        "synced",
        47,
        "u16",
        "1: announcements match exposures, or do not have to; 0: every part is UNSYNCED, or not known",
    ),
    _read("threshold_in_force", 48, "f32", "of the active recipe; 0: none"),
    _read("late", 50, "u32", "frames that arrived after their exposure had been answered LOST"),
    _read("result_no_copy", 52, "u32", "equals result_no; differs only if the block was read in several requests"),
)
WRITES: tuple[Row, ...] = (
    _write(
        "result_ack", 100, "u16", "write result_valid here once its result has been taken; the next one is then shown"
    ),
    _write("command", 101, "u16", "table of commands"),
    _write(
        "recipe_select",
        102,
        "u16",
        "number from [modbus] recipes: prepare this recipe; while not 0, only its results can be accepted",
    ),
    _write("trigger_timeout_ms", 103, "u16", "a trigger without a frame for this long ends with NO_FRAME; 1 to 65535"),
    _write("trigger_request", 104, "u32", "trigger_id of the trigger to issue; both words in one request"),
    _write("trigger_part", 106, "u32", "part number of that trigger, written before or together with it; 0: none"),
    _write("trigger_recipe", 108, "u16", "number of the recipe that the trigger names, written likewise; 0: none"),
)
PART: tuple[Row, ...] = (
    _read("part_result_no", 200, "u32", "result_no of the shown result, whose part this is; 0: none is shown"),
    _read("position_given", 202, "u16", "1: its trigger named a position"),
    _read("position", 203, "i64", "position of the encoder, counts, as its trigger named it; 0 if none"),
    _read("part_id", 207, "text256", "part_id; more than 234 bytes need a second request"),
    _read("part_result_no_copy", 336, "u32", "equals part_result_no, or the block was read of two results"),
)
"""Who the part of the shown result is. Registers 200 to 324, one request, hold every id of up to 234 bytes."""
BATCH: tuple[Row, ...] = (
    _read("batch_result_no", 400, "u32", "result_no of the shown result; 0: none is shown"),
    _read("lot", 402, "text64", "lot of its part"),
    _read("order", 435, "text64", "order of its part"),
    _read("shift", 468, "text64", "shift of its part"),
    _read("batch_result_no_copy", 501, "u32", "equals batch_result_no, or the block was read of two results"),
)
COUNTED_REASONS: tuple[str, ...] = (
    "SCORE_ABOVE_THRESHOLD", "SHAPE_OUT_OF_RANGE", "REFUSED_MESSAGE", "REFUSED_DATA", "REFUSED_UNIT", "TOO_FEW_POINTS",
    "WRONG_CAMERA", "WRONG_RECIPE", "CAMERA_MOVED", "FROZEN_IMAGE", "DUPLICATE_SEQ", "SEQ_JUMP", "TRIGGER_EXPIRED",
    "UNANNOUNCED", "AMBIGUOUS", "UNSYNCED", "CAMERA_CONFLICT", "STALE", "OVERLOAD", "DEADLINE", "LOST", "NO_FRAME",
    "NOT_RUNNING", "ENGINE", "RESTARTED", "SHUTDOWN", "ABORTED", "TIMING_ONLY",
    "VIEW_MISSING", "VIEW_CONFLICT",
)  # fmt: skip
"""Reasons in the order of their registers, which never changes: a new one is added at the end."""
COUNTS: tuple[Row, ...] = (
    _read("counted_ok", 900, "u32", "good parts since reset_counters"),
    _read("counted_ng", 902, "u32", "bad parts since then"),
    _read("counted_unknown", 904, "u32", "parts without a verdict since then"),
    _read("batch_ok", 906, "u32", "good parts of the active recipe and the station's lot and shift"),
    _read("batch_ng", 908, "u32", "bad parts of these"),
    _read("batch_unknown", 910, "u32", "parts of these without a verdict"),
    _read("counter_resets", 912, "u32", "how often the counters were reset; a different value: they began again"),
    *(
        _read(f"counted_{reason}", 914 + 2 * at, "u32", f"parts since then with the reason {reason}")
        for at, reason in enumerate(COUNTED_REASONS)
    ),
)
"""What the station counts, through restarts; 0 until it has said so. One reading is of one moment."""
PART_WRITES: tuple[Row, ...] = (
    _write(
        "part_for", 600, "u32",
        "trigger_request that the position and part id below belong to; with any other trigger they are not used",
    ),
    _write("trigger_position_given", 602, "u16", "1: the trigger names the position below; 0: none"),
    _write("trigger_position", 603, "i64", "position of the encoder at that trigger, counts"),
    _write("trigger_part_id", 607, "text256", "part id of that trigger, in place of trigger_part; length 0: none"),
    _write("set_lot", 736, "text64", "lot for command 8"),
    _write("set_order", 769, "text64", "order for command 8"),
    _write("set_shift", 802, "text64", "shift for command 8"),
)  # fmt: skip
"""Written before ``trigger_request`` or ``command``, in as many requests as it takes; by themselves they do nothing."""
CLOCKS: tuple[Row, ...] = (
    _read(
        "station_time_s", 1100, "u32",
        "UTC of the computer that runs the gateway, usually the station's, at this reading: seconds since 1970",
    ),
    _read("station_time_ms", 1102, "u16", "and milliseconds, 0 to 999"),
    _read("computer_clock", 1103, "u16", "clock of the station's computer: 0 not known, 1 synchronised, 2 not"),
    _read("computer_offset_ms", 1104, "f32", "what is left to correct of it; 0 if not known"),
    _read("computer_error_ms", 1106, "f32", "largest error that its kernel reckons with; 0 if not known"),
    _read("camera_clock", 1108, "u16", "clock of the camera: 0 not known, 1 ptp, 2 realtime, 3 device"),
    _read("plc_clock", 1109, "u16", "the PLC's clock, by plc_time_s: 0 not known, 1 within plc_offset_max_ms, 2 off"),
    _read(
        "camera_offset_ms", 1110, "f32",
        "smallest arrival minus exposure of the last minutes; negative: its clock is ahead; 0 if not known",
    ),
    _read("plc_offset_ms", 1112, "f32", "by how much the PLC's clock is ahead of station_time; 0 if not known"),
)  # fmt: skip
"""For people, and for a PLC that sets its clock: no result follows from any of it."""
PLC_TIME: tuple[Row, ...] = (
    _write("plc_time_s", 1150, "u32", "UTC by the PLC's clock, seconds since 1970; with the next one, in one request"),
    _write("plc_time_ms", 1152, "u16", "and milliseconds, 0 to 999"),
)
"""Written whole, now and then; it only shows and warns, and works without [gateway] commands."""
ROWS = STATUS + WRITES + PART + BATCH + PART_WRITES + COUNTS + CLOCKS + PLC_TIME
TRIGGER_TIMEOUT_MS = 1000
"""``trigger_timeout_ms`` until it is written."""

COMMANDS: dict[int, tuple[str, str]] = {
    1: ("start", "judge every frame"),
    2: ("start_single", "judge the frame of one trigger"),
    3: ("stop", "finish the frames being processed, then Ready"),
    4: ("halt", "go to Halted; needs reset"),
    5: ("abort", "answer the frames being processed ABORTED at once, then Ready"),
    6: ("reset", "leave Halted or Error"),
    7: ("self_test", "score the golden frames again"),
    8: ("set_batch", "set_lot, set_order and set_shift hold for all parts from now on; an empty one is removed"),
    9: ("reset_counters", "registers 900 and above count from 0 again"),
    100: ("clear_overrun", "set overrun to 0; done by the gateway itself"),
}
"""Value of ``command`` -> name, meaning. 0 does nothing. Whatever is not listed is refused."""
TRIGGERS = {"free_run": 1, "software": 2, "hard_wired": 3}
RECIPE_CHANGES = {"under_way": 1, "done": 2, "failed": 3}

STATUS_CODES: dict[int, tuple[str, str]] = {
    0: ("IDLE", "nothing was requested since the register was 0"),
    1: ("UNDER_WAY", "requested, not answered yet"),
    2: ("OK", "done"),
    3: ("ACCEPTED", "started; recipe_status then changes to 2, 18 or 20; for others, see state"),
    10: ("BUSY", "try again later"),
    11: ("BAD_REQUEST", "the request violates the protocol"),
    12: ("UNKNOWN_OP", "the station has no such operation"),
    13: ("WRONG_STATION", "the control socket belongs to another station"),
    14: ("WRONG_STATE", "not possible in the current state"),
    15: ("REFUSED", "understood and refused, for example a recipe that does not open"),
    16: ("UNSUPPORTED", "not supported by this version"),
    17: ("NOT_ALLOWED", "the gateway's role does not allow it"),
    18: ("FAILED", "tried and failed; for a recipe also: the station restarted, or another change followed"),
    19: ("TOO_OLD", "too old on arrival, or the station restarted: it was not executed"),
    20: (
        "NO_ANSWER",
        "no answer, or too many requests; a command may have been executed, a trigger's result has accept 0",
    ),
    21: (
        "BASELINE",
        "first write since the gateway started: taken as the initial value, not executed; write 0, then write it again",
    ),
    99: ("OTHER", "answered with a code unknown to this gateway: not executed"),
}
STATUS_OF_CODE = {name: number for number, (name, _) in STATUS_CODES.items()}


def words_of(rows: tuple[Row, ...]) -> int:
    """Registers that ``rows``, which follow each other, take up."""
    return rows[-1].address + WORDS[rows[-1].kind] - rows[0].address


STATUS_WORDS = words_of(STATUS)
WRITE_ADDRESS, WRITE_WORDS = WRITES[0].address, words_of(WRITES)


def pack(rows: tuple[Row, ...], values: Mapping[str, Value]) -> bytes:
    """The registers of ``rows``, two bytes each. A u16 or u32 keeps the low bits of its value; a text is bytes."""
    fields: list[Value] = []
    for row in rows:
        value = values[row.name]
        if isinstance(value, bytes):
            fields += [len(value), value]
        else:
            fields.append(int(value) & UNSIGNED[row.kind] if row.kind in UNSIGNED else value)
    return struct.pack(_format(rows), *fields)


def unpack(rows: tuple[Row, ...], registers: bytes) -> dict[str, int | float]:
    """The values of ``rows``, none of which is a text; ``registers`` has exactly their bytes."""
    return dict(zip((row.name for row in rows), struct.unpack(_format(rows), registers), strict=True))


def text_of(row: Row, registers: bytes) -> bytes | None:
    """The text of a row, whose registers these are; None where its length is more than there is room for."""
    length = int.from_bytes(registers[:2], "big")
    return registers[2 : 2 + length] if length <= 2 * WORDS[row.kind] - 2 else None


def f32(value: float | None) -> float:
    """0 if there is none, or where no register holds it."""
    return value if value is not None and abs(value) <= F32_MAX else 0.0


def _format(rows: tuple[Row, ...]) -> str:
    return ">" + "".join(FORMATS[row.kind] for row in rows)
