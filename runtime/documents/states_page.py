"""``docs/states.md``, from the table of states."""

from __future__ import annotations

from asperity.runtime.documents.banner import MADE
from asperity.runtime.states import ALARMS, TABLE


def page() -> str:
    """The whole page."""
    rows = [
        f"| {r.source.value} {r.source.name} | {r.cause.value} | {r.target.value} {r.target.name} | {r.meaning} |"
        for r in TABLE
    ]
    return "\n".join(
        [
            "# States of a station",
            "",
            MADE,
            "",
            "States are those of OPC UA for Machine Vision (OPC 40100-1); 4, Operational, is the parent of 5 to 8",
            "and never on the wire. Causes in brackets come from inside the station; all others are requests on",
            "the control socket, and one that has no row here is refused with code `WRONG_STATE`. Frames are",
            "judged in 8, and in 7 for the one awaited trigger; elsewhere their result is unknown with reason",
            "`NOT_RUNNING`. A receiver that meets a state it does not know rejects.",
            "",
            "| state | cause | next | what it means |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Alarms",
            "",
            "Conditions that need attention: `alarms` of every state message while they last. The details are in the",
            "event of the same code (`asperity watch event`) and in the log.",
            "",
            "| alarm | what it means, and what to do |",
            "|---|---|",
            *(f"| `{kind}` | {text} |" for kind, text in ALARMS.items()),
            "",
        ]
    )
