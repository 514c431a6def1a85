"""Rows about results: identity, heartbeat, good and bad parts, reasons, order, recipes, counters."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

from asperity.runtime.commissioning.line import NotChecked, NotNeeded, request
from asperity.runtime.commissioning.plc_side import TAKEN, Counted, NoAnswer
from asperity.runtime.commissioning.walk import Walk, differences, fail, names
from asperity.runtime.frame import Verdict
from asperity.runtime.reasons import Reason

ATTEMPTS = 10
"""A crowded machine may read a good part only after its accept has fallen: then once more."""


def identity(walk: Walk) -> str:
    """Version, session, mode and recipe are the station's."""
    walk.reads(lambda reading: reading.quality, "quality 1")
    found = walk.plc.ask(lambda side: side.identity(walk.state))
    wrong = [f"{name} is {seen}, expected {wanted}" for name, wanted, seen in found if seen != wanted]
    if wrong:
        fail("; ".join(wrong))
    return "; ".join(f"{name} {seen}" for name, _, seen in found)


def beat(walk: Walk) -> str:
    """It advances."""
    first, began_s = walk.plc.beat.value, time.monotonic()
    values = {first}

    def advanced() -> bool:
        values.add(walk.plc.beat.value)
        return len(values) > 3

    walk.until(advanced, "3 changes of the heartbeat")
    return f"3 changes in {time.monotonic() - began_s:.2f} s"


def good_part(walk: Walk) -> str:
    """Accept 1, own ids."""
    shown = walk.held()
    if shown.simulated and not walk.line.simulated:
        fail(f"result {shown.number} is simulated and has accept 1: remove accept_simulated")
    return f"result {shown.number}: {shown.reason}, trigger_id {shown.trigger_id}, part_id {shown.part_id}, accept 1"


def bad_part(walk: Walk) -> str:
    """Accept falls with the bad part that follows."""
    good = walk.held()
    bad = walk.part("ng")
    if bad.verdict != Verdict.NG:
        fail(f"the bad part is shown with verdict {bad.verdict}, {bad.reason}")
    walk.must_not_have_passed(bad)
    return f"accept 1 for result {good.number}; result {bad.number}: verdict 2, {bad.reason}, accept 0"


def halt(walk: Walk) -> str:
    """Accept falls when the station is taken out of service, and a start does not bring it back."""
    good = walk.held()
    _do(walk, "halt")
    took_s = walk.falls(good, "after the station was halted")
    walk.reads(lambda reading: reading.state != 8 and not reading.quality, "another state, and quality 0")
    state = walk.plc.reading.state if walk.plc.reading is not None else 0
    _do(walk, "reset")
    _do(walk, "start")
    walk.reads(lambda reading: reading.state == 8 and reading.quality, "state 8 and quality 1")
    walk.stays_fallen(good, "again after start")
    return f"accept 0 after {1000 * took_s:.0f} ms, state {state}; after start state 8, accept still 0"


def _do(walk: Walk, op: str) -> None:
    code = walk.command(lambda side: side.command(op))
    if code not in TAKEN:
        fail(f"{op} was not done: {code}")


def hold(walk: Walk) -> str:
    """Accept falls when its time is up."""
    for _ in range(ATTEMPTS):
        good = walk.part(hold=True)
        if good.number not in walk.plc.passed:
            continue
        took_s = walk.falls(good, "with no result after it", walk.limits.patience_s)
        reading = walk.plc.reading
        if reading is not None and not reading.quality:
            fail("accept fell because quality was lost, not because its time was up")
        return f"accept 1, then 0 after {1000 * took_s:.0f} ms; quality 1"
    raise NotChecked(f"accept was 0 in the first reading of {ATTEMPTS} good parts")


def reason(wanted: Reason) -> Callable[[Walk], str]:
    """The row of a reason."""

    def check(walk: Walk) -> str:
        walk.drained()
        results, recorded = walk.line.witness.published, len(walk.plc.recorded)
        before = set(results)
        walk.line.play(wanted.name)
        walk.until(lambda: any(number not in before for number in results), "a result")
        found = [number for number, truth in results.items() if number not in before and truth.reason is wanted]
        if not found:
            raise NotChecked(f"the station gave no result of reason {wanted.name}")
        for number in found:
            shown = walk.shown(lambda each: each.number == number, f"result {number} at the PLC", recorded)  # noqa: B023
            if shown.number in walk.plc.passed:
                fail(f"accept was 1 for result {number}, {wanted.name}")
        for each in walk.plc.recorded[recorded:]:
            walk.compare(each.shown)
        walk.settle()
        if passed := walk.plc.passed.intersection(found):
            fail(f"accept became 1 for result {names(passed)}, {wanted.name}")
        return f"result {names(found)}: reason {int(wanted)}, verdict {int(results[found[0]].verdict)}, accept 0"

    return check


def recipe_fails(walk: Walk) -> str:
    """No part passes while a recipe is asked for that does not open."""
    if not walk.failing_recipe:
        raise NotChecked("name a recipe that does not open: --failing-recipe")
    name, good_recipe = walk.failing_recipe, walk.good_recipe or walk.state.recipe
    if walk.plc.ask(lambda side: side.want_recipe(name)) != "failed":
        fail(f"the change to {name} was not reported as failed")
    walk.reads(lambda reading: reading.recipe_change == "failed", "recipe change failed")
    refused_part = walk.part()
    walk.must_not_have_passed(refused_part)
    if refused_part.verdict != Verdict.OK:
        fail(f"a good part is needed for this; the result is {refused_part.reason}")
    if walk.plc.ask(lambda side: side.want_recipe(good_recipe)) != "done":
        fail(f"the change back to {good_recipe} was not reported as done")
    walk.held()
    return f"{name}: failed; a good part meanwhile accept 0; {good_recipe}: done, a good part accept 1"


def counters_reset(walk: Walk) -> str:
    """They count from 0."""
    walk.drained()
    before = _counted(walk, lambda counted: _resets(walk) == counted.resets, "the station's counters")
    _do(walk, "reset_counters")
    wanted = Counted(0, 0, 0, before.resets + 1)
    _counted(walk, lambda counted: counted == wanted, f"counters of 0 after reset {wanted.resets}")
    audited = "the audit file was not looked at"
    if walk.line.audited("reset_counters") is not None:
        walk.until(lambda: bool(walk.line.audited("reset_counters")), "an entry in the audit file")
        audited = "in the audit file"
    counted = f"{before.ok} ok, {before.ng} ng, {before.unknown} unknown"
    return f"{counted}; then 0, 0, 0 and {before.resets + 1} resets; {audited}"


def _resets(walk: Walk) -> int:
    """How often the station says they were reset; -1: it has not said so yet."""
    counters = walk.line.witness.counters
    return -1 if counters is None else counters.resets


def _counted(walk: Walk, so: Callable[[Counted], bool], what: str) -> Counted:
    """The counters once they are so; a gateway may not have heard any yet."""
    found: list[Counted] = []

    def come() -> bool:
        with suppress(NoAnswer):
            found.append(walk.plc.ask(lambda side: side.counters()))
        return bool(found) and so(found[-1])

    walk.until(come, what)
    return found[-1]


def simulated_results(walk: Walk) -> str:
    """A simulated good part has no accept unless that is set."""
    good = walk.part()
    if not good.simulated:
        fail(f"result {good.number} of a simulated station is not marked simulated")
    walk.must_not_have_passed(good)
    return f"result {good.number}: {good.reason}, simulated 1, accept 0"


def refused(walk: Walk) -> str:
    """A command needs a role."""
    if not walk.plc.side.users:
        raise NotNeeded("the protocol has no users: who reaches the port may command; [gateway] commands turns it off")
    how = walk.plc.ask(lambda side: side.command_without_role())
    if not how:
        request(walk.line, "start")
        fail("the command was done without a user")
    walk.settle()
    walk.reads(lambda reading: reading.state == 8, "state 8")
    return how


def handshake(walk: Walk) -> str:
    """What is not acknowledged stays."""
    if not walk.plc.side.handshake:
        raise NotNeeded("the protocol has no acknowledgement")
    first = walk.held()
    walk.line.place("ok")
    trigger_id, code = walk.trigger()
    if code not in TAKEN:
        fail(f"the trigger was not taken: {code}")
    walk.line.expose(trigger_id, "ok")
    results = walk.line.witness.published
    walk.until(lambda: any(each.trigger_id == trigger_id for each in results.values()), "the next result")
    recorded = len(walk.plc.recorded)
    walk.settle()
    if len(walk.plc.recorded) > recorded:
        fail(f"result {first.number} was not acknowledged, and another one was shown")
    walk.plc.holding = False
    second = walk.shown(lambda shown: shown.trigger_id == trigger_id, "the next result once it was acknowledged")
    return f"result {first.number} stayed until it was acknowledged; then result {second.number}"


def each_once(walk: Walk) -> str:
    """Numbers ascend by one, or the jump is named."""
    walk.drained()
    recorded = list(walk.plc.recorded)
    for last, this in pairwise(recorded):
        step = this.shown.number - last.shown.number
        if step <= 0:
            fail(f"result {this.shown.number} was shown after result {last.shown.number}")
        if last.epoch == this.epoch and step != 1 + this.shown.missing_before:
            named = this.shown.missing_before
            fail(f"after result {last.shown.number} came {this.shown.number}, {named} named missing")
    return f"{len(recorded)} results, none twice, none missing that was not named"


def whole_run(walk: Walk) -> str:
    """Every reading."""
    if walk.plc.contradictions:
        fail(f"{len(walk.plc.contradictions)} readings: {walk.plc.contradictions[0]}")
    for each in list(walk.plc.recorded):
        truth = walk.truth(each.shown)
        if wrong := differences(each.shown, truth):
            fail(f"result {each.shown.number}: {'; '.join(wrong)}")
        if each.shown.number in walk.plc.passed and truth.verdict is not Verdict.OK:
            fail(f"accept was 1 for result {each.shown.number}, {truth.reason.name}")
    passed = len(walk.plc.passed)
    return f"{walk.plc.readings} readings, {walk.plc.silences} without an answer; accept 1 for {passed} parts"
