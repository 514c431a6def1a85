"""A station's line with a hard-wired trigger: frames and ``expect`` as ``runtime.inspector.part_matching`` takes them.

Here wire times become monotonic times, and whatever makes them doubtful is noticed: steps of the clock, frames
without a time, ids that are used again. Pure; the time is an argument.
"""

from __future__ import annotations

from collections import deque

from asperity.runtime.clock import MS, Now
from asperity.runtime.frame import Frame
from asperity.runtime.inspector.clocks import StationClocks
from asperity.runtime.inspector.part_matching import DeviceClock, Match, PartMatcher
from asperity.runtime.judging.pipeline import SHARED_CLOCKS
from asperity.runtime.settings.station_toml import HardWired, StationConfig

IDS_REMEMBERED = 64
"""Announcements whose ids are not taken again: an announcement that comes twice must not take the next part's frame."""
STEP_MIN_NS = 1 * MS
"""A wall clock is slewed by less between two looks."""
MEASURED_PARTS = 100
"""Each time this many parts were matched their times are reported: [hard_wired] is commissioned by them."""

NOT_COMPARABLE = (
    "the clocks of camera and computer are not known to agree within tolerance_ms, and frames may arrive nearly a "
    "pitch after their exposure: synchronise them, or lower arrival_max_ms (docs/clocks.md)"
)


class Punctuality:
    """The times of matched parts, for people who set the windows."""

    def __init__(self) -> None:
        self._matches: list[Match] = []

    def add(self, match: Match) -> str:
        """A part was matched. Returns what to say, after every MEASURED_PARTS parts; else nothing."""
        self._matches.append(match)
        if len(self._matches) < MEASURED_PARTS:
            return ""
        announced = [each.announced_after_ns / MS for each in self._matches]
        arrived = [each.arrived_after_ns / MS for each in self._matches]
        self._matches.clear()
        return (
            f"of {MEASURED_PARTS} parts: announced {min(announced):.0f} to {max(announced):.0f} ms after the exposure "
            f"(negative: before it), frames arrived {min(arrived):.0f} to {max(arrived):.0f} ms after it"
        )


class WiredLine:
    """Which exposure is which part's, at one station. Parts go by trigger_id, exposures by result_id."""

    def __init__(self, config: StationConfig, now: Now) -> None:
        self._settings = config.hard_wired
        self._wide = _is_wide(config.hard_wired)
        self._unread_max_ns = config.limits.deadline_ms * MS
        self._matcher = PartMatcher(self._settings, now.ns)
        self._device = DeviceClock(self._settings)
        self._ids: deque[int] = deque(maxlen=IDS_REMEMBERED)
        self._offset_ns = _offset_ns(now)
        self._timeless = False
        self.punctuality = Punctuality()

    @property
    def synced(self) -> bool:
        """Announcements and exposures are matched; while they are not, every part is unknown."""
        return self._matcher.synced

    @property
    def why(self) -> str:
        """Why it was unsynced last."""
        return self._matcher.why

    def refusal(self, trigger_id: int) -> str:
        """Why a part cannot be announced with this id; empty: it can."""
        if self._timeless:
            return "the camera sends no t_exposure_us (it is 0), which is the only way to match a frame to its part"
        if trigger_id in self._ids:
            return f"trigger_id {trigger_id} was announced a moment ago; use a different one for each part"
        return ""

    def announce(self, trigger_id: int, now: Now) -> None:
        """A part is announced, for whose id ``refusal`` is empty."""
        self.look(now)
        self._ids.append(trigger_id)
        self._matcher.announce(trigger_id, now.ns)

    def exposed_ns(self, frame: Frame, now: Now, clocks: StationClocks) -> int | None:
        """When a frame that arrives now was exposed, monotonic; None: that is not known. To be asked once a frame."""
        self.look(now)
        self._timeless = frame.t_exposure_us == 0
        if self._timeless:
            return None
        if frame.clock in SHARED_CLOCKS:
            if not self._wide and clocks.doubtful(frame.clock):
                self.unsync(NOT_COMPARABLE)
            return now.ns - (now.wall_us - frame.t_exposure_us) * 1000
        return self._device.map(frame.t_exposure_us, now.ns)

    def expose(self, result_id: int, exposed_ns: int | None, now: Now) -> None:
        """A good frame arrives; ``exposed_ns``: as the method of this name says."""
        self._matcher.expose(result_id, exposed_ns, now.ns)

    def missed(self, until_ns: int | None, now: Now) -> None:
        """An exposure was lost, broken or refused, before ``until_ns`` (None: before now)."""
        self._matcher.missed(now.ns if until_ns is None else until_ns, now.ns)

    def another_session(self) -> None:
        """The camera was restarted."""
        self._device = DeviceClock(self._settings)
        self.unsync("the camera was restarted")

    def unsync(self, why: str) -> None:
        """Nothing is certain any more, until a pause of the line."""
        self._matcher.unsync(why)

    def look(self, now: Now) -> None:
        """Compare the two clocks: exposures are dated by the wall clock, and its step would move them."""
        offset_ns, before_ns = _offset_ns(now), self._offset_ns
        self._offset_ns = offset_ns
        if abs(offset_ns - before_ns) > max(self._settings.tolerance_ms * MS, STEP_MIN_NS):
            self.unsync(f"the wall clock stepped by {(offset_ns - before_ns) / MS:.0f} ms")

    def settle(self, now: Now, read_up_to_ns: int) -> list[Match]:
        """The answers that are due, given that every message from before ``read_up_to_ns`` (monotonic) was taken in."""
        if now.ns - read_up_to_ns > self._unread_max_ns:
            self.unsync("messages arrive faster than they are read")
        return self._matcher.settle(min(now.ns, read_up_to_ns))

    def next_due_ns(self) -> int | None:
        """When ``settle`` has something to say."""
        return self._matcher.next_due_ns()


def _is_wide(settings: HardWired) -> bool:
    """Frames come so soon that clocks which put one into the next part's window make it late or an error."""
    window_ms = settings.early_ms + settings.late_ms + 2 * settings.tolerance_ms
    return settings.arrival_max_ms + window_ms < settings.pitch_min_ms


def _offset_ns(now: Now) -> int:
    return now.wall_us * 1000 - now.ns
