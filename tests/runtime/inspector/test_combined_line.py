"""1 000 parts with two views each, of which one in eight meets a fault: no part passes of which a view is not ok."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime import wire
from asperity.runtime.frame import Result
from tests.runtime.inspector.station_floor import Floor, MakeFloor, floors

PARTS = 1000
TIMEOUT_MS = 300


class Line:
    """Cameras and a PLC, which knows what each part is and what was done to it."""

    def __init__(self, make: MakeFloor, journal: Path, views: list[str], seed: int) -> None:
        self.make, self.journal, self.views = make, journal, views
        self.cameras = list(dict.fromkeys(views))
        self.rng = random.Random(seed)
        self.floor = self.begun()
        self.proper: set[int] = set()
        """Parts of which every view was exposed once, in time, of the part itself, and shows a good part."""
        self.results: list[Result] = []
        self.taken: list[int] = []
        self.number = 0
        """Of the last trigger that was given."""
        self.views_accepted = 0
        self.promised: dict[tuple[int, str], int] = {}

    def begun(self) -> Floor:
        rules = {"name": "part", "number": 9, "views": self.views, "complete_ms": 1500, "open_max": 2}
        return self.make(
            "ok", self.journal, names=("front", "back"), combined=[rules], trigger_mode="software",
            limits={"deadline_ms": 400, "max_age_ms": 400}, triggers={"timeout_max_ms": TIMEOUT_MS, "pending_max": 2},
        )  # fmt: skip

    def read(self) -> None:
        """What was published since the last look; a view accepts nothing, on neither form."""
        floor = self.floor
        for parts in floor.of_kind("trigger"):
            given = wire.decode_trigger(parts)
            self.promised[given.trigger_id, given.station] = given.promise
        for parts in floor.of_kind("result"):
            result = wire.decode_result(parts)
            if result.station == "part":
                self.results.append(result)
            else:
                self.views_accepted += result.accept or result.accept_sent
        for parts in floor.of_kind("record"):
            station, record = wire.decode_record_message(parts)
            self.views_accepted += station != "part" and (record.accept or bool(record.flags & 1))
        floor.sockets.published.clear()

    def trigger(self) -> bool:
        """The PLC gives the next part's trigger."""
        self.number = number = self.number + 1
        fields = {"trigger_id": number, "timeout_ms": TIMEOUT_MS, "part_id": f"p{number}"}
        reply = self.floor.ask("trigger", station="part", **fields)
        if reply.ok:
            self.taken.append(number)
        self.read()
        return reply.ok

    def expose(self, number: int, view: str, word: str, **fields: Any) -> None:
        promise = fields.pop("promise", self.promised.get((number, view), 1))
        self.floor.send(camera=view, trigger_id=number, promise=promise, sensor=f"simulate:{word}", **fields)
        self.floor.settle()
        self.read()

    def wait(self, ms: int) -> None:
        for _ in range(4):
            self.floor.pass_ms(ms / 4)
        self.read()

    def begin_again(self) -> None:
        """kill -9 and a new start."""
        self.floor.close()
        numbers = self.floor.numbers
        self.floor = self.begun()
        self.floor.numbers = numbers
        self.read()

    def part(self) -> None:
        """One part, perhaps with a fault at one of its exposures, in which the next part may have a share."""
        good = self.rng.random() < 0.8
        words = dict.fromkeys(self.cameras, "ok")
        if not good:
            words[self.rng.choice(self.cameras)] = self.rng.choice(["ng", "shape", "nan", "refuse"])
        order = list(self.views)
        if len(self.cameras) > 1:
            self.rng.shuffle(order)
        fault = self.rng.choice(list(FAULTS)) if self.rng.random() < 1 / 8 else ""
        which = self.rng.randrange(len(order))
        if not self.trigger():
            return
        number = self.number
        if good and (not fault or fault in HARMLESS):
            self.proper.add(number)
        for at, view in enumerate(order):
            if fault and at == which:
                FAULTS[fault](self, number, view, words[view])
            else:
                self.expose(number, view, words[view])
        self.wait(TIMEOUT_MS + 20 if fault else 40)
        if self.floor.desk.combined[0].parts:
            self.wait(1500)

    # ------------------------------------------------------------------ what may happen to an exposure

    def lost(self, number: int, view: str, word: str) -> None:
        next(self.floor.numbers[view])

    def late(self, number: int, view: str, word: str) -> None:
        self.wait(TIMEOUT_MS + 10)
        self.expose(number, view, word)

    def swapped_cameras(self, number: int, view: str, word: str) -> None:
        other = next((camera for camera in self.cameras if camera != view), "")
        self.expose(number, view, word, promise=self.promised.get((number, other), 1))

    def swapped_parts(self, number: int, view: str, word: str) -> None:
        if self.trigger():
            self.expose(number, view, word, promise=self.promised.get((self.number, view), 1))
            self.expose(self.number, view, "ok", promise=self.promised.get((number, view), 1))

    def of_the_part_before(self, number: int, view: str, word: str) -> None:
        self.expose(number, view, word, promise=self.promised.get((number - 1, view), 1))

    def broken(self, number: int, view: str, word: str) -> None:
        promise = self.promised.get((number, view), 1)
        frame = self.floor.frame(camera=view, trigger_id=number, promise=promise)
        self.floor.desk.on_frame(wire.encode_frame(frame)[:-1])

    def exposed_late(self, number: int, view: str, word: str) -> None:
        """A part comes whose trigger is not taken: the camera sees that one, and knows only this one's promise."""
        self.floor.pass_ms(5)
        while self.trigger():
            pass
        self.floor.pass_ms(5)
        self.expose(number, view, "ok")

    def killed(self, number: int, view: str, word: str) -> None:
        self.begin_again()
        self.expose(number, view, word)

    def stopped(self, number: int, view: str, word: str) -> None:
        """An operator stops one view, and starts it again before anybody looks."""
        for op in ("stop", "start"):
            assert self.floor.ask(op, station=view).ok
        self.expose(number, view, word)

    def doubled(self, number: int, view: str, word: str) -> None:
        self.expose(number, view, word)
        again = self.floor.frame(self.floor.station.ledger.received, camera=view, trigger_id=number)
        self.floor.desk.on_frame(wire.encode_frame(again))

    def sent_again(self, number: int, view: str, word: str) -> None:
        """Another frame for the same trigger."""
        promise = self.promised.get((number, view), 1)
        self.expose(number, view, word)
        self.expose(number, view, "ok", promise=promise)


FAULTS = {
    fault.__name__: fault
    for fault in (
        Line.lost, Line.late, Line.swapped_cameras, Line.swapped_parts, Line.of_the_part_before, Line.broken,
        Line.exposed_late, Line.killed, Line.stopped, Line.doubled, Line.sent_again,
    )
}  # fmt: skip
HARMLESS = ("doubled", "sent_again")
"""The part's own picture came first: what comes after it answers nothing."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as build:
        yield build


@pytest.mark.parametrize(("views", "parts"), [(["front", "back"], PARTS), (["front"] * 3, 150)])
def test_no_part_passes_of_which_a_view_is_missing_or_not_ok(
    make: MakeFloor, tmp_path: Path, views: list[str], parts: int
) -> None:
    line = Line(make, tmp_path / "journal", views, seed=20)
    for _ in range(parts):
        line.part()
    line.wait(2000)
    accepted = {result.trigger_id for result in line.results if result.accept}
    assert accepted <= line.proper, "a part passed of which a view was missing or not ok"
    assert accepted == line.proper and len(accepted) > parts / 2, "and every other one did pass"
    answers = Counter(result.trigger_id for result in line.results)
    assert answers == Counter(line.taken), "each part that was taken has one result"
    assert line.views_accepted == 0
    part = line.floor.desk.combined[0]
    assert part.parts.opened == part.answered_parts and len(part.parts) == 0
    assert all(line.floor.state_of(name).balanced for name in ("front", "back", "part"))
    reasons = Counter(result.reason.name for result in line.results)
    assert {"GOOD", "SCORE_ABOVE_THRESHOLD", "NO_FRAME", "AMBIGUOUS", "RESTARTED"} <= set(reasons), reasons
