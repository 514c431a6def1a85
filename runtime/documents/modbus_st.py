"""The Modbus table as Structured Text: ``examples/generated/asperity_modbus.st``."""

from __future__ import annotations

from asperity.runtime.documents.banner import MADE
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.modbus.table import (
    COMMANDS,
    STATUS,
    STATUS_CODES,
    STATUS_WORDS,
    TABLE_VERSION,
    TRIGGERS,
    WRITES,
    Kind,
    Row,
)
from asperity.runtime.reasons import Reason
from asperity.runtime.states import READY_STATES

ST_TYPES: dict[Kind, str] = {"u16": "UINT", "u32": "UDINT", "f32": "REAL"}


def _read(row: Row) -> str:
    at = row.address
    if row.kind == "u16":
        return f"words[{at}]"
    both = f"UINT_TO_UDINT(words[{at}]) * 65536 + UINT_TO_UDINT(words[{at + 1}])"
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
    lines += [f"   {row.address} {row.name} : {ST_TYPES[row.kind]}: {row.meaning}" for row in WRITES]
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
    ]
    return "\n".join([*lines, ""])
