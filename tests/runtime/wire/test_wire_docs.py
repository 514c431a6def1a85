"""docs/wire.md is the authority: its tables and the code say the same."""

from __future__ import annotations

import struct

import msgspec
import pytest

from asperity.runtime import wire
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import bulk, clocks, common, control, counters, frame, record, result, state
from tests.places import ROOT

PAGE = (ROOT / "docs" / "wire.md").read_text()


def table(heading: str) -> list[list[str]]:
    """Cells of the first table after a heading, without its head."""
    lines = PAGE.split(f"{heading}\n", maxsplit=1)[1].splitlines()
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows or line.startswith("#"):
            break
    assert len(rows) > 2, f"no table under {heading}"
    return rows[2:]


def heading(start: str) -> str:
    return next(line for line in PAGE.splitlines() if line.startswith(start))


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        ("### Header", frame.FrameHeader),
        ("### Stream", frame.Stream),
        ("### Intrinsics", frame.IntrinsicsMessage),
        ("## Result:", result.ResultMessage),
        ("### Region", result.RegionMessage),
        ("### View", result.ViewMessage),
        ("## State:", state.StationState),
        ("### Recipe change", state.RecipeChange),
        ("### Clocks", clocks.Clocks),
        ("### Computer clock", clocks.ComputerClock),
        ("### Camera clock", clocks.CameraClock),
        ("## Event:", state.Event),
        ("## Trigger:", state.Trigger),
        ("## Counters:", counters.Counters),
        ("### Counter row", counters.CounterRow),
        ("## Bulk:", bulk.BulkHeader),
        ("### Request", control.Request),
        ("### Reply", control.Reply),
    ],
)
def test_field_tables_are_the_types(start: str, kind: type[msgspec.Struct]) -> None:
    assert [row[0] for row in table(heading(start))] == [field.encode_name for field in msgspec.structs.fields(kind)]


def test_reasons_are_the_enum() -> None:
    expected = [[str(int(reason)), reason.name, reason.meaning, reason.remedy] for reason in Reason]
    assert table("### Reasons") == expected


def test_operations_and_codes_are_the_tables_of_the_code() -> None:
    assert table("### Operations") == [
        [name, " ".join(op.required), " ".join(op.optional), "yes" if op.long else "", op.meaning]
        for name, op in wire.OPERATIONS.items()
    ]
    assert table("### Codes") == [[code, meaning] for code, meaning in wire.CODES.items()]


def test_states_are_the_enum() -> None:
    assert [row[:2] for row in table("### States")] == [[str(int(member)), member.name] for member in wire.State]


def test_limits_are_the_constants() -> None:
    for name, value, _ in table("## Limits"):
        assert getattr(wire if hasattr(wire, name) else common, name) == int(value), name


def test_record_offsets_are_the_layout() -> None:
    codes = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "f32": "f"}
    rows = table(heading("## Record:"))
    offset = 0
    for at, kind, _, _ in rows:
        size = struct.calcsize(codes[kind])
        assert int(at) == offset and offset % size == 0
        offset += size
    assert offset == wire.RECORD_BYTES
    names = [row[2] for row in rows]
    assert names == ["magic", *record.Record.__dataclass_fields__, "crc"]
