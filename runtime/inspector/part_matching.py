"""Which exposure belongs to which part, if a sensor fires the camera and the PLC announces it. Pure; time is given.

The rule is the table in docs/wire.md ("Which exposure is which part's"). An announcement at ``a`` claims the exposures
in its window [a - late - tolerance, a + early + tolerance]. The windows of two parts cannot overlap as long as parts
keep their least pitch, so an exposure in two windows, or two in one, means that something went wrong: whatever is
ambiguous is answered unknown. What cannot be explained at all leaves the matcher unsynced: everything is unknown
until the line has paused for longer than any announcement is delayed.

All times are nanoseconds of the inspector's monotonic clock; ``DeviceClock`` maps a camera's own clock to it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from asperity.runtime.clock import MS
from asperity.runtime.reasons import Reason
from asperity.runtime.settings.station_toml import HardWired

PITCHES_OF_QUIET = 3
"""A pause counts as quiet after at least this many pitches."""
KEPT_MAX = 256
"""Announcements, exposures and gaps of each kind that are kept. More at once is not a line: unsynced."""
DEVICE_SAMPLES = 256
DEVICE_JUMP_NS = 60_000 * MS
"""A device clock that is this much further behind than at the last frame began again: 32 bits of µs last 71 minutes."""
DEVICE_WINDOW_NS = 600_000 * MS
"""A device clock is compared with the frames of this time at most: 20 ppm of drift are 12 ms of it."""


@dataclass(frozen=True, slots=True)
class Match:
    """Outcome for a part, for an exposure, or for both.

    With ``reason`` None both are given: the exposure's verdict is the part's. Else they are unknown for ``reason``.
    """

    part: int | None
    """Key of the announcement."""
    exposure: int | None
    """Key of the exposure."""
    reason: Reason | None
    detail: str = ""
    announced_after_ns: int = 0
    """With both given: from the exposure to its announcement; negative: announced before it."""
    arrived_after_ns: int = 0
    """From the exposure to the arrival of its frame."""


@dataclass(slots=True)
class _Announcement:
    key: int
    at_ns: int
    from_ns: int
    """Its window."""
    to_ns: int
    due_ns: int
    """From here on nothing that comes in time can change its answer."""
    answered: bool = False


@dataclass(slots=True)
class _Exposure:
    key: int
    at_ns: int
    arrived_ns: int
    due_ns: int
    """From here on no announcement that comes in time can claim it."""
    late: bool
    claimed: bool = False
    """It was due and lay in a window: it is answered with the last of these."""


class PartMatcher:
    """Matches the announcements and exposures of one line.

    ``settle`` returns the outcomes: each key that came in has exactly one answer, at the latest
    ``longest_ns`` after it came.
    """

    def __init__(self, settings: HardWired, now_ns: int) -> None:
        early, late, tolerance = settings.early_ms * MS, settings.late_ms * MS, settings.tolerance_ms * MS
        self._before_ns = late + tolerance
        self._after_ns = early + tolerance
        self._arrival_max_ns = settings.arrival_max_ms * MS
        self._tolerance_ns = tolerance
        self._due_ns = early + max(self._arrival_max_ns, late) + 2 * tolerance
        self._quiet_ns = max(settings.quiet_ms, PITCHES_OF_QUIET * settings.pitch_min_ms) * MS
        self.synced = False
        self.why = "the station has started"
        """Why it was unsynced last."""
        self._proving = False  # the first announcement since it became synced has no exposure yet
        self._after_pause = False  # no part was matched since the last pause
        self._last_ns = now_ns  # last announcement, exposure or sign of one
        self._last_exposed_ns: int | None = None  # of the last good exposure
        self._announced: deque[_Announcement] = deque()  # the answered ones as well, for frames that come late
        self._exposed: list[_Exposure] = []
        self._gaps: deque[tuple[int, int]] = deque()
        self._answers: list[Match] = []

    @property
    def longest_ns(self) -> int:
        """From an announcement or an exposure to its answer."""
        return self._due_ns + self._before_ns

    def announce(self, key: int, now_ns: int) -> None:
        """A part is announced."""
        self._activity(now_ns)
        if not self.synced:
            self._answers.append(Match(key, None, Reason.UNSYNCED, self.why))
            return
        window = now_ns - self._before_ns, now_ns + self._after_ns
        self._announced.append(_Announcement(key, now_ns, *window, now_ns + self._due_ns))
        while len(self._announced) > KEPT_MAX and self._announced[0].answered:
            self._announced.popleft()  # a frame of it that still comes is UNANNOUNCED
        self._bound(len(self._announced), "announcements")

    def expose(self, key: int, exposed_ns: int | None, now_ns: int) -> None:
        """A good frame arrives; ``exposed_ns``: when it was exposed, None: that is not known."""
        self._activity(now_ns)
        if exposed_ns is None:
            self.unsync("the time of an exposure is unknown")
        elif exposed_ns > now_ns + self._tolerance_ns:
            self.unsync(f"an exposure time is {(exposed_ns - now_ns) / MS:.0f} ms in the future")
        self._last_exposed_ns = exposed_ns
        if not self.synced or exposed_ns is None:
            self._answers.append(Match(None, key, Reason.UNSYNCED, self.why))
            return
        late = now_ns - exposed_ns > self._arrival_max_ns
        self._exposed.append(_Exposure(key, exposed_ns, now_ns, max(exposed_ns + self._before_ns, now_ns), late))
        self._bound(len(self._exposed), "exposures")

    def missed(self, until_ns: int, now_ns: int) -> None:
        """An exposure was made and there is no picture of it: lost, broken or refused.

        It lies between the last good exposure and ``until_ns``.
        """
        self._activity(now_ns)
        since_ns = self._last_exposed_ns
        if not self.synced:
            return
        if self._after_pause or since_ns is None:
            self.unsync("an exposure is missing after a pause")
        elif self._gaps and self._gaps[-1][0] == since_ns:
            self._gaps[-1] = since_ns, max(until_ns, self._gaps[-1][1])
        else:
            self._gaps.append((since_ns, until_ns))
            self._bound(len(self._gaps), "gaps")

    def unsync(self, why: str) -> None:
        """Nothing is certain any more: what is pending is answered UNSYNCED, and so is what comes until a pause."""
        self.synced, self._proving, self.why = False, False, why
        parts = [each.key for each in self._announced if not each.answered]
        self._answers += [Match(key, None, Reason.UNSYNCED, why) for key in parts]
        self._answers += [Match(None, each.key, Reason.UNSYNCED, why) for each in self._exposed]
        self._announced.clear()
        self._exposed.clear()
        self._gaps.clear()

    def settle(self, now_ns: int) -> list[Match]:
        """The answers that are due; ``now_ns``: every message that arrived before it has been taken in."""
        while (due_ns := self._due()) is not None and due_ns <= now_ns:
            exposure = next((x for x in self._exposed if not x.claimed and x.due_ns == due_ns), None)
            if exposure is not None:
                self._settle_exposure(exposure)
            else:
                self._settle_part(next(a for a in self._announced if not a.answered))
        while self._announced and self._announced[0].answered and now_ns - self._announced[0].due_ns > self._quiet_ns:
            self._announced.popleft()
        oldest_ns = self._announced[0].from_ns if self._announced else now_ns - self._before_ns
        while self._gaps and self._gaps[0][1] < oldest_ns:
            self._gaps.popleft()
        answers, self._answers = self._answers, []
        return answers

    def next_due_ns(self) -> int | None:
        """When ``settle`` has something to report; None: nothing is pending."""
        return self._last_ns if self._answers else self._due()

    def _due(self) -> int | None:
        part = next((each for each in self._announced if not each.answered), None)
        due = [each.due_ns for each in self._exposed if not each.claimed]
        return min([*due, part.due_ns] if part is not None else due, default=None)

    def _activity(self, now_ns: int) -> None:
        """Something of the line was noticed: after a pause, it is the first of what follows."""
        if now_ns - self._last_ns >= self._quiet_ns:
            self._after_pause = True
            if not self.synced:
                self.synced = self._proving = True
        self._last_ns = now_ns

    def _bound(self, count: int, what: str) -> None:
        if count > KEPT_MAX:
            self.unsync(f"more than {KEPT_MAX} {what} at the same time")

    def _claims(self, exposure: _Exposure) -> list[_Announcement]:
        return [each for each in self._announced if each.from_ns <= exposure.at_ns <= each.to_ns]

    def _settle_exposure(self, exposure: _Exposure) -> None:
        """No announcement can claim it any more."""
        claims = self._claims(exposure)
        if not claims:
            self._exposed.remove(exposure)
            self._answers.append(Match(None, exposure.key, Reason.UNANNOUNCED))
            self.unsync("an exposure was not announced")
        elif all(each.answered for each in claims):
            self._exposed.remove(exposure)
            reason = Reason.STALE if exposure.late else Reason.AMBIGUOUS
            self._answers.append(Match(None, exposure.key, reason, "it arrived after its part was answered"))
        else:
            exposure.claimed = True

    def _settle_part(self, part: _Announcement) -> None:
        """No exposure that arrives in time can lie in its window any more."""
        part.answered = True
        inside = [each for each in self._exposed if part.from_ns <= each.at_ns <= part.to_ns]
        reason, detail = self._judge(part, inside)
        if reason is None or (reason is Reason.STALE and len(inside) == 1):
            (own,) = inside
            self._exposed.remove(own)
            after_ns = part.at_ns - own.at_ns, own.arrived_ns - own.at_ns
            self._answers.append(Match(part.key, own.key, reason, detail, *after_ns))
        else:
            self._answers.append(Match(part.key, None, reason, detail))
            for each in inside:
                if all(claim.answered for claim in self._claims(each)):
                    self._exposed.remove(each)
                    self._answers.append(Match(None, each.key, Reason.AMBIGUOUS, detail))
        if reason is None:
            self._proving = self._after_pause = False
        elif self._proving:
            self.unsync(f"the first part after a pause was {reason.name}")

    def _judge(self, part: _Announcement, inside: list[_Exposure]) -> tuple[Reason | None, str]:
        """Why the part is unknown; None: the one exposure inside its window is its own."""
        if any(since_ns < part.to_ns and until_ns > part.from_ns for since_ns, until_ns in self._gaps):
            return Reason.AMBIGUOUS, "an exposure is missing around this time"
        if not inside:
            return Reason.NO_FRAME, ""
        if len(inside) > 1:
            return Reason.AMBIGUOUS, f"{len(inside)} exposures fall into the window of this part"
        if len(self._claims(inside[0])) > 1:
            return Reason.AMBIGUOUS, "the exposure falls into the windows of two parts"
        if inside[0].late:
            return Reason.STALE, "the frame arrived later than [hard_wired] arrival_max_ms"
        return None, ""


class DeviceClock:
    """Maps the times of a camera that has its own clock to the inspector's monotonic clock.

    The smallest difference of arrival and device time that was seen is that of the fastest frame, which took
    ``transit_ms`` (measured at commissioning). A mapped time may be too late by what that frame took longer, never by
    more than any frame takes, and off by the drift within DEVICE_WINDOW_NS.
    """

    def __init__(self, settings: HardWired) -> None:
        self._transit_ns = settings.transit_ms * MS
        self._frames = settings.device_frames
        self._seen: deque[tuple[int, int]] = deque(maxlen=DEVICE_SAMPLES)

    def map(self, device_us: int, now_ns: int) -> int | None:
        """When a frame that arrives now was exposed; None: too few frames were seen to tell."""
        device_ns = device_us * 1000
        while self._seen and now_ns - self._seen[0][0] > DEVICE_WINDOW_NS:
            self._seen.popleft()
        if self._seen and now_ns - device_ns - self._seen[-1][1] > DEVICE_JUMP_NS:
            self._seen.clear()
        self._seen.append((now_ns, now_ns - device_ns))
        if len(self._seen) <= self._frames:
            return None
        return device_ns + min(difference for _, difference in self._seen) - self._transit_ns
