"""Whatever comes in whatever order, at a part with views: one result each, and both laws at every moment."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from asperity.runtime import wire
from asperity.runtime.inspector.station import Station
from tests.runtime.inspector.station_floor import Floor
from tests.runtime.inspector.test_inspector_law import SCRIPT, WHICH, WORDS, AnyDay

PART = "part"
VIEWS = ["front", "back", "front"]


class AnyDayOfParts(AnyDay):
    """Two cameras, one of which sees each part twice; operators who also operate one view alone."""

    names = ("front", "back")
    trigger_mode = "software"

    @initialize(autostart=st.booleans())
    def begin(self, autostart: bool) -> None:
        rules = {"name": PART, "number": 9, "views": VIEWS, "complete_ms": 1100, "open_max": 2}
        self.floor = Floor(
            self.folder / "journal", SCRIPT, ready=False, names=self.names, trigger_mode=self.trigger_mode,
            combined=[rules], limits={"deadline_ms": 400, "engine_faults_max": 3}, timing={"shutdown_ms": 0},
            triggers={"timeout_max_ms": 300},
        )  # fmt: skip
        self.floor.settle()

    @rule(which=WHICH, op=st.sampled_from(["trigger", "trigger", "expect"]), timeout_ms=st.sampled_from([50, 300, 301]))
    def trigger(self, which: int, op: str, timeout_ms: int) -> None:
        fields = {"trigger_id": 1000 + len(self.accepted[PART]), "timeout_ms": timeout_ms}
        assert not self.floor.ask(op, station=self.at(which).name, **fields).ok, "a view alone is not triggered"
        if self.floor.ask(op, station=PART, **fields).ok:
            self.accepted[PART].append(fields["trigger_id"])

    @rule(which=WHICH, back=st.integers(1, 2), serve=st.booleans())
    def frame_of_a_part(self, which: int, back: int, serve: bool) -> None:
        """As a camera answers; mostly with the seq of a word that is ok."""
        if len(self.accepted[PART]) < back:
            return
        name = self.at(which).name
        self.seqs[name] += 1
        while self.seqs[name] % 7 and WORDS[self.seqs[name] % len(WORDS)] != "ok":
            self.seqs[name] += 1
        self.floor.send(self.seqs[name], camera=name, trigger_id=self.accepted[PART][-back])
        self.messages[name] += 1
        self.floor.serve(2 * serve)

    @rule(exposures=st.sampled_from([(0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 1), (0, 0)]))
    def a_part(self, exposures: tuple[int, ...]) -> None:
        """Triggered and exposed, as on a line that runs; perhaps not to its end."""
        self.floor.ask("start", station=PART)
        before = len(self.accepted[PART])
        self.trigger(0, "trigger", 300)
        for which in exposures if len(self.accepted[PART]) > before else ():
            self.frame_of_a_part(which, 1, serve=True)

    @rule(
        which=st.integers(0, 8),
        op=st.sampled_from(
            ["start", "start", "single", "stop", "abort", "halt", "reset", "self_test", "unprepare_recipe", "a", "b"]
        ),
    )
    def operate(self, which: int, op: str) -> None:
        name = (*self.names, *[PART] * 7)[which]
        fields = {"recipe": op} if op in ("a", "b") else {"mode": "single"} if op == "single" else {}
        self.floor.ask({"a": "prepare_recipe", "b": "prepare_recipe", "single": "start"}.get(op, op), station=name,
                       **fields)  # fmt: skip

    @invariant()
    def the_law_of_parts_holds(self) -> None:
        for part in self.floor.desk.combined if hasattr(self, "floor") else ():
            assert part.parts.opened == part.answered_parts + len(part.parts) == len(self.accepted[PART])
            assert part.ledger.imbalance(0) == 0 and "LAW" not in part.alarms

    def the_end(self, station: Station) -> None:
        floor, name = self.floor, station.name
        results = {result.result_id: result for result in floor.results_of(name)}
        assert len(results) == station.ledger.received + station.ledger.lost
        given = Counter(wire.decode_trigger(parts).trigger_id for parts in floor.of_kind("trigger", name))
        assert Counter(result.trigger_id for result in results.values() if result.trigger_id) == given
        assert station.journal.promises() == {} and not any(result.accept for result in results.values())
        if name != self.names[-1]:
            return
        self.the_law_of_parts_holds()
        seen = {(one.station, one.result_id): one for view in self.names for one in floor.results_of(view)}
        parts = floor.results_of(PART)
        assert Counter(result.trigger_id for result in parts) == Counter(self.accepted[PART])
        assert [result.result_id for result in parts] == list(range(1, len(parts) + 1)), "ids in order"
        assert floor.desk.combined[0].journal.promises() == {}
        for result in parts:
            if result.accept:
                views = [seen[view.station, view.result_id] for view in result.views]
                assert [view.station for view in views] == VIEWS and len({id(view) for view in views}) == 3
                assert {(view.trigger_id, view.verdict.name) for view in views} == {(result.trigger_id, "OK")}
                assert {(view.recipe, WORDS[view.seq % len(WORDS)]) for view in views} == {("a", "ok")}
        assert wire.decode_state(floor.of_kind("state", PART)[-1]).balanced


AnyDayOfParts.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyDayOfParts = AnyDayOfParts.TestCase
