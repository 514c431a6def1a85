"""Triggers that wait for the camera, each with how long it may have waited.

A trigger means the part that is there now. One that waited while the camera was being opened, was busy or stood still
is not answered: its part has moved on, and the station answers it NO_FRAME.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from asperity.runtime.cameras.ages import LeastDelay, look
from asperity.runtime.clock import MS, Now
from asperity.runtime.wire import Trigger

log = logging.getLogger(__name__)

WAITING_MAX = 64
STEP_MS = 10_000
"""Where every trigger for so long seems to have been held back, the inspector's clock was set: no network does that."""


class HearsTriggers(Protocol):
    """Where triggers come from: a ``FrameSender``."""

    def wait_trigger(self, timeout_ms: int) -> Trigger | None:
        """The next one, None when none came."""


class Asked(NamedTuple):
    """A trigger, and a time after which it was made."""

    trigger: Trigger
    since_ns: int
    """Monotonic. It came later than this, when the queue was last seen empty; or earlier, by its own time."""


class TriggerInbox:
    """Takes triggers as they come, and gives out those that are fresh."""

    def __init__(self, sender: HearsTriggers, late_ms: int, clock: Callable[[], Now] = look) -> None:
        self.refused = 0
        """Triggers that had waited too long."""
        self._sender, self._late_ns, self._clock = sender, late_ms * MS, clock
        self._waiting: deque[Asked] = deque()
        self._delay = LeastDelay()
        self._empty_ns: int | None = None
        self._slow_ns = 0
        """Since when every trigger was held back, by its own time; 0: the last was not."""

    def listen(self, timeout_ms: int) -> None:
        """Take what has come; wait for the first for at most ``timeout_ms``, if none waits here."""
        for taken in range(WAITING_MAX):
            wait_ms = 0 if taken or self._waiting else timeout_ms
            trigger = self._sender.wait_trigger(wait_ms)
            now = self._clock()
            if trigger is None:
                self._empty_ns = now.ns
                return
            if self._empty_ns is None or len(self._waiting) == WAITING_MAX:
                self._refuse(trigger)
                continue
            self._waiting.append(Asked(trigger, min(self._empty_ns, now.ns - self._held_back_ns(trigger, now))))

    def _held_back_ns(self, trigger: Trigger, now: Now) -> int:
        """How much longer it took than others, by its own time."""
        if not trigger.t_us:
            return 0
        here_us = now.ns // 1000
        above_ns = round(self._delay.above_us(trigger.t_us, here_us) * 1000)
        if above_ns <= self._late_ns:
            self._slow_ns = 0
            return above_ns
        self._slow_ns = self._slow_ns or now.ns
        if now.ns - self._slow_ns > STEP_MS * MS:
            log.warning("the inspector's clock was set back, or its triggers now take longer: they are answered again")
            self._delay, self._slow_ns = LeastDelay(), 0
            self._delay.above_us(trigger.t_us, here_us)
        return above_ns

    def next(self) -> Asked | None:
        """The oldest that is fresh and whose part was not followed by another; those before it are left out."""
        while self._waiting:
            asked = self._waiting.popleft()
            if self.is_fresh(asked) and not self.is_followed(asked):
                return asked
            self._refuse(asked.trigger)
        return None

    def is_fresh(self, asked: Asked) -> bool:
        """Whether the trigger cannot have waited for longer than ``late_ms``."""
        return self._clock().ns - asked.since_ns <= self._late_ns

    def is_followed(self, asked: Asked, until_ns: int | None = None) -> bool:
        """Whether a trigger of another part has come since: that part is there now. ``until_ns``: or may have, until
        then."""
        part_id = asked.trigger.part_id
        others = [one for one in self._waiting if not part_id or one.trigger.part_id != part_id]
        return any(until_ns is None or one.since_ns <= until_ns for one in others)

    def discard(self, time_ms: int) -> None:
        """Leave out what waits, and what comes within this time: after a pause it may only now be read."""
        ends_ns = self._clock().ns + time_ms * MS
        while True:
            self.listen(max(0, (ends_ns - self._clock().ns) // MS))
            while self._waiting:
                self._refuse(self._waiting.popleft().trigger)
            if self._clock().ns >= ends_ns:
                return

    def _refuse(self, trigger: Trigger) -> None:
        self.refused += 1
        log.warning("a trigger is not answered: it may have waited for longer than [live] late_ms, or the next part's "
                    "has come; %s triggers so far", self.refused)
        log.debug("trigger %s of part %r", trigger.trigger_id, trigger.part_id)
