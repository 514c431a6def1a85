"""What HTTP and OPC UA share: results come as the station's own JSON, several at a time, and are not acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from asperity.runtime.commissioning.plc_side import U32, NoAnswer, Shown

POLL_S = 0.05
CHANGE_S = 120.0
"""Longest wait for the outcome of a recipe change."""


def shown_of(fields: Mapping[str, Any], missing: int = 0) -> Shown:
    """A result's JSON, with ``accept`` as the gateway gave it."""
    return Shown(
        number=int(fields["result_id"]) & U32,
        verdict=int(fields["verdict"]),
        reason=str(fields["reason"]),
        trigger_id=int(fields["trigger_id"]),
        part_id=str(fields["part_id"]),
        accept=fields["accept"] is True,
        recipe=str(fields["recipe"]),
        lot=str(fields["lot"]),
        order=str(fields["order"]),
        shift=str(fields["shift"]),
        simulated=bool(fields["simulated"]),
        missing_before=missing,
    )


def outcome_of_change(number: int, look: Callable[[], tuple[int, str]]) -> str:
    """``done`` or ``failed``. ``look``: number and status of the last change. Raises NoAnswer."""
    ends_s = time.monotonic() + CHANGE_S
    while time.monotonic() < ends_s:
        at, status = look()
        if at > number or (at == number and status == "failed"):
            return "failed"
        if at == number and status == "done":
            return "done"
        time.sleep(POLL_S)
    raise NoAnswer(f"the recipe change {number} has no outcome after {CHANGE_S:.0f} s")
