"""The inspector: frames in, exactly one result out for each.

Two threads. The *desk*, this file, owns every socket, the clock, the journal and the state machine, and never computes.
The *bench* (``runtime.bench``) owns the engine. Between them lies an inbox in which at most two frames wait.

What happens to a frame, from top to bottom of this file:

    on_frame    the message is checked, its seq gets its fate, the trigger that it answers is claimed; then it is either
                refused at once or admitted: entered in the journal as owed, given a deadline, put into the inbox
    on_scored   the bench has judged it: the result goes into the journal, then out
    on_time     its deadline passed first: unknown, DEADLINE goes out at once, and the late score is only logged

While the recipe is changing none of this changes. The next recipe is opened beside the one in force, and the errand
to take it over is put into the inbox *behind* the frames that wait. So a frame that came before is judged by the old
recipe and one that came after by the new, each result says which, and a frame that names another recipe than the one
it meets is refused WRONG_RECIPE.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from runtime import control, ledger, wire
from runtime.bench import Bench, Report, TakenOver, Tested
from runtime.clock import MS, Now, look
from runtime.config import StationConfig
from runtime.errors import FrameRefused, WireError
from runtime.frame import Frame, Result
from runtime.inbox import Inbox
from runtime.journal import Journal
from runtime.notices import Notices
from runtime.operation import Operation
from runtime.pipeline import Job, Outcome, age_ns
from runtime.reasons import Reason
from runtime.recipes import Loader, put_away
from runtime.restart import settle_past
from runtime.sockets import DeskSockets
from runtime.states import JUDGING, State
from runtime.status import state_message, tell_supervisor
from runtime.supervision import Supervision
from runtime.triggers import PendingTrigger, Triggers


@dataclass(frozen=True, slots=True)
class Work:
    """An admitted frame that has no result yet."""

    born: Result
    t_recv_ns: int
    deadline_ns: int


class Inspector:
    """The desk of one station. Every method belongs to the thread that calls ``run``."""

    def __init__(
        self, config: StationConfig, journal: Journal, sockets: DeskSockets, clock: Callable[[], Now] = look
    ) -> None:
        self.config = config
        self.journal = journal
        self.sockets = sockets
        self.clock = clock
        self.session = str(uuid.uuid4())
        self.ending = False
        """Set to end: from a signal handler, or by the operation ``shutdown``."""
        self.ledger = ledger.Ledger()
        self.sequence = ledger.Sequence(config.limits.seq_gap_max, config.limits.camera_sessions)
        self.triggers = Triggers(config.triggers.pending_max)
        self.work: dict[int, Work] = {}
        self.replies = control.ReplyCache(config.control.reply_cache)
        self.last_published_id = journal.last_id
        self.notice = Notices(config.station.name, self.session, config.log, sockets.publish, clock)
        self.inbox: Inbox[Job] = Inbox(config.limits.queue_length)
        self.bench = Bench(self.inbox, config.timing.idle_tick_ms / 1000, sockets.make_bell, clock)
        loader = Loader(config, sockets.make_bell)
        self.operation = Operation(config, self.bench, loader, self.notice, self.drop_work, self.drop_triggers, clock)
        self.supervision = Supervision()
        self._closing = False
        self._last_frame_ns = 0
        self._state_due_ns = 0
        self._state_shown: tuple[object, ...] = ()

    # ------------------------------------------------------------------ the loop

    def run(self, first_recipe: str = "") -> None:
        """Serve until ``ending`` is set. Raises the error by which the first recipe did not open."""
        try:
            self.begin(first_recipe)
            while not self.ending:
                self.sockets.wait(self._patience_ms())
                self.turn()
            self._answer_everything()
        finally:
            self._close()
        if self.operation.failure is not None:
            raise self.operation.failure

    def begin(self, first_recipe: str) -> None:
        """Settle what an earlier run left owing, then start the bench, the self-test and the first recipe."""
        engine, notes = self.operation.engine, self.journal.notes
        self.notice("info", "START", f"engine {engine.name} on {engine.device}, {engine.precision}")
        if notes:
            self.operation.alarm("JOURNAL", f"{len(notes)} findings: {'; '.join(notes[-3:])}")
        for result in settle_past(self.journal, self.ledger, self.sequence):
            self._send(result, wire.encode_result_body(result))
        self.bench.start()
        self.operation.begin(first_recipe)

    def turn(self) -> None:
        """See to everything that has come in: verdicts, then new frames, then requests, then what time demands."""
        for report in self.bench.reports():
            self.on_report(report)
        for parts in self.sockets.frames():
            self.on_frame(parts)
        for envelope, request, client in self.sockets.requests():
            self.sockets.reply(*control.answer(self, envelope, request, client))
        self.sockets.access.report(self.notice, self.operation)
        self.on_time()

    # ------------------------------------------------------------------ a frame comes in

    def on_frame(self, parts: Sequence[wire.Part]) -> None:
        """A message on the frames socket: whatever it is, it gets exactly one result."""
        now = self.clock()
        self._last_frame_ns = now.ns
        self.ledger.receive()
        try:
            frame = wire.decode_frame(parts)
        except FrameRefused as refusal:
            self._refuse_message(wire.peek_identity(parts), refusal)
            return
        who = wire.identity(frame)
        if frame.camera != self.config.station.camera:
            self._answer(who, None, Reason.WRONG_CAMERA, f"it is of camera {frame.camera}")
            return
        arrival = self.sequence.arrive(frame.camera_session, frame.seq)
        self._answer_lost(who, arrival.lost)
        if arrival.reason is Reason.SEQ_JUMP:
            self.operation.alarm(Reason.SEQ_JUMP.name, f"seq of {frame.camera} leapt to {frame.seq}")
        # Only a frame in order may answer a hard-wired trigger, which it cannot name.
        trigger = self.triggers.claim(frame.trigger_id) if frame.trigger_id or arrival.reason is None else None
        reason = arrival.reason or self._refusal(frame, trigger, now)
        if reason is not None:
            self._answer(who, trigger, reason)
        else:
            self._admit(frame, trigger, now)

    def _refuse_message(self, who: wire.FrameIdentity, refusal: FrameRefused) -> None:
        """A message that is no frame. What it says of itself is used as far as it can be believed."""
        trigger = None
        if who.camera == self.config.station.camera:
            if who.seq is not None and who.camera_session:
                self._answer_lost(who, self.sequence.refused(who.camera_session, who.seq))
            trigger = self.triggers.claim(who.trigger_id) if who.trigger_id else None
        self._answer(who, trigger, refusal.reason, str(refusal))

    def _refusal(self, frame: Frame, trigger: PendingTrigger | None, now: Now) -> Reason | None:
        """Why a well-formed frame of our camera is not admitted; None: it is."""
        state = self.operation.state
        if self._closing:
            return Reason.SHUTDOWN
        if frame.trigger_id and trigger is None:
            return Reason.TRIGGER_EXPIRED
        if state not in JUDGING or (state is State.SINGLE_EXECUTION and trigger is None):
            return Reason.NOT_RUNNING
        # A camera whose clock runs ahead could pass off an old picture as a new one, so both directions are refused.
        if abs(age_ns(frame, now.wall_us)) > self.config.limits.max_age_ms * MS:
            return Reason.STALE
        return None

    def _admit(self, frame: Frame, trigger: PendingTrigger | None, now: Now) -> None:
        """Enter the frame as owed, give it a deadline, and let it wait for the bench."""
        limits = self.config.limits
        born = self._born(wire.identity(frame), trigger)
        # From here on the frame has a result, whatever happens to this process.
        self.journal.owe(born.result_id, wire.encode_result_body(born.unknown(Reason.RESTARTED)))
        if trigger is not None:
            self.journal.redeem(trigger.promise)
        self.work[born.result_id] = Work(born, now.ns, now.ns + limits.deadline_ms * MS)
        stale_ns = now.ns + limits.max_age_ms * MS - max(0, age_ns(frame, now.wall_us))
        recipe = frame.recipe or (trigger.recipe if trigger else None)
        displaced = self.inbox.put(Job(born, frame, recipe, now.ns, stale_ns))
        if displaced is not None and displaced.born.result_id in self.work:
            self._finish(displaced.born.unknown(Reason.OVERLOAD))

    # ------------------------------------------------------------------ the bench has done something

    def on_report(self, report: Report) -> None:
        """A frame scored, a recipe taken over, or the self-test ended."""
        if isinstance(report, TakenOver):
            self.operation.taken_over(report)
        elif isinstance(report, Tested):
            self.operation.self_tested(report)
        else:
            self.on_scored(report)

    def on_scored(self, outcome: Outcome) -> None:
        """The verdict on a frame, unless its deadline has passed."""
        result, work = outcome.result, self.work.get(outcome.result.result_id)
        if work is None or self.clock().ns >= work.deadline_ns:
            text = f"result {result.result_id} would have been {result.reason.name}, score {result.score}"
            self.notice("warning", "LATE_SCORE", text, result.result_id, result.seq)
            if work is not None:
                self._miss_deadline(work)
        else:
            self._finish(result, outcome.detail)
            self._publish_map(outcome)
        self.operation.scored(result.reason, result.score is not None, outcome.detail)

    # ------------------------------------------------------------------ a result goes out

    def _answer(
        self, who: wire.FrameIdentity, trigger: PendingTrigger | None, reason: Reason, detail: str = ""
    ) -> None:
        """The result of something that is not admitted."""
        self._publish(self._born(who, trigger).unknown(reason), detail)
        if trigger is not None:
            self.journal.redeem(trigger.promise)

    def _answer_lost(self, who: wire.FrameIdentity, seqs: range) -> None:
        """A result each for exposures that never came."""
        for seq in seqs:
            self.ledger.lose()
            self._answer(wire.FrameIdentity(who.camera, who.camera_session, seq), None, Reason.LOST)

    def _answer_triggers(self, triggers: list[PendingTrigger], reason: Reason) -> None:
        """The results of triggers whose frame never came, or is no longer awaited."""
        for trigger in triggers:
            self.ledger.lose()
            self._answer(wire.FrameIdentity(camera=self.config.station.camera), trigger, reason)

    def drop_triggers(self, reason: Reason) -> None:
        """Answer every pending trigger now."""
        self._answer_triggers(self.triggers.clear(), reason)

    def drop_work(self, reason: Reason) -> None:
        """Answer every admitted frame and every pending trigger now; what the bench still says of them is late."""
        self.inbox.discard(lambda job: True)
        for work in list(self.work.values()):
            self._finish(work.born.unknown(reason))
        self.drop_triggers(reason)

    def _miss_deadline(self, work: Work) -> None:
        self.inbox.discard(lambda job: job.born.result_id == work.born.result_id)
        self._finish(replace(work.born.unknown(Reason.DEADLINE), deadline_missed=True))

    def _finish(self, result: Result, detail: str = "") -> None:
        """The result of an admitted frame."""
        work = self.work.pop(result.result_id)
        total_us = (self.clock().ns - work.t_recv_ns) // 1000
        self._publish(replace(result, latency_us={**result.latency_us, "total": total_us}), detail)

    def _born(self, who: wire.FrameIdentity, trigger: PendingTrigger | None) -> Result:
        """A result as it is born: unknown. It carries a trigger's id only if it is that trigger's one answer."""
        recipe = self.operation.recipe
        return Result(
            station=self.config.station.name,
            session=self.session,
            result_id=self.journal.reserve(),
            camera=who.camera,
            camera_session=who.camera_session,
            seq=who.seq or 0,
            trigger_id=trigger.trigger_id if trigger else 0,
            part_id=(trigger.part_id if trigger else "") or who.part_id,
            recipe=recipe.name if recipe else "",
            bundle=recipe.bundle if recipe else "",
            t_exposure_us=who.t_exposure_us,
            t_done_us=self.clock().wall_us,
            deadline_us=self.config.limits.deadline_ms * 1000,
            simulated=recipe.simulated if recipe else self.config.engine.name == "simulated",
        )

    def _publish(self, result: Result, detail: str = "") -> None:
        """The one way out: journal, ledger, wire, in this order."""
        result = replace(result, t_done_us=self.clock().wall_us)
        try:
            body = wire.encode_result_body(result)
        except WireError as error:  # an engine's numbers that the contract cannot carry
            detail = str(error)
            result = replace(result.unknown(Reason.ENGINE), latency_us={})
            body = wire.encode_result_body(result)
        self.journal.answer(result.result_id, body)
        self.ledger.settle(result)
        self._send(result, body)
        if detail and result.score is None:
            self.notice("warning", result.reason.name, detail, result.result_id, result.seq)
        self.operation.answered(result.trigger_id)

    def _send(self, result: Result, body: bytes) -> None:
        station = self.config.station
        self.sockets.publish([wire.topic("result", station.name), body])
        record = wire.encode_record(result, state=self.operation.state, station_number=station.number)
        self.sockets.publish(wire.record_message(station.name, record))
        self.last_published_id = max(self.last_published_id, result.result_id)

    def _publish_map(self, outcome: Outcome) -> None:
        if outcome.distance_map is None:
            return
        result = outcome.result
        bulk = wire.Bulk(
            kind="map",
            station=result.station,
            session=result.session,
            result_id=result.result_id,
            array=outcome.distance_map,
            camera=result.camera,
            seq=result.seq,
            window=outcome.window,
        )
        self.sockets.publish_bulk(wire.encode_bulk(bulk))

    # ------------------------------------------------------------------ time passes

    def on_time(self) -> None:
        """Deadlines, triggers, long operations, the beat, the law, the state message."""
        now = self.clock()
        for work in [work for work in self.work.values() if now.ns >= work.deadline_ns]:
            self._miss_deadline(work)
        self._answer_triggers(self.triggers.expired(now.ns), Reason.NO_FRAME)
        self.operation.watch(now, self.camera_alive(now))
        self.ending = self.ending or self.operation.failure is not None
        imbalance = self.ledger.imbalance(len(self.work))
        if imbalance and "LAW" not in self.operation.alarms:
            self.operation.fault("LAW", f"received + lost is {imbalance} off the results; please report this")
        self._publish_state(now)
        tell_supervisor(self)

    def camera_alive(self, now: Now) -> bool:
        """Somebody is connected to the frames socket, and sends where a rate is expected."""
        limits, expected = self.config.limits, self.config.station.expected_rate_hz > 0
        silent = expected and now.ns - self._last_frame_ns > limits.camera_silent_ms * MS
        return self.sockets.camera_connected() and not silent

    def _publish_state(self, now: Now) -> None:
        """Five times a second, and at once when something changed that a receiver acts on."""
        operation = self.operation
        shown = (operation.state, operation.tested, operation.recipe, tuple(operation.alarms))
        if now.ns < self._state_due_ns and shown == self._state_shown:
            return
        self._state_due_ns = now.ns + self.config.timing.state_interval_ms * MS
        self._state_shown = shown
        self.sockets.publish(wire.encode_state(state_message(self, now)))

    def _patience_ms(self) -> float:
        """How long the desk may sleep: until the next deadline, trigger or state message, at most ``poll_ms``."""
        now_ns = self.clock().ns
        due = [self._state_due_ns, *(work.deadline_ns for work in self.work.values())]
        next_expiry_ns = self.triggers.next_expiry_ns()
        if next_expiry_ns is not None:
            due.append(next_expiry_ns)
        return max(0.0, min(self.config.timing.poll_ms, (min(due) - now_ns) / MS))

    # ------------------------------------------------------------------ the end

    def _answer_everything(self) -> None:
        """Refuse what still arrives, give the frame in work a last while, and answer the rest SHUTDOWN."""
        self._closing = True
        self.supervision.stopping()
        for work_id in self.inbox.discard(lambda job: True):
            self._finish(work_id.born.unknown(Reason.SHUTDOWN))
        ends_ns = self.clock().ns + self.config.timing.shutdown_ms * MS
        while self.work and self.clock().ns < ends_ns:
            self.sockets.wait(min(self._patience_ms(), 20.0))
            self.turn()
        for parts in self.sockets.frames():
            self.on_frame(parts)
        self.drop_work(Reason.SHUTDOWN)
        self.operation.halt()
        self._publish_state(self.clock())

    def _close(self) -> None:
        stopped = self.bench.stop(self.config.timing.shutdown_ms / 1000)
        if stopped:
            put_away(self.operation.recipe)
        self.sockets.close(self.config.sockets.linger_ms)
        self.journal.close()
