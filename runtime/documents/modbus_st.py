"""The Modbus table as Structured Text: ``examples/generated/asperity_modbus.st``."""

from __future__ import annotations

from asperity.runtime.documents.banner import MADE
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.modbus.table import (
    COMMANDS,
    PART,
    PART_WRITES,
    STATUS,
    STATUS_CODES,
    STATUS_WORDS,
    TABLE_VERSION,
    TRIGGERS,
    WRITES,
    Kind,
    Row,
    words_of,
)
from asperity.runtime.reasons import Reason
from asperity.runtime.states import READY_STATES

ST_TYPES: dict[Kind, str] = {
    "u16": "UINT",
    "u32": "UDINT",
    "i64": "LINT",
    "f32": "REAL",
    "text64": "length in bytes, then 64 bytes, two per register",
    "text256": "length in bytes, then 256 bytes, two per register",
}


def _read(row: Row) -> str:
    at = row.address
    if row.kind == "u16":
        return f"words[{at}]"
    both = _u32(at)
    return both if row.kind == "u32" else f"ASPERITY_REAL({both})"


def structured_text() -> str:
    """Types and the block that reads the status registers; needs ``asperity.st``. Plain IEC 61131-3."""
    address = {row.name: row.address for row in STATUS}
    ready = " OR ".join(f"status.state = {int(state)}" for state in sorted(READY_STATES))
    lines = [f"(* {MADE} *)", "", "TYPE"]
    lines += [
        f"    ASPERITY_WORDS : ARRAY[0..{STATUS_WORDS - 1}] OF UINT; (* registers from 0 on, read in one request *)"
    ]
    lines += ["    ASPERITY_STATUS : STRUCT"]
    lines += [f"        {row.name} : {ST_TYPES[row.kind]}; (* {row.address}: {row.meaning} *)" for row in STATUS]
    lines += ["    END_STRUCT;", "END_TYPE", "", "(* To write:"]
    lines += [f"   {row.address} {row.name} : {ST_TYPES[row.kind]}: {row.meaning}" for row in WRITES + PART_WRITES]
    lines += [f"   command {number}: {name}, {meaning}" for number, (name, meaning) in COMMANDS.items()]
    lines += [f"   status code {number}: {name}, {meaning}" for number, (name, meaning) in STATUS_CODES.items()]
    lines += [
        "*)",
        "",
        "(* The status block from its registers. passes: this reading says so in every field; whether it is fresh and",
        "   the heartbeat advances the caller must know. *)",
        "FUNCTION_BLOCK ASPERITY_READ_STATUS",
        "    VAR_INPUT words : ASPERITY_WORDS; allow_simulated : BOOL; END_VAR",
        "    VAR_OUTPUT status : ASPERITY_STATUS; consistent : BOOL; passes : BOOL; END_VAR",
        "    VAR score_bits : UDINT; threshold_bits : UDINT; END_VAR",
    ]
    lines += [f"    status.{row.name} := {_read(row)};" for row in STATUS]
    for name in ("score", "threshold"):
        at = address[name]
        lines += [f"    {name}_bits := UINT_TO_UDINT(words[{at}]) * 65536 + UINT_TO_UDINT(words[{at + 1}]);"]
    lines += [
        f"    consistent := status.result_no = status.result_no_copy AND status.table_version = {TABLE_VERSION};",
        "    passes := consistent AND status.quality = 1 AND status.accept = 1 AND status.result_valid <> 0",
        f"        AND status.verdict = {int(Verdict.OK)} AND status.reason = {int(Reason.GOOD)} AND ({ready})",
        "        AND ASPERITY_FINITE(score_bits) AND ASPERITY_FINITE(threshold_bits)",
        "        AND status.score <= status.threshold AND (status.simulated = 0 OR allow_simulated)",
        f"        AND (status.trigger_id <> 0 OR status.triggers = {TRIGGERS['free_run']});",
        "END_FUNCTION_BLOCK",
        "",
        *_read_part(),
    ]
    return "\n".join([*lines, ""])


def _read_part() -> list[str]:
    """The block that reads who the part of the shown result is."""
    first = PART[0].address
    at = {row.name: row.address - first for row in PART}
    number, copy = (_u32(at[name]) for name in ("part_result_no", "part_result_no_copy"))
    high, low = _u32(at["position"]), _u32(at["position"] + 2)
    return [
        "TYPE",
        f"    ASPERITY_PART_WORDS : ARRAY[0..{words_of(PART) - 1}] OF UINT; (* registers from {first} on *)",
        "    ASPERITY_PART_ID : ARRAY[0..255] OF USINT; (* UTF-8 *)",
        "END_TYPE",
        "",
        "(* Who the part of the shown result is. Read before that result is acknowledged; it is the part of the status",
        "   block's result only if result_no equals status.result_no. *)",
        "FUNCTION_BLOCK ASPERITY_READ_PART",
        "    VAR_INPUT words : ASPERITY_PART_WORDS; END_VAR",
        "    VAR_OUTPUT consistent : BOOL; result_no : UDINT; position_given : BOOL; position : LINT; END_VAR",
        "    VAR_OUTPUT id_length : UINT; id : ASPERITY_PART_ID; END_VAR",
        "    VAR n : INT; END_VAR",
        f"    result_no := {number};",
        f"    consistent := result_no = {copy} AND result_no <> 0;",
        f"    position_given := consistent AND words[{at['position_given']}] = 1;",
        f"    position := ULINT_TO_LINT(ASPERITY_U64({low}, {high}));",
        f"    id_length := words[{at['part_id']}];",
        "    FOR n := 0 TO 127 DO",
        f"        id[2 * n] := UINT_TO_USINT(words[n + {at['part_id'] + 1}] / 256);",
        f"        id[2 * n + 1] := UINT_TO_USINT(words[n + {at['part_id'] + 1}] MOD 256);",
        "    END_FOR;",
        "END_FUNCTION_BLOCK",
    ]


def _u32(at: int) -> str:
    return f"UINT_TO_UDINT(words[{at}]) * 65536 + UINT_TO_UDINT(words[{at + 1}])"
