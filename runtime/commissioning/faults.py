"""Rows about what fails: the inspector, the gateway, the cable."""

from __future__ import annotations

import time

from asperity.runtime.commissioning.plc_side import TAKEN
from asperity.runtime.commissioning.walk import SETTLED, Walk, fail

ATTEMPTS = 5


def beat_stops(walk: Walk) -> str:
    """It does not advance by itself."""
    walk.drained()
    walk.reads(lambda reading: reading.quality, "quality 1")
    timeout_s = walk.state.beat_timeout_ms / 1000
    walk.line.stand_still()

    def stopped() -> bool:
        beat = walk.plc.beat
        return time.monotonic() - beat.since_s >= timeout_s and beat.readings >= SETTLED

    what = f"the heartbeat advances without the station: unchanged for {1000 * timeout_s:.0f} ms"
    walk.until(stopped, what, walk.fall_s + timeout_s)
    walk.reads(lambda reading: not reading.quality, "quality 0", walk.fall_s)
    value = walk.plc.beat.value
    walk.line.go_on()
    walk.reads(lambda reading: reading.quality and reading.beat != value, "the heartbeat and quality 1 again")
    return f"unchanged at {value}, quality 0; then it advanced again"


def falls_on_beat_loss(walk: Walk) -> str:
    """Accept does not outlive the heartbeat."""
    good = walk.held()
    walk.line.stand_still()
    walk.falls(good, "although the heartbeat had stopped")
    since_ms = 1000 * (time.monotonic() - walk.plc.beat.since_s)
    walk.reads(lambda reading: not reading.quality, "quality 0", walk.fall_s)
    walk.line.go_on()
    walk.reads(lambda reading: reading.quality, "quality 1 again")
    walk.stays_fallen(good, "again when the heartbeat came back")
    return f"accept 0 and quality 0 {since_ms:.0f} ms after the last change of the heartbeat; still 0 when it came back"


def inspector_killed(walk: Walk) -> str:
    """What was in work is RESTARTED, what was accepted is not any more."""
    for _ in range(ATTEMPTS):
        seen = _killed_once(walk)
        if seen:
            return seen
    fail(f"no part was in work when the inspector was killed, in {ATTEMPTS} attempts")


def _killed_once(walk: Walk) -> str:
    good = walk.held()
    session = walk.plc.reading.session if walk.plc.reading is not None else ""
    trigger_id = 0
    if walk.line.simulated:
        trigger_id, code = walk.trigger()
        if code not in TAKEN:
            fail(f"the trigger was not taken: {code}")
        walk.line.expose(trigger_id, "slow")
    walk.line.kill_inspector()
    since_s = time.monotonic()
    walk.falls(good, "after the inspector was killed")
    took_ms = 1000 * (time.monotonic() - since_s)
    walk.reads(lambda reading: not reading.quality, "quality 0", walk.fall_s)
    walk.line.start_inspector()
    walk.reads(lambda reading: reading.quality and reading.session != session, "a new session and quality 1")
    walk.stays_fallen(good, "again after the restart")
    walk.plc.holding = False
    seen = f"accept 0 after {took_ms:.0f} ms; a new session, accept still 0"
    if trigger_id:
        restarted = walk.shown(lambda shown: shown.trigger_id == trigger_id, "the result of the part in work")
        if restarted.reason == "GOOD":
            return ""  # it was ready before the kill
        if restarted.reason != "RESTARTED":
            fail(f"the part in work is {restarted.reason}")
        walk.must_not_have_passed(restarted)
        seen += f"; the part in work RESTARTED, result {restarted.number}, accept 0"
    walk.held()
    return f"{seen}; then a good part accept 1"


def cable_pulled(walk: Walk) -> str:
    """A PLC without an answer rejects; afterwards nothing is missing."""
    walk.held()
    walk.drained()
    usual_s, walk.plc.side.timeout_s = walk.plc.side.timeout_s, walk.plc_timeout_s
    walk.line.pull_cable()
    took_s = walk.until(lambda: walk.plc.silence != "", "no answer")
    silence, recorded = walk.plc.silence, len(walk.plc.recorded)
    walk.plc.side.timeout_s = usual_s
    walk.line.plug_cable()
    walk.reads(lambda reading: reading.quality, "an answer and quality 1")
    good = walk.held()
    if len(walk.plc.recorded) != recorded + 1:
        fail(f"{len(walk.plc.recorded) - recorded} results were shown after the cable came back; there was 1")
    return f"no answer after {1000 * took_s:.0f} ms ({silence}); then result {good.number} accept 1"


def gateway_lost(walk: Walk) -> str:
    """A PLC without an answer rejects; a gateway that starts accepts nothing old and gives no old trigger."""
    good = walk.held()
    walk.line.kill_gateway()
    walk.until(lambda: walk.plc.silence != "", "no answer")
    walk.line.start_gateway()
    walk.reads(lambda reading: True, "an answer again")
    known = {truth.trigger_id for truth in walk.line.witness.published.values()}
    code = walk.plc.ask(lambda side: side.repeat_trigger())
    if code not in ("", "BASELINE"):
        fail(f"the PLC's old trigger was executed or refused: {code}")
    walk.stays_fallen(good, "after the gateway was restarted")
    walk.greet()
    again = walk.held()
    if again.trigger_id in known:
        fail(f"an old trigger was given again: {again.trigger_id}")
    baseline = "; its old trigger BASELINE" if code else ""
    return f"no answer; after the start accept 0{baseline}; then result {again.number} accept 1"
