"""Triggers that wait for their frame. Pure: values in, values out; the time is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from asperity.runtime.text.part_identity import NO_BATCH, Batch


@dataclass(frozen=True, slots=True)
class PendingTrigger:
    """A trigger that was accepted and has no result yet."""

    trigger_id: int
    part_id: str
    recipe: str | None
    promise: int
    """What the camera copies, with the id: made for this trigger alone. 0: announced by ``expect``, the camera knows
    nothing of it, and ``runtime.inspector.hard_wired_line`` answers it."""
    expires_ns: int | None
    """Monotonic; None: by ``expect``."""
    entry: int
    """Number of its entry in the journal."""
    batch: Batch = NO_BATCH
    """What the part belongs to: as the trigger names it, else as it was set for the station at that moment."""
    position: int | None = None
    """Of the encoder, as the trigger names it."""
    followed_ns: int | None = None
    """When another part's trigger came that was not taken: from then on that part may be at the camera. Monotonic."""
    given_ns: int = 0
    """When it was accepted. Monotonic."""
    ticket: int = 0
    """Of the view of a part that its result is (``part_views``); 0: it is not given for a combined station."""


class Triggers:
    """At most ``pending_max`` triggers, in the order in which they were given."""

    def __init__(self, pending_max: int) -> None:
        self._pending_max = pending_max
        self._pending: dict[int, PendingTrigger] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[PendingTrigger]:
        return iter(self._pending.values())

    def refusal(self, trigger_id: int) -> str:
        """Why another trigger cannot be taken now; empty: it can."""
        if trigger_id in self._pending:
            return f"trigger {trigger_id} is already waiting for its frame"
        if len(self._pending) >= self._pending_max:
            return f"{len(self._pending)} triggers are already waiting for their frames"
        return ""

    def add(self, trigger: PendingTrigger) -> None:
        """Take a trigger for which ``refusal`` is empty."""
        self._pending[trigger.trigger_id] = trigger

    def claim(self, trigger_id: int, promise: int) -> PendingTrigger | None:
        """The trigger that a frame with these two answers, no longer pending; None: there is none.

        An id alone answers nothing: it may be of a picture that was taken for an earlier trigger of that id.
        """
        pending = self._pending.get(trigger_id)
        if pending is None or promise == 0 or pending.promise != promise:
            return None
        return self._pending.pop(trigger_id)

    def take(self, trigger_id: int) -> PendingTrigger | None:
        """A trigger whose answer is known, no longer pending; None: it was answered already."""
        return self._pending.pop(trigger_id, None)

    def expired(self, now_ns: int) -> list[PendingTrigger]:
        """The triggers whose frame did not come in time, no longer pending."""
        return self._remove([
                pending
                for pending in self._pending.values()
                if pending.expires_ns is not None and pending.expires_ns <= now_ns
            ])

    def follow(self, trigger_id: int, part_id: str, now_ns: int) -> None:
        """A trigger is not taken. Unless it was given twice, or names the same part, its part comes after those that
        wait, and the camera does not know."""
        if trigger_id in self._pending:
            return
        for other, one in self._pending.items():
            if one.followed_ns is None and (not part_id or one.part_id != part_id):
                self._pending[other] = replace(one, followed_ns=now_ns)

    def clear(self) -> list[PendingTrigger]:
        """All triggers, no longer pending."""
        return self._remove(list(self._pending.values()))

    def next_expiry_ns(self) -> int | None:
        """When the next one expires."""
        expiries = [pending.expires_ns for pending in self._pending.values() if pending.expires_ns is not None]
        return min(expiries, default=None)

    def _remove(self, gone: list[PendingTrigger]) -> list[PendingTrigger]:
        for pending in gone:
            del self._pending[pending.trigger_id]
        return gone
