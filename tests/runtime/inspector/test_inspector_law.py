"""Whatever comes in whatever order: one result for each message and trigger, and the law at every moment."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asperity.runtime import wire
from asperity.runtime.inspector.station import Station
from tests.runtime.inspector.station_floor import Floor

SCRIPT = "ok ng ok refuse shape ok nan raise crash ok"
WORDS = SCRIPT.split()
WHICH = st.integers(0, 2)


class AnyDay(RuleBasedStateMachine):
    """Cameras, PLCs, operators and time, in any order, at one station or at three."""

    names: tuple[str, ...] = ()
    trigger_mode = "free_run"

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.messages: Counter[str] = Counter()
        self.accepted: dict[str, list[int]] = defaultdict(list)
        self.seqs: Counter[str] = Counter()

    @initialize(autostart=st.booleans())
    def begin(self, autostart: bool) -> None:
        own = {} if self.names else {"station": {"autostart": autostart}}
        self.floor = Floor(
            self.folder / "journal", SCRIPT, ready=False, names=self.names, trigger_mode=self.trigger_mode,
            hard_wired={"pitch_min_ms": 100, "quiet_ms": 500},
            limits={"deadline_ms": 400, "engine_faults_max": 3}, timing={"shutdown_ms": 0}, **own,
        )  # fmt: skip
        self.floor.settle()

    def at(self, which: int) -> Station:
        return self.floor.desk.stations[which % len(self.floor.desk.stations)]

    @rule(which=WHICH, gap=st.sampled_from([0, 0, 0, 0, 1, 3, 64, 65, 999]), trigger=st.sampled_from([0, 0, 0, -1, 99]))
    def frame(self, which: int, gap: int, trigger: int) -> None:
        name, camera = self.at(which).name, self.at(which).camera
        self.seqs[name] += 1 + gap
        accepted = self.accepted[name]
        trigger_id = accepted[-1] if trigger == -1 and accepted else max(trigger, 0)
        self.floor.send(self.seqs[name], camera=camera, trigger_id=trigger_id)
        self.messages[name] += 1

    @rule(which=WHICH, back=st.integers(0, 5))
    def frame_again(self, which: int, back: int) -> None:
        name, camera = self.at(which).name, self.at(which).camera
        self.floor.send(max(0, self.seqs[name] - back), camera=camera)
        self.messages[name] += 1

    @rule(which=WHICH, session=st.booleans(), old=st.booleans())
    def odd_frame(self, which: int, session: bool, old: bool) -> None:
        name, camera = self.at(which).name, self.at(which).camera
        frame = self.floor.frame(self.seqs[name] + 1, camera=camera if session else "another")
        if session:
            frame = replace(frame, camera_session="00000000-0000-0000-0000-000000000001")
        if old:
            frame = replace(frame, t_exposure_us=frame.t_exposure_us - 5_000_000)
        self.floor.desk.on_frame(wire.encode_frame(frame))
        self.messages[name if session else self.at(0).name] += 1

    @rule(connection=st.sampled_from([1, 1, 1, 2, None]), opened=st.sampled_from([{1}, {1}, {1, 2}, {2}]))
    def frames_come_by(self, connection: int | None, opened: set[int]) -> None:
        self.floor.sockets.speaker, self.floor.sockets.open = connection, set(opened)

    @rule(which=WHICH, expose_ms=st.integers(-150, 80), after=st.booleans())
    def announced_exposure(self, which: int, expose_ms: int, after: bool) -> None:
        """As a line with a hard-wired trigger: an exposure and its announcement, one before the other."""
        if not after:
            self.trigger(which, "expect", 300)
        name, camera = self.at(which).name, self.at(which).camera
        self.seqs[name] += 1
        exposed_us = self.floor.now.wall_us + 1000 * expose_ms
        self.floor.send(self.seqs[name], camera=camera, t_exposure_us=exposed_us)
        self.messages[name] += 1
        if after:
            self.trigger(which, "expect", 300)
        self.floor.serve()
        self.floor.pass_ms(200)

    @rule(us=st.sampled_from([-3_600_000_000, 20_000, 3_600_000_000]))
    def wall_clock_steps(self, us: int) -> None:
        self.floor.now = self.floor.now._replace(wall_us=self.floor.now.wall_us + us)

    @rule(which=WHICH, part=st.integers(0, 4), at=st.integers(0, 400), mask=st.integers(1, 255), cut=st.booleans())
    def damaged_message(self, which: int, part: int, at: int, mask: int, cut: bool) -> None:
        name, camera = self.at(which).name, self.at(which).camera
        self.seqs[name] += 1
        parts = [bytearray(bytes(part)) for part in wire.encode_frame(self.floor.frame(self.seqs[name], camera=camera))]
        if part < len(parts):
            damaged = parts[part]
            damaged[at % len(damaged)] ^= mask
            if cut:
                del damaged[at % len(damaged) :]
        else:
            parts = parts[: at % 4]
        message = [bytes(part) for part in parts]
        self.floor.desk.on_frame(message)
        whose = self.floor.desk.by_camera.get(wire.peek_identity(message).camera, self.at(0))
        self.messages[whose.name] += 1

    @rule(which=WHICH, op=st.sampled_from(["trigger", "expect"]), timeout_ms=st.sampled_from([50, 300]))
    def trigger(self, which: int, op: str, timeout_ms: int) -> None:
        name = self.at(which).name
        trigger_id = 1000 + len(self.accepted[name])
        if self.floor.ask(op, station=name, trigger_id=trigger_id, timeout_ms=timeout_ms).ok:
            self.accepted[name].append(trigger_id)

    @rule(
        which=WHICH,
        op=st.sampled_from(
            ["start", "start", "single", "stop", "abort", "halt", "reset", "self_test", "unprepare_recipe", "a", "b"]
        ),
    )
    def operate(self, which: int, op: str) -> None:
        name = self.at(which).name
        if op in ("a", "b"):
            self.floor.ask("prepare_recipe", station=name, recipe=op)
        elif op == "single":
            self.floor.ask("start", station=name, mode="single")
        else:
            self.floor.ask(op, station=name)

    @rule(count=st.integers(1, 3))
    def bench_works(self, count: int) -> None:
        self.floor.serve(count)

    @rule()
    def bench_works_and_nobody_looks(self) -> None:
        self.floor.desk.engine_thread.serve(0.0)

    @rule(ms=st.sampled_from([1, 60, 401, 6000]))
    def time_passes(self, ms: int) -> None:
        self.floor.pass_ms(ms)

    @invariant()
    def the_law_holds(self) -> None:
        for station in self.floor.desk.stations if hasattr(self, "floor") else ():
            assert station.ledger.imbalance(len(station.work)) == 0
            assert station.ledger.received + station.ledger.late == self.messages[station.name]
            assert "LAW" not in station.controller.alarms

    def teardown(self) -> None:
        try:
            if hasattr(self, "floor"):
                self.the_law_holds()
                self.floor.desk._answer_everything()
                for station in self.floor.desk.stations:
                    self.the_end(station)
                self.floor.close()
        finally:
            shutil.rmtree(self.folder)

    def the_end(self, station: Station) -> None:
        results = self.floor.results_of(station.name)
        assert sorted(result.result_id for result in results) == list(range(1, len(results) + 1))
        assert len(results) == station.ledger.received + station.ledger.lost
        answered = Counter(result.trigger_id for result in results if result.trigger_id)
        accepted = Counter(self.accepted[station.name])
        assert answered == accepted, "each accepted trigger has exactly one result, no other has any"
        assert [entry for entry in station.journal.entries() if entry.owed] == []
        assert station.journal.promises() == {}
        for result in results:
            if result.accept:
                assert bool(result.trigger_id) is (self.trigger_mode != "free_run")
                assert (result.recipe, WORDS[result.seq % len(WORDS)]) == ("a", "ok")
                assert result.camera == station.camera
        assert wire.decode_state(self.floor.of_kind("state", station.name)[-1]).balanced


class AnyDayOfThree(AnyDay):
    """Three stations on one engine, which takes two frames at once."""

    names = ("left", "right", "top")

    @initialize(autostart=st.booleans())
    def begin(self, autostart: bool) -> None:
        super().begin(autostart)
        for station in self.floor.desk.stations:
            assert station.controller.recipe is not None
            station.controller.recipe.engine.batch_max = 2


class AnyDayOfSoftwareTriggers(AnyDay):
    """Only frames that answer a trigger are judged."""

    trigger_mode = "software"


class AnyDayOfHardWiredTriggers(AnyDay):
    """Only exposures that were announced are judged."""

    trigger_mode = "hard_wired"


MACHINES = (AnyDay, AnyDayOfThree, AnyDayOfSoftwareTriggers, AnyDayOfHardWiredTriggers)
for machine in MACHINES:
    machine.TestCase.settings = settings(
        max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
TestAnyDay = AnyDay.TestCase
TestAnyDayOfThree = AnyDayOfThree.TestCase
TestAnyDayOfSoftwareTriggers = AnyDayOfSoftwareTriggers.TestCase
TestAnyDayOfHardWiredTriggers = AnyDayOfHardWiredTriggers.TestCase
