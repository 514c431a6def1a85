"""Triggers that await their frame: who may answer one, how many there may be, and when they are given up."""

from __future__ import annotations

from dataclasses import replace

from asperity.runtime.inspector.triggers import PendingTrigger, Triggers

ONE = PendingTrigger(trigger_id=1, part_id="p1", recipe=None, promise=71, expires_ns=100, entry=0)
TWO = PendingTrigger(trigger_id=2, part_id="p2", recipe="lid", promise=72, expires_ns=50, entry=1)
EXPECTED = PendingTrigger(trigger_id=3, part_id="p3", recipe=None, promise=0, expires_ns=None, entry=2)


def pending(*triggers: PendingTrigger, pending_max: int = 4) -> Triggers:
    made = Triggers(pending_max)
    for trigger in triggers:
        assert made.refusal(trigger.trigger_id) == ""
        made.add(trigger)
    return made


def test_one_more_than_may_wait_is_refused_and_so_is_an_id_that_waits() -> None:
    triggers = pending(ONE, pending_max=2)
    assert "trigger 1 is already waiting" in triggers.refusal(1)
    assert triggers.refusal(2) == ""
    triggers.add(TWO)
    assert len(triggers) == 2 and "2 triggers are already waiting" in triggers.refusal(3)
    assert "trigger 1 is already" in triggers.refusal(1), "its own reason comes first"
    triggers.take(1)
    assert triggers.refusal(3) == ""


def test_a_frame_answers_the_trigger_whose_id_and_promise_it_has_and_only_once() -> None:
    triggers = pending(ONE, TWO)
    assert triggers.claim(1, 72) is None, "another's promise"
    assert triggers.claim(1, 0) is None and triggers.claim(9, 71) is None
    assert len(triggers) == 2
    assert triggers.claim(1, 71) == ONE and len(triggers) == 1
    assert triggers.claim(1, 71) is None, "answered already"
    assert triggers.claim(2, 72) == TWO


def test_a_part_that_was_announced_without_a_promise_is_claimed_by_no_frame() -> None:
    triggers = pending(EXPECTED)
    assert triggers.claim(3, 0) is None and triggers.claim(3, 1) is None and len(triggers) == 1


def test_one_is_taken_once() -> None:
    triggers = pending(ONE)
    assert triggers.take(2) is None
    assert triggers.take(1) == ONE and triggers.take(1) is None and len(triggers) == 0


def test_those_expire_whose_time_has_come_in_their_order_and_those_without_one_never() -> None:
    late = replace(ONE, trigger_id=4, expires_ns=101)
    triggers = pending(ONE, EXPECTED, TWO, late)
    assert triggers.expired(49) == []
    assert triggers.next_expiry_ns() == 50
    assert triggers.expired(50) == [TWO] and triggers.expired(50) == []
    assert triggers.next_expiry_ns() == 100
    assert triggers.expired(100) == [ONE] and triggers.next_expiry_ns() == 101
    assert triggers.expired(2**62) == [late]
    assert triggers.next_expiry_ns() is None and len(triggers) == 1


def test_several_expire_at_once_and_all_are_cleared() -> None:
    triggers = pending(ONE, TWO, EXPECTED)
    assert triggers.expired(100) == [ONE, TWO]
    triggers.add(ONE)
    assert triggers.clear() == [EXPECTED, ONE] and len(triggers) == 0 and triggers.clear() == []
