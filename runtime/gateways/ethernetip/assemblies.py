"""The assemblies in one place: source of the gateway, of docs/plc.md, of the EDS file and of the tests.

They are made of the rows of the Modbus table: the same names, types and meanings, little-endian as CIP has numbers. A
number begins at a multiple of its length, as the user-defined types of controllers want it.
"""

from __future__ import annotations

from dataclasses import dataclass

from asperity.runtime.gateways.modbus.table import (
    BATCH,
    CLOCKS,
    COUNTS,
    PART,
    PART_WRITES,
    PLC_TIME,
    STATUS,
    WORDS,
    WRITES,
    Row,
)

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


TEXT_LENGTH_NBYTES = 4
"""A text has a length of four bytes in front, as the string types of controllers have it; of two in registers."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row and the byte where it begins."""

    row: Row
    offset: int


@dataclass(frozen=True, slots=True)
class Assembly:
    """One instance of the assembly object: rows of a block of registers."""

    instance: int
    name: str
    meaning: str
    block: tuple[Row, ...]
    """Rows that follow each other, of which these are some or all."""
    places: tuple[Place, ...]
    writable: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """The fields in order."""
        return tuple(place.row for place in self.places)

    @property
    def nbytes(self) -> int:
        """A multiple of four, or what a single field has."""
        end = self.places[-1].offset + nbytes_of(self.places[-1].row)
        return end if len(self.places) == 1 else (end + 3) // 4 * 4

    def from_registers(self, registers: bytes) -> bytes:
        """Its data, from the registers of its block and of what follows it."""
        data, first = bytearray(self.nbytes), self.block[0].address
        for place in self.places:
            begin = 2 * (place.row.address - first)
            cut = registers[begin : begin + 2 * WORDS[place.row.kind]]
            field = cut[1::-1] + bytes(2) + cut[2:] if _is_text(place.row) else cut[::-1]
            data[place.offset : place.offset + len(field)] = field
        return bytes(data)

    def to_registers(self, data: bytes) -> bytes | None:
        """The registers of its rows, which follow each other; ``data`` has exactly ``nbytes``. None: a text claims a
        length that no register holds."""
        registers = b""
        for place in self.places:
            field = data[place.offset : place.offset + nbytes_of(place.row)]
            if not _is_text(place.row):
                registers += field[::-1]
                continue
            if any(field[2:TEXT_LENGTH_NBYTES]):
                return None
            registers += field[1::-1] + field[TEXT_LENGTH_NBYTES:]
        return registers


def nbytes_of(row: Row) -> int:
    """What a field takes up."""
    return 2 * WORDS[row.kind] + (TEXT_LENGTH_NBYTES - 2 if _is_text(row) else 0)


def _is_text(row: Row) -> bool:
    return row.kind.startswith("text")


def _placed(rows: tuple[Row, ...]) -> tuple[Place, ...]:
    places, at = [], 0
    for row in rows:
        nbytes = nbytes_of(row)
        at += -at % (TEXT_LENGTH_NBYTES if _is_text(row) else nbytes)
        places.append(Place(row, at))
        at += nbytes
    return tuple(places)


ALL = Assembly(
    100, "status", "result and station in one moment: read this one, and no other is needed", STATUS,
    _placed((*STATUS, WRITE_STATUS_ROW)),
)  # fmt: skip
RESULT = Assembly(
    101, "result", "the shown result alone", STATUS, _placed(tuple(row for row in STATUS if row.name in _RESULT))
)
STATE = Assembly(
    102, "state", "the station and the requests alone", STATUS,
    _placed((*(row for row in STATUS if row.name in _SHARED or row.name not in _RESULT), WRITE_STATUS_ROW)),
)  # fmt: skip
COMMAND = Assembly(
    150, "command", "acknowledgement, commands, triggers and recipes", WRITES, _placed(WRITES), writable=True
)
ACKNOWLEDGE = Assembly(
    151, "acknowledge", "result_ack alone, for explicit messages", WRITES, _placed(WRITES[:1]), writable=True
)
SHOWN_PART = Assembly(103, "part", "who the part of the shown result is", PART, _placed(PART))
SHOWN_BATCH = Assembly(104, "batch", "lot, order and shift of that part", BATCH, _placed(BATCH))
COUNTED = Assembly(105, "counters", "what the station counts, through restarts", COUNTS, _placed(COUNTS))
TRIGGERED_PART = Assembly(
    152, "part of a trigger", "position and part id of the next trigger; lot, order and shift for command 8",
    PART_WRITES, _placed(PART_WRITES), writable=True,
)  # fmt: skip
SHOWN_CLOCKS = Assembly(
    110, "clocks", "the station's time, and what is known of each clock", CLOCKS, _placed(CLOCKS)
)
PLC_CLOCK = Assembly(
    160, "time of the PLC", "UTC by the controller's clock", PLC_TIME, _placed(PLC_TIME), writable=True
)
ASSEMBLIES = {
    assembly.instance: assembly
    for assembly in (
        ALL, RESULT, STATE, SHOWN_PART, SHOWN_BATCH, COUNTED, SHOWN_CLOCKS, COMMAND, ACKNOWLEDGE, TRIGGERED_PART,
        PLC_CLOCK,
    )
}  # fmt: skip
PRODUCED = (ALL, RESULT, STATE)
"""What a cyclic connection can bring to the controller."""
CONFIGURATION, INPUT_ONLY = 1, 254
"""Instances that a cyclic connection names and that hold nothing: its configuration, and what a controller that only
listens sends to keep its connection."""
