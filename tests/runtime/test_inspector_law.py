"""Whatever comes in whatever order: one result for each message and trigger, and the law at every moment."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from station_floor import Floor

from runtime import wire

SCRIPT = "ok ng ok refuse shape ok nan raise crash ok"
WORDS = SCRIPT.split()


class AnyDay(RuleBasedStateMachine):
    """A camera, a PLC, an operator and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.messages = 0
        self.accepted: list[int] = []
        self.seq = 0

    @initialize(autostart=st.booleans())
    def begin(self, autostart: bool) -> None:
        self.floor = Floor(
            self.folder / "journal", SCRIPT, ready=False, station={"autostart": autostart},
            limits={"deadline_ms": 400, "engine_faults_max": 3}, timing={"shutdown_ms": 0},
        )  # fmt: skip
        self.floor.settle()

    @rule(gap=st.sampled_from([0, 0, 0, 0, 1, 3, 64, 65, 1000]), trigger=st.sampled_from([0, 0, 0, -1, 99]))
    def frame(self, gap: int, trigger: int) -> None:
        self.seq += 1 + gap
        trigger_id = self.accepted[-1] if trigger == -1 and self.accepted else max(trigger, 0)
        self.floor.send(self.seq, trigger_id=trigger_id)
        self.messages += 1

    @rule(back=st.integers(0, 5))
    def frame_again(self, back: int) -> None:
        self.floor.send(max(0, self.seq - back))
        self.seq = max(self.seq, 0)
        self.messages += 1

    @rule(camera=st.just("cam2"), session=st.booleans(), old=st.booleans())
    def odd_frame(self, camera: str, session: bool, old: bool) -> None:
        frame = self.floor.frame(self.seq + 1, camera=camera)
        if session:
            frame = replace(frame, camera="cam1", camera_session="00000000-0000-0000-0000-000000000001")
        if old:
            frame = replace(frame, t_exposure_us=frame.t_exposure_us - 5_000_000)
        self.floor.desk.on_frame(wire.encode_frame(frame))
        self.messages += 1

    @rule(part=st.integers(0, 4), at=st.integers(0, 400), mask=st.integers(1, 255), cut=st.booleans())
    def damaged_message(self, part: int, at: int, mask: int, cut: bool) -> None:
        self.seq += 1
        parts = [bytearray(bytes(part)) for part in wire.encode_frame(self.floor.frame(self.seq))]
        if part < len(parts):
            damaged = parts[part]
            damaged[at % len(damaged)] ^= mask
            if cut:
                del damaged[at % len(damaged) :]
        else:
            parts = parts[: at % 4]
        self.floor.desk.on_frame([bytes(part) for part in parts])
        self.messages += 1

    @rule(op=st.sampled_from(["trigger", "expect"]), timeout_ms=st.sampled_from([50, 300]))
    def trigger(self, op: str, timeout_ms: int) -> None:
        trigger_id = 1000 + len(self.accepted)
        if self.floor.ask(op, trigger_id=trigger_id, timeout_ms=timeout_ms).ok:
            self.accepted.append(trigger_id)

    @rule(
        op=st.sampled_from(
            ["start", "start", "single", "stop", "abort", "halt", "reset", "self_test", "unprepare_recipe", "a", "b"]
        )
    )
    def operate(self, op: str) -> None:
        if op in ("a", "b"):
            self.floor.ask("prepare_recipe", recipe=op)
        elif op == "single":
            self.floor.ask("start", mode="single")
        else:
            self.floor.ask(op)

    @rule(count=st.integers(1, 3))
    def bench_works(self, count: int) -> None:
        self.floor.serve(count)

    @rule()
    def bench_works_and_nobody_looks(self) -> None:
        self.floor.desk.bench.serve(0.0)

    @rule(ms=st.sampled_from([1, 60, 401, 6000]))
    def time_passes(self, ms: int) -> None:
        self.floor.pass_ms(ms)

    @invariant()
    def the_law_holds(self) -> None:
        if hasattr(self, "floor"):
            station = self.floor.station
            assert station.ledger.imbalance(len(station.work)) == 0
            assert station.ledger.received == self.messages
            assert "LAW" not in station.operation.alarms

    def teardown(self) -> None:
        try:
            if hasattr(self, "floor"):
                self.the_end()
        finally:
            shutil.rmtree(self.folder)

    def the_end(self) -> None:
        floor = self.floor
        floor.desk._answer_everything()
        results = floor.results
        assert sorted(result.result_id for result in results) == list(range(1, len(results) + 1))
        assert len(results) == floor.station.ledger.received + floor.station.ledger.lost
        answered = Counter(result.trigger_id for result in results if result.trigger_id)
        assert answered == Counter(self.accepted), "each accepted trigger has exactly one result, no other has any"
        assert [entry for entry in floor.journal.entries() if entry.owed] == []
        assert floor.journal.promises() == {}
        for result in results:
            if result.accept:
                assert (result.recipe, WORDS[result.seq % len(WORDS)]) == ("a", "ok")
        assert wire.decode_state(floor.of_kind("state")[-1]).balanced
        floor.close()


AnyDay.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyDay = AnyDay.TestCase
