"""The 64-byte record: a result for receivers that overlay a STRUCT. ``[record/<station>/][64 bytes]``."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asperity.runtime.errors import WireError
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.states import READY_STATES
from asperity.runtime.wire.common import MAX_U32, Part, as_bytes_view, body_of, show, topic

RECORD_BYTES = 64
RECORD_MAGIC = int.from_bytes(b"ASPR", "little")
RECORD_VERSION = 1
FLAG_ACCEPT = 1
FLAG_DEADLINE_MISSED = 2
FLAG_SIMULATED = 4
FLAG_VIEW = 8
LAYOUT = struct.Struct("<I4BQQqIIffIHHI")  # bytes 0 to 59; the CRC-32 of them follows
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Record:
    """The record's fields as sent; codes stay numbers. ``accept`` is what a receiver may act on."""

    version: int
    state: int
    verdict: int
    flags: int
    result_id: int
    seq: int
    t_exposure_us: int
    session: int
    trigger_id: int
    score: float
    threshold: float
    latency_us: int
    reason_code: int
    station_number: int
    part_number: int

    @property
    def accept(self) -> bool:
        """True only if flag, verdict, reason, numbers and state all say so; simulated is left to the receiver."""
        return (
            bool(self.flags & FLAG_ACCEPT)
            and not self.flags & FLAG_VIEW
            and self.verdict == Verdict.OK
            and self.reason_code == Reason.GOOD
            and self.score <= self.threshold
            and self.state in READY_STATES
        )


def encode_record(result: Result, *, state: int, station_number: int) -> bytes:
    """The 64 bytes of ``result``, published while the station was in ``state``.

    A score that no f32 can hold gives 0 and verdict 0. Raises WireError when a number does not fit its field.
    """
    score, threshold = _f32(result.score), _f32(result.threshold)
    verdict = result.verdict if score is not None and threshold is not None else Verdict.UNKNOWN
    flags = (
        (FLAG_ACCEPT if verdict is Verdict.OK and result.accept else 0)
        | (FLAG_DEADLINE_MISSED if result.deadline_missed else 0)
        | (FLAG_SIMULATED if result.simulated else 0)
        | (FLAG_VIEW if result.view_of else 0)
    )
    judged = verdict is not Verdict.UNKNOWN
    reason = Reason.NOT_JUDGED if verdict is not result.verdict else result.reason
    try:
        head = LAYOUT.pack(
            RECORD_MAGIC,
            RECORD_VERSION,
            state,
            verdict,
            flags,
            result.result_id,
            result.seq,
            result.t_exposure_us,
            session_number(result.session),
            result.trigger_id,
            score if judged else 0.0,
            threshold if judged else 0.0,
            min(result.latency_us.get("total", 0), MAX_U32),
            reason,
            station_number,
            part_number(result.part_id),
        )
    except struct.error as error:
        raise WireError(f"record of result {result.result_id}: {error}") from error
    return head + _CRC.pack(zlib.crc32(head))


def record_message(station: str, record: bytes) -> list[bytes]:
    """``[topic, record]``."""
    return [topic("record", station), record]


def decode_record(body: Part) -> Record:
    """The record of 64 bytes. Raises WireError when length, magic, version, CRC or numbers are wrong."""
    view = as_bytes_view(body, "record")
    if view.nbytes != RECORD_BYTES:
        raise WireError(f"a record has {RECORD_BYTES} bytes, not {view.nbytes}")
    magic, *fields = LAYOUT.unpack(view[: LAYOUT.size])
    record = Record(*fields)
    if magic != RECORD_MAGIC:
        raise WireError(f"record: magic is {magic:#010x}, not {RECORD_MAGIC:#010x}; this is not a record")
    if zlib.crc32(view[: LAYOUT.size]) != _CRC.unpack(view[LAYOUT.size :])[0]:
        raise WireError("record: the CRC-32 of bytes 0 to 59 does not match; the record is damaged")
    if record.version != RECORD_VERSION:
        raise WireError(f"record: version is {record.version}, this side uses {RECORD_VERSION}; update the older")
    for name, value in (("score", record.score), ("threshold", record.threshold)):
        if not np.isfinite(value):
            raise WireError(f"record: {name} is {show(value)}; NaN and infinity must be given as 0, with verdict 0")
    return record


def decode_record_message(parts: Sequence[Part]) -> tuple[str, Record]:
    """``(station, record)`` of a record message. Raises WireError."""
    station, body = body_of(parts, "record")
    return station, decode_record(body)


def session_number(session: str) -> int:
    """Low 32 bits of a session's UUID. Raises WireError where it is none."""
    try:
        return int(session[-8:], 16)
    except ValueError as error:
        raise WireError(f"session {show(session)} is not a UUID") from error


def part_number(part_id: str) -> int:
    """The part's id as a number, 0 if it is none that fits 32 bits."""
    if not re.fullmatch(r"[0-9]{1,10}", part_id, re.ASCII):
        return 0
    number = int(part_id)
    return number if number <= MAX_U32 else 0


def _f32(value: float | None) -> float | None:
    """``value`` rounded to f32, None where there is none or it overflows. Rounding keeps score <= threshold."""
    if value is None or not abs(value) <= float(np.finfo(np.float32).max):
        return None
    return float(np.float32(value))
