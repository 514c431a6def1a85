"""The check list: every row in order, for the program that walks through it and for docs/plc.md."""

from __future__ import annotations

from asperity.runtime.commissioning.faults import (
    beat_stops,
    cable_pulled,
    falls_on_beat_loss,
    gateway_lost,
    inspector_killed,
)
from asperity.runtime.commissioning.identities import batch_echoed, busy, no_frame, used_id, wrong_id
from asperity.runtime.commissioning.parts import (
    bad_part,
    beat,
    counters_reset,
    each_once,
    good_part,
    halt,
    handshake,
    hold,
    identity,
    reason,
    recipe_fails,
    refused,
    simulated_results,
    whole_run,
)
from asperity.runtime.commissioning.walk import Row
from asperity.runtime.reasons import Reason

HOLD_MS = 1500
"""Of the gateway in the row ``hold``."""
ELSEWHERE = (Reason.NOT_JUDGED, Reason.GOOD, Reason.NO_FRAME, Reason.VIEW_MISSING, Reason.VIEW_CONFLICT)
"""Never a result's reason, with a row of its own, or of a combined station alone (docs/plc.md)."""
LAST = (Reason.AMBIGUOUS, Reason.UNSYNCED)
"""The simulation needs hard-wired triggers for these, and a new start."""


def _of_reason(each: Reason) -> Row:
    return Row(
        f"reason {each.name}", f"Reason {int(each)} {each.name}", "it is brought about as on a line",
        f"reason {int(each)}, verdict and ids as the station says, accept 0", reason(each),
    )  # fmt: skip


ROWS: tuple[Row, ...] = (
    Row(
        "identity", "Identity and table version", "read once",
        "layout version, session, trigger mode and recipe are the station's", identity,
    ),
    Row("beat", "Heartbeat", "read in each cycle", "it advances", beat),
    Row(
        "good", "Good part", "a good part with a trigger", "accept 1, with the part's own trigger id and part id",
        good_part,
    ),
    Row(
        "bad", "Bad part after a good one", "a good part, then a bad one",
        "accept 1, then 0 with the bad part; verdict ng", bad_part,
    ),
    Row(
        "halt", "Station out of service", "halt while a good part is shown; then reset and start",
        "accept 0 with quality 0, and it stays 0", halt,
    ),
    Row(
        "beat_stops", "Heartbeat of a station that hangs", "the inspector stands still",
        "the heartbeat stops and quality is 0", beat_stops,
    ),
    Row(
        "accept_beat", "Accept without heartbeat", "the inspector stands still while a good part is shown",
        "accept 0 with quality 0, and it stays 0", falls_on_beat_loss,
    ),
    Row(
        "restart", "Inspector killed and restarted", "kill -9 while a part is being inspected, then a start",
        "accept 0; a new session; the part RESTARTED with accept 0; then good parts again", inspector_killed,
    ),
    Row(
        "cable", "Cable pulled", "the cable between PLC and gateway is pulled and plugged in again",
        "no answer within the PLC's timeout; then no result lost and none twice", cable_pulled,
    ),
    Row(
        "wrong_id", "Wrong trigger id", "the camera answers with the id of no trigger",
        "accept 0 for that picture; the trigger that waits ends NO_FRAME", wrong_id,
    ),
    Row("used_id", "Used trigger id", "a second picture for a trigger that has its result", "accept 0", used_id),
    Row(
        "busy", "Too many triggers", "triggers without a picture until one is not taken",
        "BUSY; no result for that one, NO_FRAME with accept 0 for the others", busy,
    ),
    Row(
        "no_frame", "Trigger without a picture", "a trigger, and the camera exposes nothing", "NO_FRAME, accept 0",
        no_frame,
    ),
    Row(
        "recipe", "Recipe change that fails", "a recipe that does not open is asked for, then the right one again",
        "the change is failed; good parts have accept 0 while it is asked for, and 1 afterwards", recipe_fails,
    ),
    Row(
        "part", "Part id, lot, order, shift", "a part id with a group separator and UTF-8; a lot, an order, a shift",
        "the result carries all four unchanged", batch_echoed,
    ),
    Row(
        "counters", "Counters", "they are reset", "they count from 0, one reset more; the audit file says who",
        counters_reset,
    ),
    Row(
        "refused", "Commands without a role", "a client without a user stops the station",
        "refused; the station goes on", refused,
    ),
    Row(
        "handshake", "Acknowledgement", "a result is not acknowledged while the next one comes",
        "it stays shown; the next one follows its acknowledgement", handshake,
    ),
    *map(_of_reason, (each for each in Reason if each not in (*ELSEWHERE, *LAST))),
    Row(
        "simulated", "Simulated results", "a good part with accept_simulated unset", "it is marked simulated; accept 0",
        simulated_results, {"accept_simulated": False},
    ),
    Row(
        "hold", "Accept falls by itself", "a good part, and nothing after it", "accept 1, then 0 after accept_hold_ms",
        hold, {"accept_hold_ms": HOLD_MS},
    ),
    Row(
        "gateway", "Gateway lost and restarted", "the gateway is killed while a good part is shown, then started",
        "no answer; then accept 0, an old trigger is not given again, and good parts again", gateway_lost,
    ),
    *map(_of_reason, LAST),
    Row("each_once", "Results", "every result of this run", "none twice, none missing that is not named", each_once),
    Row(
        "whole_run", "The whole run", "every reading of this run",
        "accept was 1 only for good parts, and never without quality", whole_run,
    ),
)  # fmt: skip


def reason_rows() -> list[Row]:
    """Those of the reasons, which the page names together."""
    return [row for row in ROWS if row.key.startswith("reason ")]
