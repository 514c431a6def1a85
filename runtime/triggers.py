"""Triggers that await their frame. Pure: values in, values out; time is given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PendingTrigger:
    """A trigger that was accepted and has no result yet."""

    trigger_id: int
    part_id: str
    recipe: str | None
    hard_wired: bool
    """Announced by ``expect``: the camera knows no ids, so the next free-running frame answers it."""
    expires_ns: int
    promise: int
    """Number of the promise in the journal."""


class Triggers:
    """At most ``pending_max`` triggers, in the order in which they were given."""

    def __init__(self, pending_max: int) -> None:
        self._pending_max = pending_max
        self._pending: dict[int, PendingTrigger] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def refusal(self, trigger_id: int) -> str:
        """Why another trigger cannot be taken now; empty: it can."""
        if trigger_id in self._pending:
            return f"trigger {trigger_id} already awaits its frame"
        if len(self._pending) >= self._pending_max:
            return f"{len(self._pending)} triggers already await their frames"
        return ""

    def add(self, trigger: PendingTrigger) -> None:
        """Take a trigger for which ``refusal`` is empty."""
        self._pending[trigger.trigger_id] = trigger

    def claim(self, trigger_id: int) -> PendingTrigger | None:
        """The trigger that a frame with this id answers, no longer pending; None: there is none.

        A frame without an id (0) answers the oldest hard-wired one.
        """
        if trigger_id == 0:
            hard_wired = (pending.trigger_id for pending in self._pending.values() if pending.hard_wired)
            trigger_id = next(hard_wired, 0)
        return self._pending.pop(trigger_id, None)

    def expired(self, now_ns: int) -> list[PendingTrigger]:
        """The triggers whose frame did not come in time, no longer pending."""
        return self._remove([pending for pending in self._pending.values() if pending.expires_ns <= now_ns])

    def clear(self) -> list[PendingTrigger]:
        """All triggers, no longer pending."""
        return self._remove(list(self._pending.values()))

    def next_expiry_ns(self) -> int | None:
        """When the next one expires."""
        return min((pending.expires_ns for pending in self._pending.values()), default=None)

    def _remove(self, gone: list[PendingTrigger]) -> list[PendingTrigger]:
        for pending in gone:
            del self._pending[pending.trigger_id]
        return gone
