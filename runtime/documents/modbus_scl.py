"""The Modbus table as SCL for Siemens S7-1200 and S7-1500: ``examples/generated/asperity_modbus.scl``."""

from __future__ import annotations

from asperity.runtime.documents.banner import MADE
from asperity.runtime.frame import Verdict
from asperity.runtime.gateways.modbus.table import STATUS, STATUS_WORDS, TABLE_VERSION, TRIGGERS, Kind, Row
from asperity.runtime.reasons import Reason
from asperity.runtime.states import READY_STATES

SCL_TYPES: dict[Kind, str] = {"u16": "UInt", "u32": "UDInt", "f32": "Real"}
FINITE = "({0} AND 16#7F80_0000) <> 16#7F80_0000"


def _both(at: int) -> str:
    return f"SHL(IN := WORD_TO_DWORD(#words[{at}]), N := 16) OR WORD_TO_DWORD(#words[{at + 1}])"


def _read(row: Row) -> str:
    if row.kind == "u16":
        return f"WORD_TO_UINT(#words[{row.address}])"
    return f"DWORD_TO_UDINT({_both(row.address)})" if row.kind == "u32" else f"DWORD_TO_REAL({_both(row.address)})"


def scl() -> str:
    """A data type and the block that reads the status registers, as ``asperity_modbus.st`` does."""
    address = {row.name: row.address for row in STATUS}
    ready = " OR ".join(f"#status.state = {int(state)}" for state in sorted(READY_STATES))
    finite = " AND ".join(FINITE.format(f"#{name}_bits") for name in ("score", "threshold"))
    return "\n".join(
        [
            f"// {MADE}",
            'TYPE "AsperityStatus"',
            "VERSION : 0.1",
            "    STRUCT",
            *(f"        {row.name} : {SCL_TYPES[row.kind]};  // {row.address}: {row.meaning}" for row in STATUS),
            "    END_STRUCT;",
            "END_TYPE",
            "",
            "// passes: this reading says so in every field; whether it is fresh and the heartbeat advances the caller",
            "// must know.",
            'FUNCTION_BLOCK "AsperityReadStatus"',
            "{ S7_Optimized_Access := 'TRUE' }",
            "VERSION : 0.1",
            "VAR_INPUT",
            f"    words : Array[0..{STATUS_WORDS - 1}] of Word;",
            "    allow_simulated : Bool;",
            "END_VAR",
            "VAR_OUTPUT",
            '    status : "AsperityStatus";',
            "    consistent : Bool;",
            "    passes : Bool;",
            "END_VAR",
            "VAR_TEMP",
            "    score_bits : DWord;",
            "    threshold_bits : DWord;",
            "END_VAR",
            "BEGIN",
            *(f"    #status.{row.name} := {_read(row)};" for row in STATUS),
            *(f"    #{name}_bits := {_both(address[name])};" for name in ("score", "threshold")),
            "    #consistent := #status.result_no = #status.result_no_copy"
            f" AND #status.table_version = {TABLE_VERSION};",
            "    #passes := #consistent AND #status.quality = 1 AND #status.accept = 1 AND #status.result_valid <> 0",
            f"        AND #status.verdict = {int(Verdict.OK)} AND #status.reason = {int(Reason.GOOD)} AND ({ready})",
            f"        AND {finite}",
            "        AND #status.score <= #status.threshold AND (#status.simulated = 0 OR #allow_simulated)",
            f"        AND (#status.trigger_id <> 0 OR #status.triggers = {TRIGGERS['free_run']});",
            "END_FUNCTION_BLOCK",
            "",
        ]
    )
