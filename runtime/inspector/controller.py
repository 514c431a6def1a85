"""Operation of the station: its state, its recipe, the self-test, faults. Part of the I/O thread."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from msgspec.structs import replace

from asperity.runtime.bundle import ceilings
from asperity.runtime.clock import MS, Now, look
from asperity.runtime.errors import AsperityError, EngineLostError, StateError
from asperity.runtime.inspector.alarms import Alarms, RecipeAlarms
from asperity.runtime.inspector.event_log import EventLog, Record
from asperity.runtime.inspector.recipe_change import RecipeChanges
from asperity.runtime.judging.engine_thread import StationSlot, TakenOver, Tested
from asperity.runtime.judging.pipeline import Recipe
from asperity.runtime.judging.recipe_loader import Loader
from asperity.runtime.judging.recipes import describe_engine
from asperity.runtime.reasons import Reason
from asperity.runtime.records.audit import ITSELF, Actor
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.states import Cause, State, step

BEATS_OF_A_FRAME = 3
"""A frame may take this many times the p99 of calibration before the heartbeat counts as stopped."""


class Controller:
    """State machine and recipe of one station.

    ``drop_work`` answers every admitted frame and pending trigger with a reason, ``drop_triggers`` the triggers alone.
    Requests that the present state does not allow raise StateError.
    """

    def __init__(
        self,
        config: StationConfig,
        slot: StationSlot,
        loader: Loader,
        notice: EventLog,
        drop_work: Callable[[Reason], None],
        drop_triggers: Callable[[Reason], None],
        record: Record,
        clock: Callable[[], Now] = look,
    ) -> None:
        """``record``: into the audit file, with the station's name."""
        self.state = State.PREOPERATIONAL
        self.recipe: Recipe | None = None
        self.engine = describe_engine(config)
        self.alarms = Alarms(notice)
        self.recipe_alarms = RecipeAlarms(self.alarms, notice, config.drift)
        self.tested = False
        self.busy = ""
        """The current change of recipe or threshold, as text; empty: none."""
        self.changes = RecipeChanges(notice, record)
        self.single_trigger_id: int | None = None
        """In SINGLE_EXECUTION: the one trigger that was given."""
        self.failure: AsperityError | None = None
        """Why the station can judge nothing in this process: its first recipe did not open, or its engine is lost."""
        self._config = config
        self._slot = slot
        self._loader = loader
        self._notice = notice
        self._drop_work = drop_work
        self._drop_triggers = drop_triggers
        self._clock = clock
        self._record = record
        self._incoming: Recipe | None = None
        """Opened for us and not active yet: to be closed should it never be."""
        self._taking = False
        """The engine thread was asked to take something over and has not reported."""
        self._threshold_by: Actor | None = None
        """Who requested the current change of threshold; None: there is none."""
        self._autostart = config.station.autostart
        self._first_recipe = ""
        self._had_recipe = False
        self._faults = 0
        self._busy_until_ns = 0
        self._test_until_ns: int | None = None
        self._beat = -1
        self._beat_ns = self._watched_ns = clock().ns

    @property
    def opening_first(self) -> bool:
        """A first recipe was named and none has been active yet."""
        return bool(self._first_recipe) and not self._had_recipe

    @property
    def without_recipe(self) -> bool:
        """None is active and none is on its way."""
        return self.recipe is None and not self.busy

    # ------------------------------------------------------------------ requests

    def begin(self, first_recipe: str) -> None:
        """Start the self-test and, where one is named, the first recipe."""
        self._begin_test()
        if first_recipe:
            self._first_recipe = first_recipe
            self._open(first_recipe, ITSELF, in_child_first=False)
        else:
            self._notice("info", "WAITING", f"no recipe yet; prepare_recipe accepts: {', '.join(self._config.recipes)}")

    def start(self, single: bool) -> None:
        """Judge every frame, or the frame of one trigger."""
        self.move(Cause.START_SINGLE if single else Cause.START_CONTINUOUS)
        self.single_trigger_id = None

    def stop(self) -> None:
        """To Ready; admitted frames are still judged."""
        self.move(Cause.STOP)
        self._drop_triggers(Reason.NOT_RUNNING)

    def abort(self) -> None:
        """To Ready; what was admitted is answered at once."""
        self.move(Cause.ABORT)
        self._drop_work(Reason.ABORTED)

    def halt(self) -> None:
        """Out of service."""
        self.move(Cause.HALT)
        self._autostart = False
        self._drop_work(Reason.ABORTED)

    def reset(self) -> None:
        """Leave Error or Halted. Judging is not resumed by this: nothing starts because an alarm was acknowledged."""
        self.move(Cause.RESET)
        self._drop_work(Reason.ABORTED)
        self._autostart = False
        self._faults = 0
        self.alarms.clear()
        self.recipe_alarms.show(self.recipe)
        self._begin_test()

    def self_test(self) -> None:
        """Score the golden frames again."""
        self.move(Cause.SELF_TEST)
        self._begin_test()

    def prepare(self, name: str, actor: Actor = ITSELF) -> int:
        """Open ``name`` next to the active recipe. The number of this change, by which ``changes`` says its end."""
        step(self.state, Cause.PREPARE_RECIPE)
        self._refuse_busy()
        self.alarms.pop("RECIPE", None)
        if not isinstance(self.failure, EngineLostError):
            self.failure = None
        return self._open(name, actor, in_child_first=True)

    def unprepare(self, actor: Actor = ITSELF) -> int:
        """Put the recipe away. The number of this change."""
        self._refuse_busy()
        self.move(Cause.UNPREPARE_RECIPE)
        number = self.changes.begin("", actor)
        self._have_taken_over("the recipe is being closed", None)
        return number

    def threshold_refusal(self, threshold: float) -> str:
        """Why the active recipe may not be judged by ``threshold``; empty: it may."""
        if self.recipe is None:
            return "no recipe is active; prepare one first"
        return ceilings.threshold_refusal(
            threshold, self.recipe.decision, self.recipe.manifest, self.recipe.proven_threshold
        )

    def set_threshold(self, threshold: float, actor: Actor = ITSELF) -> None:
        """Judge by another threshold from the next frame on, until another recipe or the end of the process."""
        assert self.recipe is not None  # ``threshold_refusal`` was asked
        self._refuse_busy()
        decision = replace(self.recipe.decision, threshold=threshold)
        self._threshold_by = actor
        self._have_taken_over("the threshold is being changed", dataclasses.replace(self.recipe, decision=decision))

    def end(self) -> None:
        """Out of service permanently: what was begun and is not active yet never will be."""
        why = "the inspector is shutting down"
        if self.busy:
            self._give_up(why)
        if self.busy:  # the engine thread has just taken it over, and no frame is judged by it any more
            self._not_taken(why)
        self.halt()

    # ------------------------------------------------------------------ what happens

    def taken_over(self, report: TakenOver) -> None:
        """The engine thread judges by another recipe or threshold from here on."""
        before, self.recipe = self.recipe, report.recipe
        self.busy, self._taking = "", False
        if self._threshold_by is not None:
            self._threshold_taken(before)
            return
        self._incoming = None
        if report.before is not None:
            self._loader.put_away(report.before)  # of one engine too: each opening counts
        self.recipe_alarms.show(self.recipe)
        if report.recipe is None:
            self.changes.done("no recipe is active")
            return
        self._had_recipe = True
        self.failure = None
        self.engine = report.recipe.info
        name, bundle = report.recipe.name, report.recipe.bundle
        engine = f"engine {self.engine.name} on {self.engine.device}, {self.engine.precision}"
        use = "; FOR TIMING ONLY, every frame is unknown" if report.recipe.decision.timing_only else ""
        self.changes.done(f"recipe {name} (bundle {bundle}) is active; {engine}{use}")
        slowest_ms, deadline_ms = report.recipe.manifest.frame_p99_ms, self._config.limits.deadline_ms
        if slowest_ms > deadline_ms:
            self._notice(
                "warning", "SLOW_RECIPE",
                f"frames of {name} took {slowest_ms:.0f} ms during calibration, but [limits] deadline_ms is "
                f"{deadline_ms}: expect DEADLINE; increase it, or use a faster profile",
            )  # fmt: skip
        self.move(Cause.RECIPE_TAKEN)
        self._start_by_itself()

    def self_tested(self, report: Tested) -> None:
        """The self-test ended."""
        self._test_until_ns = None
        if report.error:
            self.tested = False
            self.fault("SELF_TEST", report.error)
            return
        self.tested = True
        self.move(Cause.CHECKED)
        if self.state is State.INITIALIZED and self.recipe is not None:
            self.move(Cause.RECIPE_TAKEN)
        self._start_by_itself()

    def scored(self, reason: Reason, has_score: bool, detail: str) -> None:
        """The engine has ended a frame; too many failures in a row are a fault."""
        if has_score:
            self._faults = 0
        if reason is not Reason.ENGINE:
            return
        self._faults += 1
        self._notice("warning", reason.name, detail)
        if self._faults == self._config.limits.engine_faults_max:
            self.fault(reason.name, f"{self._faults} consecutive frames failed; the last: {detail}")

    def engine_lost(self, error: EngineLostError) -> None:
        """The engine that this station judges by can score nothing more; only another one leads out of Error."""
        if self.recipe is not None:
            self._loader.lose(self.recipe)
        self.failure = error
        self.fault("ENGINE_LOST", f"{error}; prepare the recipe again, or restart the inspector")

    def show_failure(self) -> None:
        """The process goes on, for its other stations: say in each state why this one cannot judge."""
        kind = "ENGINE_LOST" if isinstance(self.failure, EngineLostError) else "RECIPE"
        if self.failure is not None and kind not in self.alarms:
            self.alarms.show(kind, str(self.failure))

    def answered(self, trigger_id: int) -> None:
        """A trigger's one result is out."""
        if self.state is State.SINGLE_EXECUTION and trigger_id == self.single_trigger_id:
            self.move(Cause.ANSWERED)

    def watch(self, now: Now, camera_alive: bool) -> None:
        """Check what takes too long and what has recovered."""
        opened = self._loader.opened()
        if opened is not None and opened.recipe is not None:
            self._incoming = opened.recipe
            self.busy = f"recipe {opened.name} is being activated"
            self._take_over(opened.recipe)
        elif opened is not None and opened.error is not None:
            self._did_not_open(opened.name, opened.error)
        # Its engine, or another's, serves slower meanwhile.
        building = self._loader.building
        text = f"networks of recipe {building} are being built for this GPU (minutes; [engine] build_missing)"
        self.alarms.hold(
            "BUILDING", text if building else "", "warning", gone=("BUILT", "building networks has ended")
        )
        if self.busy and now.ns > self._busy_until_ns:
            self._give_up(f"{self.busy}, but not within the time of [timing] recipe_ms")
        if self._test_until_ns is not None and now.ns > self._test_until_ns:
            self._test_until_ns = None
            self.fault(
                "SELF_TEST", f"not finished within {self._config.timing.self_test_ms} ms (at {self._slot.stage})"
            )
        self._watch_beat(now)
        text = "" if camera_alive else "no camera is connected, or it sends no frames"
        self.alarms.hold("CAMERA", text, "warning", gone=("CAMERA_BACK", "a camera is connected"))

    def beat_timeout_ms(self) -> int:
        """How long a receiver waits for the heartbeat: a slow profile, even another station's, must not look dead."""
        limits = self._config.limits
        slow_ms = BEATS_OF_A_FRAME * self._slot.frame_p99_ms
        return max(limits.beat_timeout_min_ms, limits.deadline_ms, round(slow_ms))

    def journal_lost(self, text: str) -> None:
        """Nothing more is kept of what is owed: to Error, and there again after any reset."""
        text = f"{text}: no more results are kept; check the file and the disk, then restart the station"
        if self.state not in (State.ERROR, State.HALTED):
            self.fault("JOURNAL", text)
        elif self.alarms.get("JOURNAL") != text:
            self.alarms.show("JOURNAL", text)

    def move(self, cause: Cause) -> None:
        """Another state by the table. Raises StateError where it has no row."""
        before, self.state = self.state, step(self.state, cause)
        if self.state is not before:
            text = f"{before.name} -> {self.state.name} by {cause.value}"
            self._notice("info", f"STATE {before.value} {self.state.value}", text)

    def fault(self, kind: str, text: str) -> None:
        """To Error: nothing is judged until a reset. Everything admitted is answered ENGINE at once."""
        self.alarms.show(kind, text)
        self._autostart = False
        self.move(Cause.FAULT)
        self._drop_work(Reason.ENGINE)

    # ------------------------------------------------------------------

    def _begin_test(self) -> None:
        self.tested = False
        self._test_until_ns = self._clock().ns + self._config.timing.self_test_ms * MS
        self._slot.self_test()

    def _start_by_itself(self) -> None:
        if self._autostart and self.tested and self.state is State.READY:
            self._autostart = False
            self.start(single=False)

    def _refuse_busy(self) -> None:
        if self.busy:
            raise StateError(f"{self.busy}; wait until recipe_change in the state message has finished")

    def _open(self, name: str, actor: Actor, *, in_child_first: bool) -> int:
        number = self.changes.begin(name, actor)
        self.busy = f"recipe {name} is being opened"
        self._busy_until_ns = self._clock().ns + self._loader.patience_ms * MS
        self._loader.start(name, in_child_first=in_child_first)
        return number

    def _have_taken_over(self, what: str, recipe: Recipe | None) -> None:
        self.busy = what
        self._busy_until_ns = self._clock().ns + self._config.timing.recipe_ms * MS
        self._take_over(recipe)

    def _take_over(self, recipe: Recipe | None) -> None:
        self._taking = True
        self._slot.take_over(recipe)

    def _did_not_open(self, name: str, error: AsperityError) -> None:
        ends_it = name == self._first_recipe and self.opening_first
        if ends_it:
            self.failure = error  # ``show_failure`` makes it an alarm where the process goes on
        self._not_taken(str(error), alarm=not ends_it)

    def _give_up(self, why: str) -> None:
        """Let nothing come any more of what was begun; the recipe and active threshold stay so."""
        self._loader.give_up()
        if self._taking and not self._slot.withdraw():
            return  # too late: the engine thread judges by it, and its report comes next
        if self._incoming is not None:
            self._loader.put_away(self._incoming)
        self._not_taken(why)

    def _not_taken(self, why: str, *, alarm: bool = True) -> None:
        self.busy, self._taking, self._incoming = "", False, None
        if self._threshold_by is not None:
            actor, self._threshold_by = self._threshold_by, None
            self.alarms.show("THRESHOLD_CHANGE", why, actor=actor.text)
            self._record("threshold_change", actor, "failed", why, refused=False)
            return
        if alarm:
            self.alarms["RECIPE"] = why
        self.changes.failed(why)

    def _threshold_taken(self, before: Recipe | None) -> None:
        """Another threshold is active; recipe and engine are the same."""
        actor, self._threshold_by = self._threshold_by or ITSELF, None
        assert self.recipe is not None and before is not None
        self.recipe_alarms.show(self.recipe)
        self.alarms.pop("THRESHOLD_CHANGE", None)
        old, new = before.decision.threshold, self.recipe.decision.threshold
        text = f"threshold of {self.recipe.name} is {new:.6g}, was {old:.6g}"
        self._notice("warning", "THRESHOLD_CHANGE", text, actor=actor.text, each=True)
        self._record("threshold_change", actor, "done", refused=False, recipe=self.recipe.name, old=old, new=new)
        self.move(Cause.RECIPE_TAKEN)
        self._start_by_itself()

    def _watch_beat(self, now: Now) -> None:
        """An engine thread without a sign of life is stuck, whatever it is doing. Time without checks does not
        count: a process that was stopped, or a computer that slept, stood still as a whole."""
        limit_ms = max(self._config.limits.engine_stuck_ms, self.beat_timeout_ms())
        unwatched_ms, self._watched_ns = (now.ns - self._watched_ns) / MS, now.ns
        if self._slot.beat != self._beat or unwatched_ms > max(limit_ms / 2, 2 * self._config.timing.poll_ms):
            self._beat, self._beat_ns = self._slot.beat, now.ns
            return
        silent_ms = (now.ns - self._beat_ns) / MS
        stuck = silent_ms > limit_ms
        if stuck and self.state not in (State.ERROR, State.HALTED):
            self.fault("STUCK", f"the engine has not responded for {silent_ms:.0f} ms (at {self._slot.stage})")
