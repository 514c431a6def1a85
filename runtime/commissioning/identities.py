"""Rows about whose result it is: trigger ids, part ids, lot, order, shift."""

from __future__ import annotations

from asperity.runtime.commissioning.plc_side import TAKEN
from asperity.runtime.commissioning.walk import Walk, fail, names
from asperity.runtime.text.part_identity import NO_BATCH, Batch

STRAY_ID = 3_999_999_999
"""No trigger of this id is ever given."""
SHORT_MS, LONG_MS = 200, 1500
BUSY_MAX = 70
"""More triggers than any station lets wait."""
PART_ID = "010401234567890121A1\x1d10LOT-7\N{LATIN SMALL LETTER U WITH DIAERESIS}"
"""As GS1 writes it: the group separator is character 29."""
BATCH = Batch(lot="LOT-7\N{LATIN SMALL LETTER U WITH DIAERESIS}", order="4711", shift="late")


def wrong_id(walk: Walk) -> str:
    """A picture with another id passes nothing."""
    walk.drained()
    recorded = len(walk.plc.recorded)
    trigger_id = 0
    if walk.line.simulated:
        trigger_id, code = walk.trigger(timeout_ms=SHORT_MS)
        if code not in TAKEN:
            fail(f"the trigger was not taken: {code}")
    walk.line.expose_for_nobody(STRAY_ID)
    stray = walk.shown(lambda shown: shown.trigger_id != trigger_id, "the result of the picture of nobody", recorded)
    walk.must_not_have_passed(stray)
    seen = f"result {stray.number}: {stray.reason}, trigger_id {stray.trigger_id}, accept 0"
    if trigger_id:
        waiting = walk.shown(lambda shown: shown.trigger_id == trigger_id, "the result of the trigger", recorded)
        walk.must_not_have_passed(waiting)
        seen += f"; trigger {trigger_id}: {waiting.reason}, accept 0"
    return seen


def used_id(walk: Walk) -> str:
    """A second picture for the same trigger passes nothing."""
    good = walk.held()
    walk.drained()
    recorded = len(walk.plc.recorded)
    walk.line.expose_for_nobody(good.trigger_id)
    second = walk.shown(lambda shown: True, "the result of the second picture", recorded)
    walk.must_not_have_passed(second)
    return f"trigger {good.trigger_id}: result {good.number} accept 1; its second picture {second.reason}, accept 0"


def busy(walk: Walk) -> str:
    """A trigger that is not taken has no result, and no part passes by it."""
    walk.line.place("none")
    walk.drained()
    recorded, given = len(walk.plc.recorded), []
    for _ in range(BUSY_MAX):
        trigger_id, code = walk.trigger(timeout_ms=LONG_MS)
        if code not in TAKEN:
            break
        given.append(trigger_id)
    if code != "BUSY":
        fail(f"{len(given)} triggers were taken without a picture; the last was answered {code}")
    for each in given:
        shown = walk.shown(lambda shown: shown.trigger_id == each, f"the result of trigger {each}", recorded)  # noqa: B023
        if shown.reason != "NO_FRAME":
            fail(f"trigger {each} ended {shown.reason}")
        walk.must_not_have_passed(shown)
    if any(truth.trigger_id == trigger_id for truth in list(walk.line.witness.published.values())):
        fail(f"trigger {trigger_id} was BUSY and has a result")
    return f"triggers {names(given)} NO_FRAME, accept 0; trigger {trigger_id} BUSY, no result"


def no_frame(walk: Walk) -> str:
    """Every trigger has a result."""
    walk.line.place("none")
    walk.drained()
    trigger_id, code = walk.trigger(timeout_ms=SHORT_MS)
    if code not in TAKEN:
        fail(f"the trigger was not taken: {code}")
    shown = walk.shown(lambda each: each.trigger_id == trigger_id, f"the result of trigger {trigger_id}")
    if shown.reason != "NO_FRAME":
        fail(f"it ended {shown.reason}; NO_FRAME was expected")
    walk.must_not_have_passed(shown)
    return f"result {shown.number}: NO_FRAME, accept 0"


def batch_echoed(walk: Walk) -> str:
    """Texts arrive as they were given."""
    walk.line.place("ok")
    for batch in (BATCH, NO_BATCH):
        code = walk.command(lambda side: side.set_batch(batch))  # noqa: B023
        if code not in TAKEN:
            fail(f"lot, order and shift were not taken: {code}")
        shown = walk.part(part_id=PART_ID if batch is BATCH else "")
        found = (shown.part_id, shown.lot, shown.order, shown.shift)
        if batch is BATCH and found != (PART_ID, *BATCH):
            fail(f"shown are part_id, lot, order, shift {found!r}; given were {(PART_ID, *BATCH)!r}")
    return f"part_id {PART_ID!r}, lot {BATCH.lot}, order {BATCH.order}, shift {BATCH.shift} as given"
