"""The tables of ``docs/plc.md``: states, reasons, registers, tags, the words of ``asperity simulate``."""

from __future__ import annotations

from asperity.runtime.commissioning.rows import ROWS as CHECK_LIST
from asperity.runtime.commissioning.rows import reason_rows
from asperity.runtime.documents.blocks import filled
from asperity.runtime.documents.opcua_tables import tags
from asperity.runtime.engines.simulated import WORDS
from asperity.runtime.gateways.modbus.table import COMMANDS, ROWS, STATUS_CODES
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.simulation.line_faults import FAULTS
from asperity.runtime.simulation.player import LINE_WORDS
from asperity.runtime.states import JUDGING, READY_STATES, State

DUTIES = {
    State.PREOPERATIONAL: ("starting, or running its self-test", "wait"),
    State.HALTED: ("out of service, by an operator or at shutdown", "stop the line; `reset`, then `start`"),
    State.ERROR: ("the engine failed or is not responding", "stop the line; check the alarms; `reset`, then `start`"),
    State.INITIALIZED: ("no recipe", "select a recipe"),
    State.READY: ("ready, judges nothing", "`start`"),
    State.SINGLE_EXECUTION: ("waits for the one frame of a trigger", "give the trigger"),
    State.CONTINUOUS_EXECUTION: ("judges every frame", "run"),
}
"""State -> what it means at the line, what the PLC does."""


def states() -> list[str]:
    """The table of states for an automation engineer."""
    rows = [
        f"| {int(state)} | {state.name} | {'yes' if state in READY_STATES else 'no'} "
        f"| {'yes' if state in JUDGING else 'no'} | {DUTIES[state][0]} | {DUTIES[state][1]} |"
        for state in State
    ]
    head = ["| state | name | can be ready | judges | what it is | what the PLC does |", "|---|---|---|---|---|---|"]
    return [*head, "| 0 | | no | no | nothing was received from the station | stop the line |", *rows]


def reasons() -> list[str]:
    """The table of reasons, each with its word of ``asperity simulate``, which is its name."""
    verdicts = {reason: "ng" if reason in JUDGED else "unknown" for reason in Reason} | {Reason.GOOD: "ok"}
    rows = [
        f"| {int(reason)} | `{reason.name}` | {verdicts[reason]} | {reason.meaning} | {reason.remedy} |"
        for reason in Reason
    ]
    return ["| code | name | verdict | meaning | remedy |", "|---|---|---|---|---|", *rows]


def words() -> list[str]:
    """The words of the simulated engine, and of the line."""
    meanings = {**WORDS, **LINE_WORDS, **{word: fault.meaning for word, fault in FAULTS.items()}}
    rows = [f"| `{word}` | {meaning} |" for word, meaning in meanings.items()]
    return ["| word | what happens at the station |", "|---|---|", *rows]


def modbus() -> list[str]:
    """The table of registers, of commands and of status codes."""
    lines = ["| register | type | name | access | meaning |", "|---|---|---|---|---|"]
    lines += [f"| {row.address} | {row.kind} | `{row.name}` | {row.access} | {row.meaning} |" for row in ROWS]
    for title, table in (("command", COMMANDS), ("status code", STATUS_CODES)):
        lines += ["", f"| {title} | name | meaning |", "|---|---|---|"]
        lines += [f"| {number} | {name} | {meaning} |" for number, (name, meaning) in table.items()]
    return lines


def acceptance() -> list[str]:
    """The check list of ``asperity commission``; the reasons, which are many, in one line."""
    lines = ["| | row | what is done | what must be seen |", "|---|---|---|---|"]
    reasons = reason_rows()
    for row in CHECK_LIST:
        if row.key == reasons[0].key:
            seen = "its code, verdict and ids as the station says; accept 0"
            lines.append(f"| \u2610 | `reason NAME`: each reason | {row.does} | {seen} |")
        elif row not in reasons:
            lines.append(f"| \u2610 | `{row.key}`: {row.title} | {row.does} | {row.expected} |")
    return lines


def page(present: str) -> str:
    """The page as it is, with its tables generated again. Raises DataError when a block is missing from it."""
    blocks = {
        "states": states, "reasons": reasons, "modbus": modbus, "opcua": tags, "words": words, "acceptance": acceptance,
    }  # fmt: skip
    return filled(present, blocks)
