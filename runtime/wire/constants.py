"""Constants for receivers in other languages, made from the one list of each: ``examples/generated/asperity.*``.

    python -m runtime.wire.constants examples/generated

Codes come from ``runtime.reasons``, states from ``runtime.states``, verdicts from ``runtime.frame``, the record's
layout from ``runtime.wire.record``. A test holds that the committed files are current.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from runtime.frame import Verdict
from runtime.reasons import JUDGED, Reason
from runtime.states import READY_STATES, State
from runtime.wire import record
from runtime.wire.common import VERSION

MADE = "Made from the Python sources by `python -m runtime.wire.constants`; do not edit."


class RecordField(NamedTuple):
    """One field of the 64-byte record."""

    name: str
    offset: int
    kind: str
    """u8 u16 u32 u64 i64 f32, little endian."""


KINDS = {
    "B": ("u8", 1),
    "H": ("u16", 2),
    "I": ("u32", 4),
    "Q": ("u64", 8),
    "q": ("i64", 8),
    "f": ("f32", 4),
}
"""Letter of ``struct`` -> (kind, bytes)."""
C_TYPES = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i64": "int64_t", "f32": "float"}
ST_TYPES = {"u8": "USINT", "u16": "UINT", "u32": "UDINT", "u64": "ULINT", "i64": "LINT", "f32": "REAL"}


def record_fields() -> list[RecordField]:
    """The fields of the record in order, from the layout that packs it."""
    names = ["magic", *record.Record.__dataclass_fields__, "crc"]
    letters = [
        letter
        for repeats, letter in re.findall(r"(\d*)([A-Za-z])", record.LAYOUT.format + "I")
        for _ in range(int(repeats or 1))
    ]
    fields, offset = [], 0
    for name, letter in zip(names, letters, strict=True):
        kind, nbytes = KINDS[letter]
        fields.append(RecordField(name, offset, kind))
        offset += nbytes
    assert offset == record.RECORD_BYTES
    return fields


FLAGS = {
    "ACCEPT": record.FLAG_ACCEPT,
    "DEADLINE_MISSED": record.FLAG_DEADLINE_MISSED,
    "SIMULATED": record.FLAG_SIMULATED,
}
NUMBERS = {
    "WIRE_VERSION": VERSION,
    "RECORD_BYTES": record.RECORD_BYTES,
    "RECORD_MAGIC": record.RECORD_MAGIC,
    "RECORD_VERSION": record.RECORD_VERSION,
}


def _enums() -> Iterator[tuple[str, list[tuple[str, int, str]]]]:
    """(name, [(member, number, meaning)])."""
    kinds: list[tuple[str, type[IntEnum]]] = [("VERDICT", Verdict), ("STATE", State), ("REASON", Reason)]
    for name, kind in kinds:
        yield name, [(member.name, int(member), getattr(member, "meaning", "")) for member in kind]
    yield "FLAG", [(name, number, "") for name, number in FLAGS.items()]


def _sets() -> Iterator[tuple[str, str]]:
    """(name, members as numbers with commas)."""
    sets: list[tuple[str, frozenset[IntEnum]]] = [
        ("READY_STATES", frozenset(READY_STATES)),
        ("JUDGED", frozenset(JUDGED)),
    ]
    for name, members in sets:
        yield name, ", ".join(str(int(member)) for member in sorted(members))


def c_header() -> str:
    """``asperity.h``: C11."""
    lines = [
        f"/* {MADE} */",
        "#ifndef ASPERITY_H",
        "#define ASPERITY_H",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
    ]
    lines += [f"#define ASPERITY_{name} {number}u" for name, number in NUMBERS.items()]
    for enum, members in _enums():
        lines += ["", f"enum asperity_{enum.lower()} {{"]
        lines += [f"    ASPERITY_{enum}_{name} = {number},{_c_comment(why)}" for name, number, why in members]
        lines += ["};"]
    lines += ["", "/* A record as it comes over the wire, on a little-endian machine. */", "struct asperity_record {"]
    lines += [f"    {C_TYPES[field.kind]} {field.name};" for field in record_fields()]
    lines += ["};", '_Static_assert(sizeof(struct asperity_record) == ASPERITY_RECORD_BYTES, "record");']
    lines += [
        f'_Static_assert(offsetof(struct asperity_record, {field.name}) == {field.offset}, "{field.name}");'
        for field in record_fields()
    ]
    reasons = ["", "static inline const char *asperity_reason_name(unsigned code) {", "    switch (code) {"]
    reasons += [f'    case {int(reason)}: return "{reason.name}";' for reason in Reason]
    reasons += ['    default: return "?"; /* not known here: reject */', "    }", "}"]
    return "\n".join([*lines, *reasons, "", "#endif", ""])


def node_module() -> str:
    """``asperity.mjs``."""
    lines = [f"// {MADE}"]
    lines += [f"export const {name} = {number};" for name, number in NUMBERS.items()]
    for enum, members in _enums():
        lines += ["", f"export const {enum} = Object.freeze({{"]
        lines += [f"  {name}: {number},{'  // ' + why if why else ''}" for name, number, why in members]
        lines += ["});"]
    lines += ["", "// [name, offset, kind]", "export const RECORD = Object.freeze(["]
    lines += [f'  ["{field.name}", {field.offset}, "{field.kind}"],' for field in record_fields()]
    lines += ["]);", ""]
    lines += [f"export const {name} = Object.freeze([{numbers}]);" for name, numbers in _sets()]
    return "\n".join([*lines, ""])


def python_module() -> str:
    """``asperity.py``: no import, any Python 3."""
    lines = [f'"""{MADE}"""', ""]
    lines += [f"{name} = {number}" for name, number in NUMBERS.items()]
    for enum, members in _enums():
        lines += ["", f"{enum} = {{"]
        lines += [f'    "{name}": {number},{"  # " + why if why else ""}' for name, number, why in members]
        lines += ["}"]
    lines += ["", "# struct format of the record and the names of its fields"]
    lines += [f'RECORD_FORMAT = "{record.LAYOUT.format}I"', "RECORD = ["]
    lines += [f'    "{field.name}",' for field in record_fields()]
    lines += ["]", *(f"{name} = ({numbers})" for name, numbers in _sets())]
    return "\n".join([*lines, ""])


def structured_text() -> str:
    """``asperity.st``: a global variable list and the record's STRUCT, for CODESYS and its relatives."""
    lines = [f"(* {MADE} *)", "", "VAR_GLOBAL CONSTANT"]
    lines += [f"    ASPERITY_{name} : UDINT := {number};" for name, number in NUMBERS.items()]
    for enum, members in _enums():
        kind = "UINT" if enum == "REASON" else "USINT"
        lines += [
            f"    ASPERITY_{enum}_{name} : {kind} := {number};{f' (* {why} *)' if why else ''}"
            for name, number, why in members
        ]
    lines += [
        "END_VAR",
        "",
        "(* 64 bytes, little endian, every field aligned to its size. *)",
        "TYPE ASPERITY_RECORD :",
    ]
    lines += ["STRUCT"]
    lines += [f"    {field.name} : {ST_TYPES[field.kind]}; (* offset {field.offset} *)" for field in record_fields()]
    return "\n".join([*lines, "END_STRUCT", "END_TYPE", ""])


FILES = {
    "asperity.h": c_header,
    "asperity.mjs": node_module,
    "asperity.py": python_module,
    "asperity.st": structured_text,
}


def _c_comment(why: str) -> str:
    return f" /* {why} */" if why else ""


def main() -> None:
    """Write every file into the folder named."""
    folder = Path(sys.argv[1])
    for name, make in FILES.items():
        (folder / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
