"""The table of ``docs/plc/profinet.md``: the Modbus block as input and output bytes of a converter."""

from __future__ import annotations

from asperity.runtime.documents.blocks import filled
from asperity.runtime.gateways.modbus.table import STATUS, WRITE_ADDRESS, WRITES

S7_TYPES = {"u16": "Word", "u32": "DWord", "f32": "Real"}


def modules() -> list[str]:
    """Each register that belongs into the cycle, by its byte in the module."""
    lines = []
    for module, rows, first in (("input", STATUS, 0), ("output", WRITES, WRITE_ADDRESS)):
        lines += ["", f"| byte of the {module} module | register | S7 type | name |", "|---|---|---|---|"]
        lines += [
            f"| {2 * (row.address - first)} | {row.address} | {S7_TYPES[row.kind]} | `{row.name}` |" for row in rows
        ]
    return lines[1:]


def page(present: str) -> str:
    """The page as it is, with its table generated again. Raises DataError when the block is missing from it."""
    return filled(present, {"profinet": modules})
