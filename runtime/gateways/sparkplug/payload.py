"""Sparkplug B payloads (Sparkplug 3.0, section 6.4): protobuf, written and read with what a station needs of it.

Not the protobuf package: six kinds of values to write and one command to read do not need code made from a schema.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from asperity.runtime.errors import WireError

COMMAND_NBYTES_MAX = 65_536
METRICS_MAX = 256
"""In a command."""
NAME_NBYTES_MAX = 256
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class DataType(IntEnum):
    """Of a metric's value."""

    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13


Value = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Metric:
    """One value. None is written as null."""

    name: str
    type: DataType
    value: Value
    timestamp_ms: int
    historical: bool = False


def encode(metrics: Iterable[Metric], timestamp_ms: int, seq: int | None) -> bytes:
    """A payload; ``seq`` is None in a death certificate."""
    parts = [_number(1, timestamp_ms), *(_message(2, _metric(metric)) for metric in metrics)]
    return b"".join([*parts, *([] if seq is None else [_number(3, seq)])])


def booleans(payload: bytes) -> dict[str, bool]:
    """The Boolean metrics of a command, by name; others are left out. Raises WireError."""
    if len(payload) > COMMAND_NBYTES_MAX:
        raise WireError(f"the command has {len(payload)} bytes; at most {COMMAND_NBYTES_MAX} are read")
    found: dict[str, bool] = {}
    metrics = 0
    for field, value in _fields(payload):
        if field != 2 or not isinstance(value, bytes):
            continue
        metrics += 1
        if metrics > METRICS_MAX:
            raise WireError(f"the command has more than {METRICS_MAX} metrics")
        own = dict(_fields(value))
        name, given = own.get(1), own.get(14)
        if isinstance(name, bytes) and isinstance(given, int) and len(name) <= NAME_NBYTES_MAX:
            try:
                found[name.decode()] = bool(given)
            except UnicodeDecodeError:
                raise WireError("the name of a metric is not UTF-8") from None
    return found


def _metric(metric: Metric) -> bytes:
    parts = [_text(1, metric.name), _number(3, metric.timestamp_ms), _number(4, metric.type)]
    if metric.historical:
        parts.append(_number(5, 1))
    value = metric.value
    if value is None:
        parts.append(_number(7, 1))
    elif metric.type is DataType.STRING:
        parts.append(_text(15, str(value)))
    elif metric.type is DataType.BOOLEAN:
        parts.append(_number(14, int(bool(value))))
    elif metric.type is DataType.DOUBLE:
        parts.append(_varint(13 << 3 | _FIXED64) + struct.pack("<d", float(value)))
    elif metric.type is DataType.INT64:
        parts.append(_number(11, int(value) % 2**64))  # two's complement, as the specification has it
    else:
        parts.append(_number(11 if metric.type in (DataType.UINT64, DataType.DATETIME) else 10, int(value)))
    return b"".join(parts)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    """Base 128, least significant group first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _fields(body: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field. Raises WireError."""
    at = 0
    while at < len(body):
        key, at = _read_varint(body, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(body, at)
            yield field, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(body, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"the command is not protobuf: wire type {kind}")
        if length > len(body) - at:
            raise WireError("the command ends inside a field")
        yield field, body[at : at + length]
        at += length


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            raise WireError("the command ends inside a number")
        value |= (body[at] & 0x7F) << shift
        at += 1
        if body[at - 1] < 0x80:
            return value, at
    raise WireError("the command has a number of more than ten bytes")
