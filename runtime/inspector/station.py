"""One station of the inspector: its frames, its results, its accounting. Part of the I/O thread; it never computes.

``runtime.inspector.desk`` describes a frame's path through this file; ``inspector.results`` sends its results.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from asperity.runtime import wire
from asperity.runtime.clock import MS, Now
from asperity.runtime.errors import FrameRefused
from asperity.runtime.frame import Frame, Verdict
from asperity.runtime.inspector.admitted import Admitted
from asperity.runtime.inspector.camera_guard import CameraGuard
from asperity.runtime.inspector.clocks import ClockWatch, StationClocks
from asperity.runtime.inspector.controller import Controller
from asperity.runtime.inspector.counting import Counting
from asperity.runtime.inspector.event_log import EventLog
from asperity.runtime.inspector.frame_times import may_be_the_next_parts, too_old
from asperity.runtime.inspector.hard_wired_line import WiredLine
from asperity.runtime.inspector.line_guard import LineGuard
from asperity.runtime.inspector.part_matching import Match
from asperity.runtime.inspector.results import Results
from asperity.runtime.inspector.triggers import PendingTrigger, Triggers
from asperity.runtime.judging.engine_thread import Report, StationSlot, TakenOver, Tested
from asperity.runtime.judging.pipeline import Job, Outcome
from asperity.runtime.judging.recipe_loader import Loader
from asperity.runtime.reasons import Reason
from asperity.runtime.records import ledger
from asperity.runtime.records.audit import Audit
from asperity.runtime.records.journal import Journal
from asperity.runtime.records.recovery import settle_past
from asperity.runtime.records.slowest_frames import FrameTrace, SlowestFrames, write_document
from asperity.runtime.settings.paths import trace_path
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.inspector_sockets import InspectorSockets
from asperity.runtime.states import JUDGING, READY_STATES

COUNTED = ("received", "lost", "ok", "ng", "unknown", "deadline_missed", "late")
"""What a state says of the ledger by the same name."""


class Station:
    """One station's own camera, counters, journal, recipe and state. Every method is for the I/O thread."""

    def __init__(
        self,
        config: StationConfig,
        journal: Journal,
        session: str,
        sockets: InspectorSockets,
        slot: StationSlot,
        loader: Loader,
        clock: Callable[[], Now],
        started_ns: int,
        audit: Audit,
        clock_watch: ClockWatch,
    ) -> None:
        """``started_ns``: when the session began."""
        self.config = config
        self.name = config.station.name
        self.camera = config.station.camera
        self.journal = journal
        self.session = session
        self.sockets = sockets
        self.slot = slot
        self.clock = clock
        self.closing = False
        """The process is ending: what still comes is refused."""
        self.ledger = ledger.Ledger()
        self.sequence = ledger.Sequence(config.limits.seq_gap_max, config.limits.camera_sessions)
        self.line = WiredLine(config, clock()) if config.station.triggers == "hard_wired" else None
        self.triggers = Triggers(config.triggers.pending_max)
        self.work: dict[int, Admitted] = {}
        self.slowest = SlowestFrames(config.trace.slowest) if config.trace.slowest else None
        self.notice = EventLog(self.name, session, config.log, sockets.publish, clock)
        self.clocks = StationClocks(config, clock_watch, self.notice, clock())
        self.started_ns = started_ns
        self.record = partial(audit.record, self.name)
        self.controller = Controller(
            config, slot, loader, self.notice, self.drop_work, self.drop_triggers, self.record, clock
        )
        self.counting = Counting(config, session, journal, sockets, clock())
        self.results = Results(
            config, session, journal, self.ledger, sockets, self.controller, self.notice, self._make_room, clock,
            self.counting,
        )  # fmt: skip
        on_restart = self.line.another_session if self.line is not None else lambda: None
        self.guard = CameraGuard(self.camera, sockets, self.controller, self.notice, self.drop_work, on_restart)
        self.line_guard: LineGuard | None = None
        if self.line is not None:
            self.line_guard = LineGuard(self.line, sockets, self.controller, self.notice, self._matched)
        self._last_frame_ns = self._state_due_ns = 0
        self._state_shown: tuple[object, ...] = ()

    def begin(self, first_recipe: str) -> None:
        """Settle what an earlier run left owing, then start the self-test and the first recipe."""
        engine, notes = self.controller.engine, self.journal.notes
        self.notice("info", "START", f"engine {engine.name} on {engine.device}, {engine.precision}")
        if notes:
            self.controller.alarms.show("JOURNAL", f"{len(notes)} findings: {'; '.join(notes[-3:])}")
        self.counting.begin()
        if self.counting.problem:
            self.notice("warning", "COUNTERS", self.counting.problem)
        for result in settle_past(self.journal, self.ledger, self.sequence):
            self.results.send(result, wire.encode_result_body(result))
            self.counting.count(result)
        self.controller.begin(first_recipe)

    @property
    def promised(self) -> int:
        """Triggers that the journal owes a result: the pending ones, and parts whose own exposure is not judged yet."""
        matched = sum(work.trigger is not None for work in self.work.values()) if self.line is not None else 0
        return len(self.triggers) + matched

    # ------------------------------------------------------------------ a frame comes in

    def on_frame(self, frame: Frame, now: Now) -> None:
        """A well-formed frame. One of another camera is refused: it belongs to no station, or it would not be here."""
        who = wire.identity(frame)
        if frame.camera != self.camera:
            self.ledger.receive()
            self.results.answer(who, None, Reason.WRONG_CAMERA, f"it is from camera {frame.camera}")
            return
        self._last_frame_ns = now.ns
        if self._comes_late(frame.camera_session, frame.seq):
            return
        if not self.guard.is_the_cameras(who.camera_session):
            self.ledger.receive()
            self._miss_exposure(None, now)
            self.results.answer(who, None, Reason.CAMERA_CONFLICT)
            return
        self.ledger.receive()
        self.clocks.on_frame(frame, now)
        arrival = self.sequence.arrive(frame.camera_session, frame.seq)
        exposed_ns = self.line.exposed_ns(frame, now, self.clocks) if self.line is not None else None
        if arrival.lost:
            self._miss_exposure(exposed_ns, now)
            self.results.answer_lost(who, arrival.lost)
        if arrival.reason is Reason.SEQ_JUMP:
            self.controller.alarms.show(Reason.SEQ_JUMP.name, f"seq of {frame.camera} jumped to {frame.seq}")
        trigger = self.triggers.claim(frame.trigger_id, frame.promise)
        reason = arrival.reason or self._refusal(frame, trigger, now)
        if reason is not None:
            self._miss_exposure(None, now)
            self.results.answer(who, trigger, reason)
        else:
            self._admit(frame, trigger, exposed_ns, now)

    def on_broken(self, who: wire.FrameIdentity, refusal: FrameRefused, now: Now) -> None:
        """A message that is not a frame. Its own statements are used as far as they can be trusted."""
        if who.camera == self.camera and who.seq is not None and self._comes_late(who.camera_session, who.seq):
            return
        self.ledger.receive()
        trigger = None
        if who.camera == self.camera:
            self._last_frame_ns = now.ns
            if who.seq is not None and who.camera_session:
                self.results.answer_lost(who, self.sequence.refused(who.camera_session, who.seq))
            trigger = self.triggers.claim(who.trigger_id, who.promise)
            self._miss_exposure(None, now)
        self.results.answer(who, trigger, refusal.reason, str(refusal))

    def _comes_late(self, camera_session: str, seq: int) -> bool:
        """This exposure was answered LOST: it has its one result, and its outcome is now only counted."""
        late = self.sequence.comes_late(camera_session, seq)
        if late:
            self.ledger.late += 1
            self.notice("info", "LATE_FRAME", f"seq {seq} arrived after it had been answered LOST", None, seq)
        return late

    def _miss_exposure(self, until_ns: int | None, now: Now) -> None:
        """There was an exposure of which no picture may be judged."""
        if self.line is not None:
            self.line.missed(until_ns, now)

    def _refusal(self, frame: Frame, trigger: PendingTrigger | None, now: Now) -> Reason | None:
        """Why a well-formed frame of our camera is not admitted; None: it is."""
        state, free_run = self.controller.state, self.config.station.triggers == "free_run"
        # With a hard-wired trigger it is the age that tells which part's the frame is.
        stale = self.line is None and too_old(frame, now, self.sockets.read_up_to_ns, self.config, self.clocks)
        reasons = (
            (self.closing, Reason.SHUTDOWN),
            (frame.trigger_id != 0 and trigger is None, Reason.TRIGGER_EXPIRED),
            (state not in JUDGING, Reason.NOT_RUNNING),
            (trigger is None and not free_run and self.line is None, Reason.UNANNOUNCED),
            (stale, Reason.STALE),
            (may_be_the_next_parts(frame, trigger, now, self.clocks), Reason.AMBIGUOUS),
        )
        return next((reason for applies, reason in reasons if applies), None)

    def _admit(self, frame: Frame, trigger: PendingTrigger | None, exposed_ns: int | None, now: Now) -> None:
        """Enter the frame as owed, give it a deadline, and let it wait for the engine thread."""
        limits = self.config.limits
        born = self.results.born(wire.identity(frame), trigger)
        # From here on the frame has a result, whatever happens to this process.
        self.journal.owe(born.result_id, wire.encode_result_body(born.unknown(Reason.RESTARTED)))
        if trigger is not None:
            self.journal.redeem(trigger.entry)
        due_ns = now.ns + limits.deadline_ms * MS
        self.work[born.result_id] = Admitted(born, now.ns, due_ns, trigger, settled=self.line is None)
        if self.line is not None:
            self.line.expose(born.result_id, exposed_ns, now)
        stale_ns = now.ns + limits.max_age_ms * MS - max(0, self.clocks.age_ns(frame, now.wall_us))
        recipe = frame.recipe or (trigger.recipe if trigger else None)
        displaced = self.slot.put(Job(born, frame, recipe, now.ns, stale_ns))
        if displaced is not None and displaced.born.result_id in self.work:
            self._judged(Outcome(displaced.born.unknown(Reason.OVERLOAD)))

    # ------------------------------------------------------------------ the engine thread has done something

    def on_report(self, report: Report) -> None:
        """A frame scored, a recipe taken over, or the self-test ended."""
        if isinstance(report, TakenOver):
            self.controller.taken_over(report)
        elif isinstance(report, Tested):
            self.controller.self_tested(report)
        elif isinstance(report, Outcome):
            self.on_scored(report)
        # FoundLost concerns every station of the engine: the inspector sees to it.

    def on_scored(self, outcome: Outcome) -> None:
        """The verdict on a frame, unless its deadline has passed."""
        result, work = outcome.result, self.work.get(outcome.result.result_id)
        if work is None or work.judged is not None or self.clock().ns >= work.deadline_ns:
            text = f"result {result.result_id} would have been {result.reason.name}, score {result.score}"
            self.notice("warning", "LATE_SCORE", text, result.result_id, result.seq)
            if work is not None and work.judged is None:
                self._miss_deadline(work)
        else:
            self._judged(outcome)
        if self.slowest is not None and outcome.spans:
            self.slowest.add(FrameTrace(
                self.name, result.result_id, result.seq, result.reason.name, outcome.spans[0].start_ns, self.clock().ns,
                outcome.spans,
            ))  # fmt: skip
        self.controller.scored(result.reason, result.score is not None, outcome.detail)
        if result.verdict is Verdict.OK and result.score is not None:
            self.controller.recipe_alarms.accepted(result.score)

    def _judged(self, outcome: Outcome) -> None:
        """It is known what an admitted frame will say; it says so as soon as it is known which part it is of."""
        work = self.work[outcome.result.result_id]
        work.judged = outcome
        if work.settled:
            self._finish(work)

    def _matched(self, match: Match) -> None:
        """It is known which part an exposure is of, or that it belongs to no part, or that a part has none."""
        trigger = self.triggers.take(match.part) if match.part is not None else None
        work = self.work.get(match.exposure) if match.exposure is not None else None
        if work is None:  # none was made, or it was answered meanwhile for a reason of the station's
            if trigger is not None:
                self.results.answer_triggers([trigger], match.reason or Reason.AMBIGUOUS, match.detail)
            return
        work.settled, work.trigger = True, trigger
        if match.reason is not None or trigger is None:
            self.slot.discard(lambda job: job.born.result_id == work.born.result_id)
            work.judged = Outcome(work.born.unknown(match.reason or Reason.UNANNOUNCED), match.detail)
        if work.judged is not None:
            self._finish(work)

    # ------------------------------------------------------------------ what was admitted is answered

    def drop_triggers(self, reason: Reason) -> None:
        """Answer every pending trigger now."""
        self.results.answer_triggers(self.triggers.clear(), reason)
        if self.line is not None:
            self.line.unsync(f"all pending frames were answered {reason.name}")

    def drop_work(self, reason: Reason) -> None:
        """Answer every admitted frame and every pending trigger now; later answers of the engine thread are late."""
        self.slot.discard(lambda job: True)
        for work in list(self.work.values()):
            work.judged = Outcome(work.born.unknown(reason))
            self._finish(work)
        self.drop_triggers(reason)

    def _miss_deadline(self, work: Admitted) -> None:
        self.slot.discard(lambda job: job.born.result_id == work.born.result_id)
        self._judged(Outcome(replace(work.born.unknown(Reason.DEADLINE), deadline_missed=True)))

    def _finish(self, work: Admitted) -> None:
        """The result of an admitted frame, of which everything is known."""
        del self.work[work.born.result_id]
        outcome = work.judged
        assert outcome is not None
        hard_wired = self.line is not None
        self.results.publish(work.result(self.clock().ns, hard_wired), outcome.detail, work.trigger)
        if work.trigger is not None and hard_wired:
            self.journal.redeem(work.trigger.entry)  # of other triggers it was, when the frame was admitted
        self.results.publish_bulk(outcome)

    def _make_room(self, result_id: int) -> None:
        """Answer the frame in work whose slot of the journal ``result_id`` takes: gaps in seq use many."""
        oldest = next(iter(self.work.values()), None)
        if oldest is not None and result_id - oldest.born.result_id >= self.config.journal.slots:
            self.slot.discard(lambda job: job.born.result_id == oldest.born.result_id)
            oldest.judged = Outcome(oldest.born.unknown(Reason.OVERLOAD), "it is older than all results that are kept")
            self._finish(oldest)

    # ------------------------------------------------------------------ time passes

    def on_time(self, now: Now) -> None:
        """Deadlines, triggers, long operations, the heartbeat, the accounting, the state message."""
        for work in [work for work in self.work.values() if work.judged is None and now.ns >= work.deadline_ns]:
            self._miss_deadline(work)
        self.results.answer_triggers(self.triggers.expired(now.ns), Reason.NO_FRAME)
        if self.line_guard is not None:
            self.line_guard.watch(now)
        self.guard.watch()
        self.controller.watch(now, self.camera_alive(now))
        if self.journal.look():
            self.controller.journal_lost(self.journal.fault)
        imbalance = self.ledger.imbalance(len(self.work))
        if imbalance and "LAW" not in self.controller.alarms:
            self.controller.fault(
                "LAW", f"accounting error: received + lost differs from results by {imbalance}; please report this"
            )
        self.counting.look(now, self.work)
        self.controller.alarms.hold("COUNTERS", self.counting.problem, "warning")
        self.clocks.watch(now, self.controller.alarms)
        self.publish_state(now)

    def camera_alive(self, now: Now) -> bool:
        """Its camera is connected to the frames socket, and sends where a rate is expected."""
        limits, expected = self.config.limits, self.config.station.expected_rate_hz > 0
        silent = expected and now.ns - self._last_frame_ns > limits.camera_silent_ms * MS
        return self.sockets.camera_connected(self.camera) and not silent

    def state_message(self, now: Now) -> wire.StationState:
        """The station's current state; sent five times per second."""
        controller, ledger, recipe = self.controller, self.ledger, self.controller.recipe
        engine = controller.engine
        return wire.StationState(
            station=self.name,
            session=self.session,
            uptime_ms=(now.ns - self.started_ns) // MS,
            beat=self.slot.beat,
            beat_timeout_ms=controller.beat_timeout_ms(),
            state=int(controller.state),
            ready=controller.state in READY_STATES and controller.tested and self.camera_alive(now),
            autostart=self.config.station.autostart,
            triggers=self.config.station.triggers,
            synced=self.line.synced if self.line is not None else None,
            recipe=recipe.name if recipe else "",
            recipe_change=controller.changes.last,
            bundle=recipe.bundle if recipe else "",
            threshold=recipe.decision.threshold if recipe else None,
            engine=wire.EngineMessage(engine.name[:64], engine.device[:64], engine.precision[:64]),
            last_result_id=self.results.last_published_id,
            expected_rate_hz=self.config.station.expected_rate_hz or None,
            alarms=tuple(controller.alarms),
            in_flight=len(self.work),
            clocks=self.clocks.message(),
            unknown_by_reason={reason.name: count for reason, count in ledger.unknown_by_reason.items()},
            access_refused=dict(self.sockets.access.refused),
            **{name: getattr(ledger, name) for name in COUNTED},
            view_of=self.results.view_of or wire.UNSET,
            **self.counting.batch._asdict(),
        )

    def publish_state(self, now: Now) -> None:
        """Five times per second, and at once when something changed that a receiver acts on."""
        now_is = self.controller
        shown = (now_is.state, now_is.tested, now_is.recipe, now_is.changes.last, tuple(now_is.alarms))
        if now.ns < self._state_due_ns and shown == self._state_shown:
            return
        self._state_due_ns = now.ns + self.config.timing.state_interval_ms * MS
        self._state_shown = shown
        self.sockets.publish(wire.encode_state(self.state_message(now)))

    def next_due_ns(self) -> int:
        """When time next demands something: a deadline, a trigger, a state message."""
        due = [self._state_due_ns, *(work.deadline_ns for work in self.work.values() if work.judged is None)]
        line_due_ns = self.line.next_due_ns() if self.line is not None else None
        return min(due + [ns for ns in (line_due_ns, self.triggers.next_expiry_ns()) if ns is not None])

    # ------------------------------------------------------------------ the end

    def begin_to_end(self) -> None:
        """Refuse what still arrives and what waits; the frame in work may still be judged."""
        self.closing = True
        for job in self.slot.discard(lambda job: True):
            self._judged(Outcome(job.born.unknown(Reason.SHUTDOWN)))

    def end(self) -> None:
        """Answer the rest."""
        self.drop_work(Reason.SHUTDOWN)
        self.controller.end()
        self.publish_state(self.clock())
        if self.slowest is not None:
            try:
                write_document(trace_path(self.config), self.slowest.document())
            except OSError as error:  # a disk that is full ends no station otherwise than in order
                self.notice("warning", "TRACE", f"the slowest frames cannot be written: {error}; check [trace] folder")

