"""The assemblies in one place: source of the gateway, of docs/plc.md, of the EDS file and of the tests.

They are made of the rows of the Modbus table: the same names, types and meanings, little-endian as CIP has numbers. A
number of four bytes begins at a multiple of four, as the user-defined types of controllers want it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from asperity.runtime.gateways.modbus.table import FORMATS, STATUS, WORDS, WRITES, Row

WRITE_STATUS: dict[int, tuple[str, str]] = {
    0: ("NONE", "nothing has been written since the gateway started"),
    1: ("TAKEN", "taken"),
    2: ("REFUSED", "a value that is not allowed; nothing of that write was done"),
    3: ("BUSY", "the last request of that kind is still pending; nothing was done, write it again"),
    4: ("NOT_ALLOWED", "[gateway] commands is false; nothing was done"),
    5: ("IDLE", "the controller is in program mode; nothing was done"),
}
"""Value of ``write_status`` -> name, meaning."""
WRITE_STATUS_OF_NAME = {name: number for number, (name, _) in WRITE_STATUS.items()}

_AFTER_STATUS = STATUS[-1].address + WORDS[STATUS[-1].kind]
WRITE_STATUS_ROW = Row(
    "write_status", _AFTER_STATUS, "u16", "r", "outcome of the last write to assembly 150 or 151 (table below)"
)
_SHARED = ("beat", "quality", "state")
_RESULT = (
    "beat", "accept", "quality", "state", "result_valid", "verdict", "reason", "waiting", "result_no", "seq",
    "trigger_id", "part_number", "score", "threshold", "latency_us", "missing_before", "deadline_missed", "simulated",
    "result_recipe", "triggers", "result_no_copy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """A row and the byte where it begins."""

    row: Row
    offset: int


@dataclass(frozen=True, slots=True)
class Assembly:
    """One instance of the assembly object."""

    instance: int
    name: str
    meaning: str
    places: tuple[Place, ...]
    writable: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """The fields in order."""
        return tuple(place.row for place in self.places)

    @property
    def nbytes(self) -> int:
        """A multiple of four, or what a single field has."""
        end = self.places[-1].offset + 2 * WORDS[self.places[-1].row.kind]
        return end if len(self.places) == 1 else (end + 3) // 4 * 4

    def encode(self, values: Mapping[str, int | float]) -> bytes:
        """Its data. A u16 or u32 keeps the low bits of its value."""
        data = bytearray(self.nbytes)
        for place in self.places:
            kind, value = place.row.kind, values[place.row.name]
            number = value if kind == "f32" else int(value) & (0xFFFF if kind == "u16" else 0xFFFFFFFF)
            struct.pack_into(f"<{FORMATS[kind]}", data, place.offset, number)
        return bytes(data)

    def decode(self, data: bytes) -> dict[str, int | float]:
        """The values in its data, which has exactly ``nbytes``."""
        return {
            place.row.name: struct.unpack_from(f"<{FORMATS[place.row.kind]}", data, place.offset)[0]
            for place in self.places
        }


def _placed(rows: tuple[Row, ...]) -> tuple[Place, ...]:
    places, at = [], 0
    for row in rows:
        nbytes = 2 * WORDS[row.kind]
        at += -at % nbytes
        places.append(Place(row, at))
        at += nbytes
    return tuple(places)


ALL = Assembly(
    100, "status", "result and station in one moment: read this one, and no other is needed",
    _placed((*STATUS, WRITE_STATUS_ROW)),
)  # fmt: skip
RESULT = Assembly(
    101, "result", "the shown result alone", _placed(tuple(row for row in STATUS if row.name in _RESULT))
)
STATE = Assembly(
    102, "state", "the station and the requests alone",
    _placed((*(row for row in STATUS if row.name in _SHARED or row.name not in _RESULT), WRITE_STATUS_ROW)),
)  # fmt: skip
COMMAND = Assembly(150, "command", "acknowledgement, commands, triggers and recipes", _placed(WRITES), writable=True)
ACKNOWLEDGE = Assembly(
    151, "acknowledge", "result_ack alone, for explicit messages", _placed(WRITES[:1]), writable=True
)
ASSEMBLIES = {assembly.instance: assembly for assembly in (ALL, RESULT, STATE, COMMAND, ACKNOWLEDGE)}
PRODUCED = (ALL, RESULT, STATE)
"""What a cyclic connection can bring to the controller."""
CONFIGURATION, INPUT_ONLY = 1, 254
"""Instances that a cyclic connection names and that hold nothing: its configuration, and what a controller that only
listens sends to keep its connection."""
