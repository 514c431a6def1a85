"""Registers of who a part is: of the shown result, of the triggered part, and what the station counts."""

from __future__ import annotations

from typing import Any

from asperity.runtime.gateways.link import View
from asperity.runtime.gateways.modbus.table import (
    BATCH,
    COUNTED_REASONS,
    COUNTS,
    PART,
    PART_WRITES,
    WORDS,
    Row,
    Value,
    pack,
    text_of,
    unpack,
    words_of,
)
from asperity.runtime.text.part_identity import Batch
from asperity.runtime.wire import ReceivedResult

U32 = 0xFFFFFFFF
FIRST, COUNT = PART_WRITES[0].address, words_of(PART_WRITES)
_ROW = {row.name: row for row in PART_WRITES}


def shown_block(rows: tuple[Row, ...], result: ReceivedResult | None) -> bytes:
    """PART or BATCH of the shown result; zeros without one."""
    values: dict[str, Value] = {row.name: b"" if row.kind.startswith("text") else 0 for row in rows}
    if result is not None:
        known: dict[str, Value] = {name: getattr(result, name).encode() for name in ("part_id", *Batch._fields)}
        known |= {"position_given": result.position is not None, "position": result.position or 0}
        known |= dict.fromkeys(_NUMBERS, result.result_id)
        values = {name: known[name] for name in values}
    return pack(rows, values)


def counts_block(view: View) -> bytes:
    """COUNTS; zeros while nothing was heard."""
    counters, state = view.counters, view.state
    if counters is None or state is None:
        return pack(COUNTS, dict.fromkeys((row.name for row in COUNTS), 0))
    batch = counters.row(state.recipe, state.lot, state.shift)
    values = {f"counted_{reason}": counters.by_reason.get(reason, 0) for reason in COUNTED_REASONS}
    values["counter_resets"] = counters.resets
    for name, tally in (("counted", counters), ("batch", batch)):
        values |= {f"{name}_ok": tally.ok, f"{name}_ng": tally.ng, f"{name}_unknown": tally.unknown}
    return pack(COUNTS, values)


_NUMBERS = tuple(row.name for row in (*PART, *BATCH) if "result_no" in row.name)


class PartWrites:
    """What was written to PART_WRITES. Texts may be written in parts, numbers only whole."""

    def __init__(self) -> None:
        self._registers = bytearray(2 * COUNT)

    def read(self, first: int, count: int) -> bytes:
        """Registers from ``first`` on, counted from the block's own first."""
        return bytes(self._registers[2 * first : 2 * (first + count)])

    def write(self, first: int, words: list[int]) -> bool:
        """False: it would change half a number."""
        for row in PART_WRITES:
            begins, whole = row.address - FIRST, WORDS[row.kind]
            overlap = len(range(max(first, begins), min(first + len(words), begins + whole)))
            if 0 < overlap < whole and not row.kind.startswith("text"):
                return False
        self._registers[2 * first : 2 * (first + len(words))] = b"".join(word.to_bytes(2, "big") for word in words)
        return True

    def of_trigger(self, trigger_id: int) -> dict[str, Any] | None:
        """Fields of the request for this trigger, if they were written for it; None: they cannot be read."""
        if self._number("part_for") != trigger_id:
            return {}
        fields: dict[str, Any] = {}
        if self._number("trigger_position_given"):
            fields["position"] = self._number("trigger_position")
        part_id = self._text("trigger_part_id")
        if part_id:
            fields["part_id"] = part_id
        return None if part_id is None else fields

    def batch(self) -> dict[str, Any] | None:
        """Fields of ``set_batch``; None: they cannot be read."""
        fields = {name: self._text(f"set_{name}") for name in Batch._fields}
        return None if None in fields.values() else fields

    def _cut(self, row: Row) -> bytes:
        return self.read(row.address - FIRST, WORDS[row.kind])

    def _number(self, name: str) -> int:
        return int(unpack((_ROW[name],), self._cut(_ROW[name]))[name])

    def _text(self, name: str) -> str | None:
        """None where it is longer than its registers, or not UTF-8."""
        found = text_of(_ROW[name], self._cut(_ROW[name]))
        try:
            return None if found is None else found.decode()
        except UnicodeDecodeError:
            return None
