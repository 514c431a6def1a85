"""The live loop: exposures of a camera become frames of the station, each its own and none old, mixed or made up.

What a live camera must not do is in ``docs/decisions/live-cameras.md``. A camera that is lost ends the process, and its
supervisor starts a new one with a new ``camera_session``: reconnecting within a process is a known fault of the SDKs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from asperity.runtime.cameras.ages import look
from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.exposure_order import ExposureOrder
from asperity.runtime.cameras.source import WAITING_MAX, Shot, Source, call
from asperity.runtime.cameras.trigger_inbox import Asked, HearsTriggers, TriggerInbox
from asperity.runtime.clock import MS, Now
from asperity.runtime.errors import CameraLostError, WireError
from asperity.runtime.frame import Frame
from asperity.runtime.process.systemd import Supervision
from asperity.runtime.wire import Trigger

log = logging.getLogger(__name__)
T = TypeVar("T")

WAIT_MS = 200
"""Longest single wait for an exposure or a trigger; between two of them the program can be stopped."""
TRIGGERED_SEND_WAIT_MS = 200
"""As in ``stream``: the frame that answers a trigger is sent only once."""
ANSWER_WAIT_MS = 5
"""As ``WAIT_MS`` while a trigger is answered: so exactly is it known when the trigger of the next part came."""
LOOK_MS = 1000
"""How often a camera that waits for triggers is looked at, so that one that is gone is noticed."""
STATUS_MS = 1000


class Sender(HearsTriggers, Protocol):
    """Where frames go to: a ``FrameSender``."""

    def send(self, frame: Frame, trigger: Trigger | None = None, *, wait_ms: int = 0) -> bool:
        """Send one exposure; False: it was not taken."""

    def missed(self) -> None:
        """Count an exposure of which there is no frame."""

    def wait_connected(self, timeout_ms: int) -> bool:
        """True as soon as a frame would be taken."""


@dataclass(slots=True)
class LiveSummary:
    """Report of a run. Every exposure is one of sent, dropped, missed and late."""

    sent: int = 0
    missed: int = 0
    """Exposures that the camera counted and of which no frame came."""
    dropped: int = 0
    """Frames that the station did not take."""
    late: int = 0
    """Frames that were not sent: they had waited for longer than ``late_ms``, or were made after the trigger of the
    next part; or may have."""
    unanswered: int = 0
    """Triggers that had waited too long, or for which no exposure came."""

    @property
    def exposures(self) -> int:
        """Exposures since the first that was sent: ``seq`` of the last."""
        return self.sent + self.missed + self.dropped + self.late


class LiveLoop:
    """Takes exposures from a source and sends them. Raises what source and sender raise."""

    def __init__(
        self,
        source: Source,
        sender: Sender,
        settings: LiveSection,
        supervision: Supervision | None = None,
        clock: Callable[[], Now] = look,
    ) -> None:
        self.summary = LiveSummary()
        self._source, self._sender, self._settings, self._clock = source, sender, settings, clock
        self._supervision = supervision or Supervision()
        self._sensor = source.sensor or "the camera"
        self._order = ExposureOrder(settings.lost_max, source.sensor)
        self._inbox = TriggerInbox(sender, settings.late_ms, clock)
        self._returned_ns = clock().ns
        """When the last wait ended. One that took far too long was a pause of the whole process."""
        self._paused = False
        self._silent_ns = 0
        """How long an exposure has been waited for, since the last one."""
        self._unanswered = 0
        """Triggers without an exposure, since the last one."""
        self._late_in_a_row = 0
        self._looked_ns = self._told_ns = 0
        self._turns = 0

    def wait_inspector(self) -> bool:
        """Wait until an inspector takes frames. What was exposed more than a moment before is old then, and discarded.

        Raises CameraLostError, SourceEnded.
        """
        ends_ns = self._clock().ns + self._settings.inspector_wait_ms * MS
        self._alive("waiting for the inspector")
        while not self._sender.wait_connected(max(1, min(WAIT_MS, (ends_ns - self._clock().ns) // MS))):
            if self._clock().ns >= ends_ns:
                return False
            self._discard_waiting(1)
            self._alive("waiting for the inspector")
        return True

    def run(self, frames: int | None = None, progress: Callable[[], None] = lambda: None) -> None:
        """Send until ``frames`` were sent or dropped (None: until stopped). Raises CameraLostError, SourceEnded."""
        triggered = self._settings.triggers == "software"
        if triggered:
            self._inbox.discard(0)
        left = frames
        while left is None or left > 0:
            if self._on_trigger() if triggered else self._on_exposure():
                left = None if left is None else left - 1
                progress()
            self._alive()

    # ------------------------------------------------------------------ one turn

    def _on_exposure(self) -> bool:
        """One exposure of a camera that is not triggered by us, if one comes; whether it was to be sent."""
        shot, seen = self._shot(WAIT_MS), self._clock()
        late = shot is not None and self._order.waited_us(shot.frame, seen) > self._settings.late_ms * 1000
        if shot is not None and not self._paused and not late:
            self._send(shot, None)
            return True
        if shot is not None:
            self._discard(shot)
        if self._paused:
            self._discard_waiting(WAIT_MS)
        return False

    def _on_trigger(self) -> bool:
        """One trigger of the station, if one comes; whether an exposure was to be sent for it."""
        if self._paused:
            self._paused = False
            self._inbox.discard(WAIT_MS)
            self._back()
        self._inbox.listen(WAIT_MS)
        self._back()
        asked = None if self._paused else self._inbox.next()
        if asked is None:
            self._look()
            return False
        called = self._clock()
        self._call(self._source.trigger)
        # The program may have stood still in between, or the camera been busy: then it exposed the next part.
        self._inbox.listen(0)
        in_time = self._inbox.is_fresh(asked)
        self._returned_ns = self._clock().ns  # however long the camera takes to be triggered, it is no pause
        shot = self._answer(asked)
        if shot is None:
            self._unanswered += 1
            self.summary.unanswered += 1
            log.warning("%s gave no exposure for a trigger", self._sensor)
            return False
        self._order.check_after(shot.frame, called)
        arrived, late_ns = self._clock(), self._settings.late_ms * MS
        self._order.waited_us(shot.frame, arrived)
        # A camera may expose long after it was triggered, and the next part be there by then.
        latest_ns = self._order.latest_ns(shot.frame, arrived)
        late = latest_ns - asked.since_ns > late_ns or self._order.reacted_us(shot.frame, called) * 1000 > late_ns
        if not in_time or late or self._inbox.is_followed(asked, latest_ns):
            self._discard(shot)
            self.summary.unanswered += 1
            return False
        self._send(shot, asked.trigger)
        return True

    def _answer(self, asked: Asked) -> Shot | None:
        """The exposure for a trigger; None: none came in time, and it could be distinguished from the next one."""
        ends_ns = self._clock().ns + asked.trigger.timeout_ms * MS
        while True:
            shot = self._shot(ANSWER_WAIT_MS)
            self._inbox.listen(0)
            if shot is not None:
                return shot
            if self._clock().ns >= ends_ns and self._order.tells:
                return None

    def _look(self) -> None:
        """Look at a camera that has nothing to do: one that is gone says so. An exposure that comes is nobody's."""
        now = self._clock()
        if now.ns - self._looked_ns >= LOOK_MS * MS:
            self._looked_ns = now.ns
            self._call(self._source.shot, 1)
            self._back()

    # ------------------------------------------------------------------ what is done with an exposure

    def _send(self, shot: Shot, trigger: Trigger | None) -> None:
        self._count_missed(shot)
        # Only the station's triggers answer triggers.
        frame = replace(shot.frame, trigger_id=0, promise=0)
        try:
            sent = self._sender.send(frame, trigger, wait_ms=TRIGGERED_SEND_WAIT_MS if trigger else 0)
        except (WireError, TypeError, ValueError, AttributeError) as error:
            raise CameraLostError(f"the source of {self._sensor} gave a frame that cannot be sent: {error}") from error
        self._back()
        self._late_in_a_row = 0
        self.summary.sent += sent
        self.summary.dropped += not sent

    def _discard(self, shot: Shot) -> None:
        """An exposure that is not sent; its result is LOST."""
        self._count_missed(shot)
        self._sender.missed()
        self.summary.late += 1
        self._late_in_a_row += 1
        if self._late_in_a_row > self._settings.lost_max:
            raise CameraLostError(
                f"{self._late_in_a_row} exposures of {self._sensor} in a row were too late ([live] late_ms = "
                f"{self._settings.late_ms}); the camera or this computer is too slow, or late_ms too short"
            )
        log.warning("an exposure is not sent: it may have waited for longer than [live] late_ms, or been made after "
                    "the next part's trigger; %s so far", self.summary.late)

    def _count_missed(self, shot: Shot) -> None:
        missed = self._order.missed_before(shot, self._unanswered)
        self._unanswered = 0
        for _ in range(missed):
            self._sender.missed()
        self.summary.missed += missed

    def _discard_waiting(self, time_ms: int) -> None:
        """Discard what waits in the source, and what still comes within this time."""
        self._paused = False
        ends_ns = self._clock().ns + time_ms * MS
        for _ in range(WAITING_MAX):
            shot = self._shot(max(1, (ends_ns - self._clock().ns) // MS))
            if shot is None:
                break
            if self.summary.exposures:
                self._discard(shot)
            else:
                self._order.missed_before(shot)  # no frame was sent: seq begins with the first that is

    # ------------------------------------------------------------------ the source, and time

    def _shot(self, timeout_ms: int) -> Shot | None:
        began_ns = self._clock().ns
        shot = self._call(self._source.shot, timeout_ms)
        self._back()
        self._alive()
        if shot is not None:
            if not (isinstance(shot, Shot) and isinstance(shot.frame, Frame) and _is_typed(shot)):
                raise CameraLostError(
                    f"the source of {self._sensor} gave {type(shot).__name__} for an exposure, or one with values of "
                    "wrong types; see docs/cameras.md"
                )
            self._order.check_clock(shot.frame, self._clock())
            self._silent_ns = 0
            return shot
        # Where the process stood still it is not the camera that was silent.
        self._silent_ns += min(self._returned_ns - began_ns, self._settings.late_ms * MS)
        limit_ms = self._settings.silence_ms
        if limit_ms and self._silent_ns > limit_ms * MS:
            raise CameraLostError(
                f"{self._sensor} gave no exposure for {limit_ms} ms ([live] silence_ms); "
                "check the camera, its cable or program, and its trigger"
            )
        return None

    def _call(self, function: Callable[..., T], *arguments: int) -> T:
        return call(self._sensor, function, *arguments)

    def _back(self) -> None:
        """A wait has ended. If it took longer than an exposure may wait, what waits now is old."""
        now_ns = self._clock().ns
        if now_ns - self._returned_ns > self._settings.late_ms * MS:
            self._paused = True
        self._returned_ns = now_ns

    def _alive(self, doing: str = "") -> None:
        """Feed the watchdog: a source that does not return starves it."""
        self._turns += 1
        self._supervision.progress(self._turns)
        now_ns = self._clock().ns
        if doing or now_ns - self._told_ns >= STATUS_MS * MS:
            self._told_ns = now_ns
            done = self.summary
            counts = f"{done.sent} sent, {done.missed} missed, {done.dropped} not taken, {done.late} late"
            self._supervision.status(f"{self._sensor}: {doing or counts}")


def _is_typed(shot: Shot) -> bool:
    """Whether what the loop looks at has its types; the rest is checked when the frame is encoded."""
    frame, whole = shot.frame, (int, np.integer)
    arrays = [frame.rgb, *(array for array in (frame.xyz, frame.depth) if array is not None)]
    numbers = [frame.t_exposure_us, *([] if shot.number is None else [shot.number])]
    return all(isinstance(array, np.ndarray) for array in arrays) and all(isinstance(each, whole) for each in numbers)
