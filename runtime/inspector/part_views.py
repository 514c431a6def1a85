"""Which results are the views of which part, and when a part is answered. Pure: the time is an argument.

A part is *open* from its first trigger until its one combined result. Each of its views has a ticket; the trigger of
the view carries it, and the view's one result brings it back. A part is answered when all its tickets are back, when
its time is up, or when something ends it; ``scoring.combine`` says what its views then amount to.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from asperity.runtime.frame import Result, Verdict, ViewSummary
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.vision.scoring import Judgement, PartDue, ViewDue, ViewSeen, combine


@dataclass(slots=True)
class OpenPart:
    """A part that was triggered and has no result yet."""

    trigger: PendingTrigger
    """As the combined station took it, with its entry in the journal."""
    due: PartDue
    opened_ns: int
    given: set[int] = field(default_factory=set)
    """Tickets whose view was triggered."""
    seen: list[ViewSeen] = field(default_factory=list)
    ended: Reason | None = None
    """Why it can no longer be accepted, whatever its views say."""
    why: str = ""

    @property
    def waiting(self) -> list[ViewDue]:
        """Views that were not triggered yet."""
        return [view for view in self.due.views if view.ticket not in self.given]

    def end(self, reason: Reason, why: str) -> None:
        """Answer it with this reason, the first that is given."""
        assert reason not in JUDGED, "no part is judged by the way it ended"
        if self.ended is None:
            self.ended, self.why = reason, why

    def over(self, now_ns: int) -> bool:
        """It is answered now."""
        answered = {one.ticket for one in self.seen}
        complete = all(view.ticket in answered for view in self.due.views)
        return complete or self.ended is not None or now_ns >= self.due.ends_ns

    def over_time(self, now_ns: int) -> bool:
        """Its time is up, and a view is missing."""
        return now_ns >= self.due.ends_ns and len(self.seen) < len(self.due.views)

    def judgement(self) -> Judgement:
        """What its views amount to."""
        found = combine(self.due, self.seen)
        return found if self.ended is None else Judgement(Verdict.UNKNOWN, self.ended, self.why or found.detail)

    def summaries(self) -> tuple[ViewSummary, ...]:
        """Its views as the combined result lists them; one without a result has id 0."""
        results = {one.ticket: one.result for one in self.seen}
        return tuple(_summary(view, results.get(view.ticket)) for view in self.due.views)


def _summary(view: ViewDue, result: Result | None) -> ViewSummary:
    if result is None:
        return ViewSummary(view.station, 0, int(Verdict.UNKNOWN), int(Reason.NOT_JUDGED))
    return ViewSummary(view.station, result.result_id, int(result.verdict), int(result.reason), result.score)


class PartViews:
    """The open parts of one combined station, in the order in which they were triggered."""

    def __init__(self, open_max: int, *, one_by_one: bool = False) -> None:
        """``one_by_one``: each view of a part is triggered by itself, so parts may overlap on their way along them."""
        self._open_max = open_max
        self._one_by_one = one_by_one
        self._open: dict[int, OpenPart] = {}
        self._tickets = itertools.count(1)
        self.opened = 0
        """Parts that were ever opened; with the number answered and the open ones it must add up."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenPart]:
        return iter(list(self._open.values()))

    def get(self, trigger_id: int) -> OpenPart | None:
        """The open part of a trigger."""
        return self._open.get(trigger_id)

    def busy(self, trigger_id: int) -> str:
        """Why no part can be opened by this trigger now; empty: one can."""
        if trigger_id in self._open:
            return f"the part of trigger {trigger_id} is still open"
        if len(self._open) >= self._open_max:
            return f"{len(self._open)} parts have no result yet"
        exposing = [each for each, part in self._open.items() if part.waiting and not self._one_by_one]
        return f"the part of trigger {exposing[0]} waits for exposures of its own" if exposing else ""

    def tickets(self, count: int) -> list[int]:
        """As many that were never given before."""
        return [next(self._tickets) for _ in range(count)]

    def open(self, part: OpenPart) -> None:
        """Take a part for which ``busy`` is empty."""
        assert not self.busy(part.due.trigger_id)
        self._open[part.due.trigger_id] = part
        self.opened += 1

    def take(self, ticket: int, result: Result, now_ns: int) -> bool:
        """A view's result. False: its part was answered already, or there is none, and nothing comes of it."""
        for part in self._open.values():
            if any(view.ticket == ticket for view in part.due.views):
                part.seen.append(ViewSeen(ticket, result, now_ns))
                return True
        return False

    def follow(self, trigger_id: int, part_id: str) -> None:
        """Another part's trigger is not taken: what is exposed from now on may show that part. A part that still
        waits for an exposure which the station triggers is therefore over."""
        for part in self._open.values():
            same = part.due.trigger_id == trigger_id or (part_id != "" and part.due.part_id == part_id)
            if part.waiting and not same and not self._one_by_one:
                part.end(Reason.AMBIGUOUS, f"trigger {trigger_id} came before all views of this part were exposed")

    def end(self, reason: Reason, why: str) -> None:
        """Answer all with this reason."""
        for part in self._open.values():
            part.end(reason, why)

    def over(self, now_ns: int) -> list[OpenPart]:
        """The parts that are answered now, no longer open."""
        over = [part for part in self._open.values() if part.over(now_ns)]
        for part in over:
            del self._open[part.due.trigger_id]
        return over

    def next_end_ns(self) -> int | None:
        """When the time of the next one is up."""
        return min((part.due.ends_ns for part in self._open.values()), default=None)
