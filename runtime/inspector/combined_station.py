"""A combined station: one result per part, from the results of the stations that see it. Part of the I/O thread.

It has a name, journal, ids, counters and topics as any station, and no camera and no engine. A part comes in by a
trigger, which it gives to its views; each view answers its own frame by its own rules (``inspector.station``), and
brings the ticket of that trigger back. Only what ``scoring.combine`` says of all of them can accept the part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import msgspec

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.inspector.alarms import Alarms
from asperity.runtime.inspector.combined_recipes import PartRecipe, PartRecipes
from asperity.runtime.inspector.counting import Counting
from asperity.runtime.inspector.event_log import EventLog
from asperity.runtime.inspector.giving import batch_of, give_trigger, trigger_busy, trigger_refusal
from asperity.runtime.inspector.part_views import OpenPart, PartViews
from asperity.runtime.inspector.results import Results
from asperity.runtime.inspector.station import COUNTED, Station
from asperity.runtime.inspector.triggers import PendingTrigger
from asperity.runtime.reasons import Reason
from asperity.runtime.records import ledger
from asperity.runtime.records.audit import Audit
from asperity.runtime.records.journal import Journal
from asperity.runtime.records.recovery import settle_past
from asperity.runtime.settings.combined_stations import combining
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.settings.view_sections import Combined
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from asperity.runtime.states import JUDGING, READY_STATES, State
from asperity.runtime.vision.scoring import PartDue, ViewDue
from asperity.runtime.wire.clocks import Clocks
from asperity.runtime.wire.common import MAX_ALARMS

LEAST_FIRST = (State.ERROR, State.HALTED, State.PREOPERATIONAL, State.INITIALIZED, State.READY, State.SINGLE_EXECUTION)
"""A combined station is in the first of these in which any of its views is; in none: ContinuousExecution."""


class Given(NamedTuple):
    """What is kept of a part's first trigger until its result."""

    request: wire.Request
    hard_wired: bool
    recipe: PartRecipe


class CombinedStation:
    """Stands above its views. Every method is for the I/O thread."""

    def __init__(
        self,
        config: StationConfig,
        rules: Combined,
        stations: Sequence[Station],
        journal: Journal,
        sockets: InspectorSockets,
        clock: Callable[[], Now],
        audit: Audit,
    ) -> None:
        """``config``: the process's. ``stations``: all of them."""
        by_name = {station.name: station for station in stations}
        self.config = combining(config, rules, by_name[rules.views[0]].config.station)
        self.rules = rules
        self.name = rules.name
        self.seen_by = [by_name[name] for name in rules.views]
        """The station of each view, in the order of the views."""
        self.stations = list(dict.fromkeys(self.seen_by))
        self.journal = journal
        self.session, self.started_ns = stations[0].session, stations[0].started_ns
        self.clock = clock
        self.ledger = ledger.Ledger()
        self.parts = PartViews(rules.open_max, one_by_one=rules.triggered == "one_by_one")
        self.answered_parts = 0
        self.fault = ""
        """Why it can combine nothing until a reset; empty: it can."""
        self.notice = EventLog(self.name, self.session, config.log, sockets.publish, clock)
        self.alarms = Alarms(self.notice)
        self.record = partial(audit.record, self.name)
        self.recipes = PartRecipes(rules.recipes, self.stations, self.notice, self.record)
        self.counting = Counting(self.config, self.session, journal, sockets, clock())
        self.results = Results(
            self.config, self.session, journal, self.ledger, sockets, self, self.notice, lambda result_id: None, clock,
            self.counting,
        )  # fmt: skip
        self._sockets = sockets
        self._given: dict[int, Given] = {}
        self._state_due_ns = 0
        self._state_shown: tuple[object, ...] = ()
        for station in self.stations:
            station.results.on_view = self._take

    def begin(self) -> None:
        """Settle what an earlier run left owing: each open part is answered RESTARTED, once."""
        notes = self.journal.notes
        if notes:
            self.alarms.show("JOURNAL", f"{len(notes)} findings: {'; '.join(notes[-3:])}")
        self.counting.begin()
        for result in settle_past(self.journal, self.ledger, ledger.Sequence(0, 1)):
            self.results.send(result, wire.encode_result_body(result))
            self.counting.count(result)

    # ------------------------------------------------------------------ what it is

    @property
    def state(self) -> State:
        """Of all views: judging only while each of them is, and their recipes belong together."""
        if self.fault:
            return State.ERROR
        states = {station.controller.state for station in self.stations}
        least = next((state for state in LEAST_FIRST if state in states), State.CONTINUOUS_EXECUTION)
        if least in READY_STATES and self.recipes.active is None:
            return State.INITIALIZED
        return State.READY if least is State.SINGLE_EXECUTION else least

    @property
    def recipe(self) -> PartRecipe | None:
        """By which its views judge."""
        return self.recipes.active

    def answered(self, trigger_id: int) -> None:
        """As ``results.Operated``: there is nothing to do."""

    # ------------------------------------------------------------------ a part comes in

    def refusal(self, request: wire.Request, hard_wired: bool, views: Sequence[Station]) -> str:
        """Why these views do not take a trigger, however often it is repeated; empty: each of them does."""
        name = self.recipe.name if self.recipe is not None else "none"
        if request.recipe is not None and request.recipe != name:
            return f"recipe {request.recipe} was requested, but {name} is active"
        for station in dict.fromkeys(views):
            if refusal := trigger_refusal(station, _for_view(request, station), hard_wired):
                return f"view {station.name}: {refusal}"
        return ""

    def busy(self, trigger_id: int, views: Sequence[Station]) -> str:
        """Why one of these views does not take a trigger now; empty: each of them does."""
        for station in dict.fromkeys(views):
            if busy := trigger_busy(station, trigger_id):
                return f"view {station.name}: {busy}"
        return ""

    def follow(self, request: wire.Request, views: Sequence[Station]) -> None:
        """A trigger is not taken: its part may be where these views look from now on."""
        assert request.trigger_id is not None  # the wire requires it
        for station in dict.fromkeys(views):
            station.triggers.follow(request.trigger_id, request.part_id or "", self.clock().ns)
        self.parts.follow(request.trigger_id, request.part_id or "")

    def open(self, request: wire.Request, hard_wired: bool) -> OpenPart:
        """Take a part that is neither refused nor busy: it is owed a result from here on."""
        now, batch, recipe = self.clock(), batch_of(request, self.counting.batch), self.recipe
        assert request.trigger_id is not None and recipe is not None  # or its state would not allow a trigger
        owed = Result(
            station=self.name,
            session=self.session,
            result_id=self.journal.last_id + 1,
            trigger_id=request.trigger_id,
            part_id=request.part_id or "",
            recipe=recipe.name,
            bundle=recipe.bundle,
            reason=Reason.RESTARTED,
            t_done_us=now.wall_us,
            position=request.position,
            **batch._asdict(),
        )
        entry = self.journal.promise(wire.encode_result_body(owed))
        trigger = PendingTrigger(
            request.trigger_id, request.part_id or "", request.recipe, 0, None, entry, batch, request.position
        )
        views = tuple(map(_due, self.parts.tickets(len(self.seen_by)), self.seen_by))
        ends_ns = now.ns + self.rules.complete_ms * MS
        due = PartDue(self.name, self.session, request.trigger_id, request.part_id or "", views, ends_ns)
        part = OpenPart(trigger, due, now.ns)
        self.parts.open(part)
        self._given[request.trigger_id] = Given(request, hard_wired, recipe)
        return part

    def give(self, part: OpenPart, at: int, request: wire.Request) -> None:
        """Have view ``at``, counted from 0, of the part exposed. It was neither refused nor busy."""
        station, hard_wired = self.seen_by[at], self._given[part.due.trigger_id].hard_wired
        ticket = part.due.views[at].ticket
        part.given.add(ticket)
        give_trigger(station, _for_view(request, station), hard_wired, part.trigger.batch, ticket)

    def _give_next(self) -> None:
        """Triggers of stations that see a part several times: the next as soon as the previous frame has arrived."""
        if self.rules.triggered != "together":
            return
        for part in self.parts:
            given = self._given[part.due.trigger_id]
            unknown = next((one.result for one in part.seen if one.result.verdict is Verdict.UNKNOWN), None)
            if unknown is not None and part.waiting:
                part.end(unknown.reason, f"view {unknown.station} was unknown before all were exposed")
            for at, view in enumerate(part.due.views):
                station = self.seen_by[at]
                if part.ended is not None or view.ticket in part.given or station in self._exposing(part):
                    continue
                if station.controller.state not in JUDGING:
                    part.end(Reason.NOT_RUNNING, f"view {station.name} stopped judging before all were exposed")
                elif refusal := self.refusal(given.request, given.hard_wired, [station]):
                    part.end(Reason.WRONG_RECIPE, refusal)
                elif not self.busy(part.due.trigger_id, [station]):
                    self.give(part, at, given.request)

    def _exposing(self, part: OpenPart) -> set[Station]:
        """Views whose last exposure of this part has not arrived, failed, or waits behind as many as may wait."""
        found = set()
        for at, view in enumerate(part.due.views):
            station = self.seen_by[at]
            pending = any(trigger.ticket == view.ticket for trigger in station.triggers)
            if view.ticket in part.given and (pending or len(station.work) >= self.config.limits.queue_length):
                found.add(station)
        return found

    # ------------------------------------------------------------------ a part is answered

    def _take(self, ticket: int, result: Result) -> None:
        """A view's one answer to a trigger that was given for a part."""
        if not self.parts.take(ticket, result, self.clock().ns):
            text = f"result {result.result_id} of view {result.station} came after its part was answered"
            self.notice("info", "LATE_VIEW", text, result.result_id)

    def _answer(self, part: OpenPart, now: Now) -> None:
        """The one result of a part, whatever has become of its views."""
        judgement, results = part.judgement(), [one.result for one in part.seen]
        recipe = self._given.pop(part.due.trigger_id).recipe
        born = self.results.born(wire.FrameIdentity(), part.trigger)
        self.ledger.receive()
        self.answered_parts += 1
        self.results.publish(
            replace(
                born,
                verdict=judgement.verdict,
                reason=judgement.reason,
                score=judgement.score,
                threshold=judgement.threshold,
                recipe=recipe.name,
                bundle=recipe.bundle,
                simulated=born.simulated or recipe.simulated or any(result.simulated for result in results),
                t_exposure_us=min((r.t_exposure_us for r in results if r.t_exposure_us), default=0),
                latency_us={"total": (now.ns - part.opened_ns) // 1000},
                deadline_us=self.rules.complete_ms * 1000,
                deadline_missed=part.over_time(now.ns) or any(result.deadline_missed for result in results),
                views=part.summaries(),
            ),
            judgement.detail,
        )
        self.journal.redeem(part.trigger.entry)

    def drop_parts(self, reason: Reason, why: str) -> None:
        """Answer every open part now."""
        self.parts.end(reason, why)
        self._answer_over(self.clock())

    def _answer_over(self, now: Now) -> None:
        for part in self.parts.over(now.ns):
            self._answer(part, now)

    def fail(self, kind: str, text: str) -> None:
        """To Error until a reset: no part is accepted."""
        self.alarms.show(kind, text)
        self.fault = text
        self.drop_parts(Reason.ENGINE, text)

    def reset(self) -> None:
        """Leave Error, if its cause is gone."""
        self.fault = ""
        self.alarms.clear()

    # ------------------------------------------------------------------ time passes

    def on_time(self, now: Now) -> None:
        """After the views: what they answered, what is due, the accounting, the state message."""
        self._give_next()
        self._answer_over(now)
        self.recipes.watch()
        if self.journal.look() and self.fault != self.journal.fault:
            self.fail("JOURNAL", self.journal.fault)
        imbalance = self.ledger.imbalance(0) or self.parts.opened - self.answered_parts - len(self.parts)
        if imbalance and "LAW" not in self.alarms:
            self.fail("LAW", f"accounting error: parts differ from results by {imbalance}; please report this")
        together = ("VIEWS_BACK", "the recipes of the views belong together again")
        self.alarms.hold("VIEWS", self.recipes.mixed, "warning", gone=together)
        self.counting.look(now, ())
        self.alarms.hold("COUNTERS", self.counting.problem, "warning")
        self.publish_state(now)

    def state_message(self, now: Now) -> wire.StationState:
        """What a receiver acts on: ready only while every view is, alive only while every view is."""
        views = [station.state_message(now) for station in self.stations]
        state, recipe, first = self.state, self.recipe, views[0]
        alarms = dict.fromkeys([*self.alarms, *(alarm for view in views for alarm in view.alarms)])
        return wire.StationState(
            station=self.name,
            session=self.session,
            uptime_ms=(now.ns - self.started_ns) // MS,
            beat=min(view.beat for view in views),
            beat_timeout_ms=max(view.beat_timeout_ms for view in views),
            state=int(state),
            ready=state in READY_STATES and recipe is not None and all(view.ready for view in views),
            autostart=all(view.autostart for view in views),
            triggers=first.triggers,
            synced=None if first.synced is None else all(view.synced for view in views),
            recipe=recipe.name if recipe else "",
            recipe_change=self.recipes.changes.last,
            bundle=recipe.bundle if recipe else "",
            engine=first.engine,
            clocks=Clocks(computer=first.clocks.computer) if first.clocks is not None else None,
            last_result_id=self.results.last_published_id,
            alarms=tuple(alarms)[:MAX_ALARMS],
            unknown_by_reason={reason.name: count for reason, count in self.ledger.unknown_by_reason.items()},
            access_refused=dict(self._sockets.access.refused),
            views=tuple(station.name for station in self.seen_by),
            parts_open=len(self.parts),
            **{name: getattr(self.ledger, name) for name in COUNTED},
            **self.counting.batch._asdict(),
        )

    def publish_state(self, now: Now) -> None:
        """Five times per second, and at once when something changed that a receiver acts on."""
        tested = all(station.controller.tested for station in self.stations)
        shown = (self.state, tested, self.recipe, self.recipes.changes.last, tuple(self.alarms))
        if now.ns < self._state_due_ns and shown == self._state_shown:
            return
        self._state_due_ns = now.ns + self.config.timing.state_interval_ms * MS
        self._state_shown = shown
        self._sockets.publish(wire.encode_state(self.state_message(now)))

    def next_due_ns(self) -> int:
        """When time next demands something: a part's end, a state message."""
        end_ns = self.parts.next_end_ns()
        return self._state_due_ns if end_ns is None else min(self._state_due_ns, end_ns)

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """After its views: answer the rest."""
        self._answer_over(self.clock())
        self.drop_parts(Reason.SHUTDOWN, "the inspector is shutting down")
        self.publish_state(self.clock())

    def close(self) -> None:
        """Its files."""
        self.counting.close(())
        self.journal.close()


def _for_view(request: wire.Request, station: Station) -> wire.Request:
    """The part's trigger, as one view takes it: judged by the recipe that is active there now, or not at all."""
    recipe = station.controller.recipe
    name = recipe.name if recipe else None
    return msgspec.structs.replace(request, station=station.name, recipe=name, view=wire.UNSET)


def _due(ticket: int, station: Station) -> ViewDue:
    recipe = station.controller.recipe
    assert recipe is not None  # or the combined station would have none
    return ViewDue(ticket, station.name, recipe.name, recipe.bundle)
