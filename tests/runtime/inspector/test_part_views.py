"""The core that combines views, against an oracle that knows the list of events alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asperity.runtime.frame import Result, Verdict
from asperity.runtime.inspector.part_views import OpenPart, PartViews
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.scoring import PartDue, ViewDue, ViewSeen, combine

SESSION, OTHER = "7d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d", "0b0e7a1c-3f52-4c1e-9d0a-5f6e7d8c9b0a"
NAMES = ("front", "back", "top", "left")
COMPLETE_NS = 1000
WORDS = {"ok": Reason.GOOD, "ng": Reason.SCORE_ABOVE_THRESHOLD, "lost": Reason.NO_FRAME, "late": Reason.DEADLINE}
FIELDS: dict[str, dict[str, Any]] = {
    "another camera": {"station": "elsewhere"}, "another trigger": {"trigger_id": 4_000_000},
    "another part": {"part_id": "another"}, "another session": {"session": OTHER}, "no view": {"view_of": ""},
    "another recipe": {"recipe": "b"}, "another bundle": {"bundle": "4567"}, "another line": {"view_of": "another"},
}  # fmt: skip


def result(station: str, result_id: int, trigger_id: int, word: str = "ok") -> Result:
    verdict = {"ok": Verdict.OK, "ng": Verdict.NG}.get(word, Verdict.UNKNOWN)
    judged = verdict is not Verdict.UNKNOWN
    return Result(
        station=station, session=SESSION, result_id=result_id, trigger_id=trigger_id, part_id=f"p{trigger_id}",
        verdict=verdict, reason=WORDS[word], score=(3.0 if word == "ng" else 1.0) if judged else None,
        threshold=2.0 if judged else None, recipe="a", bundle="0123", view_of="part",
    )  # fmt: skip


def opened(parts: PartViews, trigger_id: int, names: tuple[str, ...], now_ns: int) -> OpenPart:
    tickets = zip(parts.tickets(len(names)), names, strict=True)
    views = tuple(ViewDue(ticket, name, "a", "0123") for ticket, name in tickets)
    due = PartDue("part", SESSION, trigger_id, f"p{trigger_id}", views, now_ns + COMPLETE_NS)
    part = OpenPart(PendingTrigger(trigger_id, f"p{trigger_id}", None, 0, None, 0), due, now_ns)
    part.given |= {view.ticket for view in views}
    parts.open(part)
    return part


@dataclass
class Told:
    """What happened to one part, as the oracle knows it."""

    trigger_id: int
    tickets: dict[int, str]
    ends_ns: int
    came: list[tuple[int, Result, int]] = field(default_factory=list)
    ended: bool = False
    answers: list[OpenPart] = field(default_factory=list)

    def good(self) -> bool:
        """Each view has exactly one result, which is ok, its own, of this trigger, and in time; and nothing else."""
        wanted = sorted((ticket, name) for ticket, name in self.tickets.items())
        found = sorted((ticket, one.station) for ticket, one, at_ns in self.came if self.fits(one, at_ns))
        ids = {(one.station, one.result_id) for _, one, _ in self.came}
        return not self.ended and found == wanted and len(self.came) == len(ids) == len(wanted)

    def fits(self, one: Result, at_ns: int) -> bool:
        own = (one.session, one.recipe, one.bundle, one.view_of) == (SESSION, "a", "0123", "part")
        own &= (one.trigger_id, one.part_id) == (self.trigger_id, f"p{self.trigger_id}")
        return own and one.verdict == 1 and at_ns <= self.ends_ns


class AnyViews(RuleBasedStateMachine):
    """Views of up to four parts: right, lost, late, doubled, swapped between parts and cameras, of an old session."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = self.ids = self.given = 0
        self.names, self.parts = NAMES, PartViews(4)
        self.told: list[Told] = []

    @initialize(count=st.integers(1, 4))
    def begin(self, count: int) -> None:
        self.names = NAMES[:count]

    def open_ones(self) -> list[Told]:
        return [told for told in self.told if not told.answers]

    @rule(reuse=st.booleans())
    def trigger(self, reuse: bool) -> None:
        trigger_id = 1 if reuse else self.given + 2
        if self.parts.busy(trigger_id):
            return
        self.given += 1
        part = opened(self.parts, trigger_id, self.names, self.now_ns)
        tickets = {view.ticket: view.station for view in part.due.views}
        self.told.append(Told(trigger_id, tickets, part.due.ends_ns))

    def tell(self, ticket: int, one: Result) -> None:
        for told in self.open_ones():
            if ticket in told.tickets:
                told.came.append((ticket, one, self.now_ns))
        self.parts.take(ticket, one, self.now_ns)

    def due(self, which: int) -> tuple[Told, int, str] | None:
        """A view that has no result yet, of an open part."""
        found = [
            (told, ticket, name)
            for told in self.open_ones()
            for ticket, name in told.tickets.items()
            if ticket not in {came[0] for came in told.came}
        ]
        return found[which % len(found)] if found else None

    @rule(which=st.integers(0, 15), word=st.sampled_from(["ok", "ok", "ok", "ok", "ng", "lost"]))
    def right(self, which: int, word: str) -> None:
        if due := self.due(which):
            self.ids += 1
            self.tell(due[1], result(due[2], self.ids, due[0].trigger_id, word))

    @rule(which=st.integers(0, 15), how=st.sampled_from(sorted(FIELDS)))
    def of_another(self, which: int, how: str) -> None:
        if due := self.due(which):
            self.ids += 1
            self.tell(due[1], replace(result(due[2], self.ids, due[0].trigger_id), **FIELDS[how]))

    @rule(which=st.integers(0, 99))
    def doubled(self, which: int) -> None:
        came = [(ticket, one) for told in self.told for ticket, one, _ in told.came]
        if came:
            ticket, one = came[which % len(came)]
            self.ids += 1
            self.tell(ticket, replace(one, result_id=self.ids))

    @rule(which=st.integers(0, 99))
    def swapped(self, which: int) -> None:
        """The results of two parts for one camera, each under the other's ticket."""
        open_ones = self.open_ones()
        if len(open_ones) < 2:
            return
        one, other = open_ones[which % len(open_ones)], open_ones[(which + 1) % len(open_ones)]
        for mine, theirs in ((one, other), (other, one)):
            self.ids += 1
            self.tell(next(iter(mine.tickets)), result(self.names[0], self.ids, theirs.trigger_id))

    @rule(ns=st.sampled_from([1, 100, 400, 1000]))
    def time_passes(self, ns: int) -> None:
        self.now_ns += ns

    @rule()
    def abort(self) -> None:
        self.parts.end(Reason.ABORTED, "an operator")
        for told in self.open_ones():
            told.ended = True

    @rule()
    def look(self) -> None:
        """As every turn of the station does."""
        for part in self.parts.over(self.now_ns):
            tickets = {view.ticket for view in part.due.views}
            next(told for told in self.told if set(told.tickets) == tickets).answers.append(part)

    @invariant()
    def parts_add_up_and_nothing_wrong_is_accepted(self) -> None:
        answered = [told for told in self.told if told.answers]
        assert self.given == self.parts.opened == len(answered) + len(self.parts), "the law of parts"
        for told in answered:
            (part,) = told.answers
            assert (part.judgement().verdict is Verdict.OK) == told.good()

    def teardown(self) -> None:
        self.now_ns += 10 * COMPLETE_NS
        self.look()
        assert len(self.parts) == 0, "every part is answered, whatever happens"
        self.parts_add_up_and_nothing_wrong_is_accepted()


AnyViews.TestCase.settings = settings(
    max_examples=150, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyViews = AnyViews.TestCase


def accepted(count: int) -> tuple[PartDue, list[ViewSeen]]:
    parts = PartViews(4)
    part = opened(parts, 7, NAMES[:count], 0)
    for at, view in enumerate(part.due.views):
        parts.take(view.ticket, result(view.station, at + 1, 7), 10)
    assert combine(part.due, part.seen).verdict is Verdict.OK
    return part.due, part.seen


HOW = (*FIELDS, "removed", "late", "doubled", "ng", "lost", "the same result", "another ticket")


@given(count=st.integers(1, 4), at=st.integers(0, 3), how=st.sampled_from(HOW))
@settings(max_examples=150, deadline=None)
def test_no_change_to_any_one_view_leaves_the_part_accepted(count: int, at: int, how: str) -> None:
    due, seen = accepted(count)
    at %= count
    one = seen[at]
    if how in FIELDS:
        seen[at] = replace(one, result=replace(one.result, **FIELDS[how]))
    elif how in ("ng", "lost"):
        seen[at] = replace(one, result=result(one.result.station, 99, 7, how))
    elif how == "late":
        seen[at] = replace(one, at_ns=due.ends_ns + 1)
    elif how == "another ticket":
        seen[at] = replace(one, ticket=1000)
    elif how == "the same result":
        seen.append(replace(one, ticket=1000))
    elif how == "doubled":
        seen.append(replace(one, result=replace(one.result, result_id=99)))
    else:
        del seen[at]
    judgement = combine(due, seen)
    assert judgement.verdict is not Verdict.OK
    assert (judgement.verdict is Verdict.NG) == (how == "ng")


@pytest.mark.parametrize(
    "words", [("ok", "ok", "ok"), ("ok", "ng", "ok"), ("ng", "lost", "ok"), ("late", "lost", "ok")]
)
def test_the_order_in_which_views_come_never_changes_the_verdict(words: tuple[str, ...]) -> None:
    due, seen = accepted(3)
    seen = [
        replace(one, result=result(one.result.station, at + 1, 7, word))
        for at, (one, word) in enumerate(zip(seen, words, strict=True))
    ]
    found = [combine(due, order) for order in permutations(seen)]
    assert len({(judgement.verdict, judgement.reason) for judgement in found}) == 1


def test_with_one_view_the_part_has_the_verdict_of_its_frame() -> None:
    for word, reason in WORDS.items():
        due, seen = accepted(1)
        one = result("front", 1, 7, word)
        judgement = combine(due, [replace(seen[0], result=one)])
        assert (judgement.verdict, judgement.reason) == (one.verdict, reason)
        assert (judgement.score, judgement.threshold) == (one.score, one.threshold)


def test_no_views_no_part() -> None:
    due, _ = accepted(1)
    assert combine(replace(due, views=()), []).verdict is Verdict.UNKNOWN
    with pytest.raises(AssertionError):
        OpenPart(PendingTrigger(1, "", None, 0, None, 0), due, 0).end(Reason.GOOD, "no part is made good by its end")


def test_two_views_that_one_result_stands_for_are_a_conflict() -> None:
    due, seen = accepted(1)
    twice = replace(due, views=(due.views[0], replace(due.views[0], ticket=2)))
    both = [seen[0], replace(seen[0], ticket=2)]
    assert combine(twice, both).reason is Reason.VIEW_CONFLICT
    same_ticket = replace(due, views=(due.views[0], due.views[0]))
    assert combine(same_ticket, seen).reason is Reason.VIEW_CONFLICT


def test_the_worst_view_is_the_one_whose_score_shows() -> None:
    due, seen = accepted(2)
    seen[0] = replace(seen[0], result=replace(seen[0].result, score=0.9, threshold=1.0))
    seen[1] = replace(seen[1], result=replace(seen[1].result, score=5.0, threshold=100.0))
    judgement = combine(due, seen)
    assert (judgement.verdict, judgement.score, judgement.threshold) == (Verdict.OK, 0.9, 1.0)
    below = replace(seen[0].result, score=-0.5, threshold=-0.25)  # of a threshold that is not above 0
    assert combine(due, [replace(seen[0], result=below), seen[1]]).score == -0.5
    broken = replace(seen[1].result, score=5.0, threshold=4.0)  # ok, and yet above: no result that decide makes
    assert combine(due, [seen[0], replace(seen[1], result=broken)]).reason is Reason.ENGINE
