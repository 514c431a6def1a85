"""Constants for receivers in other languages, made from the one list of each: ``examples/generated``.

Codes come from ``runtime.reasons``, states from ``runtime.states``, verdicts from ``runtime.frame``, the record's
layout from ``runtime.wire.record``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from asperity.runtime.documents.banner import MADE
from asperity.runtime.frame import Verdict
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.states import READY_STATES, State
from asperity.runtime.wire import record
from asperity.runtime.wire.common import VERSION


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


def _st_read(kind: str, at: int) -> str:
    """The value of that kind that begins at byte ``at``, in Structured Text."""
    if kind == "u8":
        return f"bytes[{at}]"
    if kind in ("u64", "i64"):
        whole = f"ASPERITY_U64({_st_read('u32', at)}, {_st_read('u32', at + 4)})"
        return whole if kind == "u64" else f"ULINT_TO_LINT({whole})"
    if kind == "f32":
        return f"ASPERITY_REAL({_st_read('u32', at)})"
    nbytes = int(kind[1:]) // 8
    return f"ASPERITY_{kind.upper()}({', '.join(f'bytes[{n}]' for n in range(at, at + nbytes))})"


ST_FUNCTIONS = """\
FUNCTION ASPERITY_FINITE : BOOL (* the bits of an f32: neither infinite nor NaN *)
    VAR_INPUT bits : UDINT; END_VAR
    ASPERITY_FINITE := (bits / 8388608) MOD 256 <> 255;
END_FUNCTION

FUNCTION ASPERITY_REAL : REAL (* the bits of a finite f32 as a number, by sums alone: no overlay, any CPU *)
    VAR_INPUT bits : UDINT; END_VAR
    VAR exponent : INT; fraction : REAL; END_VAR
    exponent := UDINT_TO_INT((bits / 8388608) MOD 256);
    fraction := UDINT_TO_REAL(bits MOD 8388608) / 8388608.0;
    IF exponent = 255 THEN
        fraction := 0.0;
    ELSIF exponent = 0 THEN
        fraction := fraction * EXPT(2.0, -126);
    ELSE
        fraction := (1.0 + fraction) * EXPT(2.0, exponent - 127);
    END_IF;
    IF bits >= 2147483648 THEN
        fraction := 0.0 - fraction;
    END_IF;
    ASPERITY_REAL := fraction;
END_FUNCTION

FUNCTION ASPERITY_U16 : UINT (* from its bytes, the lowest first *)
    VAR_INPUT b0 : USINT; b1 : USINT; END_VAR
    ASPERITY_U16 := USINT_TO_UINT(b0) + USINT_TO_UINT(b1) * 256;
END_FUNCTION

FUNCTION ASPERITY_U32 : UDINT
    VAR_INPUT b0 : USINT; b1 : USINT; b2 : USINT; b3 : USINT; END_VAR
    ASPERITY_U32 := UINT_TO_UDINT(ASPERITY_U16(b0, b1)) + UINT_TO_UDINT(ASPERITY_U16(b2, b3)) * 65536;
END_FUNCTION

FUNCTION ASPERITY_U64 : ULINT
    VAR_INPUT low : UDINT; high : UDINT; END_VAR
    ASPERITY_U64 := UDINT_TO_ULINT(low) + UDINT_TO_ULINT(high) * 4294967296;
END_FUNCTION

(* A record from its bytes. passes: the record says so in every field; whether the station can be trusted (its heartbeat
   advances, its session is the current one) the caller must know. *)
FUNCTION_BLOCK ASPERITY_READ_RECORD
    VAR_INPUT bytes : ASPERITY_BYTES; allow_simulated : BOOL; END_VAR
    VAR_OUTPUT record : ASPERITY_RECORD; valid : BOOL; simulated : BOOL; passes : BOOL; END_VAR
    VAR crc : DWORD; i : INT; k : INT; END_VAR"""


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
    "VIEW": record.FLAG_VIEW,
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
    reasons += ['    default: return "?"; /* unknown: reject */', "    }", "}"]
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
    """``asperity_constants.py``: no import, any Python 3."""
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


def global_list() -> str:
    """``asperity_gvl.st``: a global variable list, for CODESYS, TwinCAT and their relatives."""
    lines = [f"(* {MADE} *)", "VAR_GLOBAL CONSTANT"]
    lines += [f"    ASPERITY_{name} : UDINT := {number};" for name, number in NUMBERS.items()]
    for enum, members in _enums():
        kind = "UINT" if enum == "REASON" else "USINT"
        lines += [
            f"    ASPERITY_{enum}_{name} : {kind} := {number};{f' (* {why} *)' if why else ''}"
            for name, number, why in members
        ]
    return "\n".join([*lines, "END_VAR", ""])


def structured_text() -> str:
    """``asperity.st``: the record's STRUCT and a block that reads it from bytes, in plain IEC 61131-3."""
    fields = record_fields()
    ready = " OR ".join(f"record.state = {int(state)}" for state in sorted(READY_STATES))
    lines = [f"(* {MADE} *)", "", "TYPE", "    ASPERITY_BYTES : ARRAY[0..63] OF USINT;"]
    lines += ["    (* 64 bytes, little endian, every field aligned to its size. *)", "    ASPERITY_RECORD : STRUCT"]
    lines += [f"        {field.name} : {ST_TYPES[field.kind]}; (* offset {field.offset} *)" for field in fields]
    lines += ["    END_STRUCT;", "END_TYPE", "", ST_FUNCTIONS]
    lines += [f"    record.{field.name} := {_st_read(field.kind, field.offset)};" for field in fields]
    lines += [
        "    crc := DWORD#16#FFFFFFFF;",
        "    FOR i := 0 TO 59 DO",
        "        crc := crc XOR USINT_TO_DWORD(bytes[i]);",
        "        FOR k := 1 TO 8 DO",
        "            IF (crc AND DWORD#16#00000001) = DWORD#16#00000001 THEN",
        "                crc := SHR(crc, 1) XOR DWORD#16#EDB88320;",
        "            ELSE",
        "                crc := SHR(crc, 1);",
        "            END_IF;",
        "        END_FOR;",
        "    END_FOR;",
        f"    valid := record.magic = {record.RECORD_MAGIC} AND record.version = {record.RECORD_VERSION}",
        "        AND record.crc = DWORD_TO_UDINT(NOT crc);",
        f"    simulated := (record.flags / {record.FLAG_SIMULATED}) MOD 2 <> 0;",
        f"    passes := valid AND (record.flags / {record.FLAG_ACCEPT}) MOD 2 = 1",
        f"        AND record.verdict = {int(Verdict.OK)} AND record.reason_code = {int(Reason.GOOD)} AND ({ready})",
        *(f"        AND ASPERITY_FINITE({_st_read('u32', field.offset)})" for field in fields if field.kind == "f32"),
        "        AND record.score <= record.threshold AND (allow_simulated OR NOT simulated);",
        "END_FUNCTION_BLOCK",
    ]
    return "\n".join([*lines, ""])


def _c_comment(why: str) -> str:
    return f" /* {why} */" if why else ""
