"""Fills the tables of ``docs/plc.md``: ``python -m asperity.runtime.documents.plc_page docs/plc.md``."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from asperity.runtime.engines.simulated import WORDS
from asperity.runtime.errors import DataError
from asperity.runtime.gateways.modbus import table as modbus_table
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
_BLOCK = re.compile(r"(<!-- made: ([a-z]+) -->\n).*?(<!-- end -->)", re.S)


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


def _opcua() -> list[str]:
    from asperity.runtime.gateways.opcua import tags as opcua_tags

    return opcua_tags.document().rstrip().splitlines()


BLOCKS: dict[str, Callable[[], list[str]]] = {
    "states": states,
    "reasons": reasons,
    "words": words,
    "modbus": modbus_table.document,
    "opcua": _opcua,
}


def filled(page: str) -> str:
    """``page`` with every block generated again. Raises DataError when one of them is missing from it."""
    found = [match[1] for match in _BLOCK.findall(page)]
    if sorted(found) != sorted(BLOCKS):
        raise DataError(f"the page has the blocks {', '.join(found)}; it must have {', '.join(BLOCKS)}, each once")
    return _BLOCK.sub(lambda match: match[1] + "\n".join(BLOCKS[match[2]]()) + "\n" + match[3], page)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
