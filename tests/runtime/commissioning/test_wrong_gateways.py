"""A gateway that is wrong in one thing fails at the row that is about it, and passes the row before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asperity.runtime.commissioning.commissioning import document, walk_through
from asperity.runtime.commissioning.line import AskedLine
from asperity.runtime.commissioning.plc import Plc
from asperity.runtime.commissioning.protocol import FAILED, NOT_CHECKED, NOT_NEEDED, PASSED, Document
from asperity.runtime.commissioning.protocols import side_of
from asperity.runtime.commissioning.questions import Questions
from asperity.runtime.commissioning.rows import ROWS
from asperity.runtime.commissioning.simulated import FAILING_RECIPE, GOOD_RECIPE, RECIPES
from asperity.runtime.commissioning.walk import Limits, Walk
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.testing import PATIENCE_S
from tests.runtime.commissioning import wrong_gateways as wrong
from tests.runtime.commissioning.wrong_gateways import WrongLine
from tests.runtime.gateways.floor import looping

pytestmark = pytest.mark.usefixtures("forked_starts")

FALL_S = 1.0
"""In this time a wrong gateway's accept does not fall. None of these tests needs a right one's to."""
WRONG: dict[str, tuple[type[ModbusRegisters], str, str]] = {
    "accept outlives the heartbeat": (wrong.AcceptOutlivesBeat, "accept_beat", "although the heartbeat had stopped"),
    "accept for another id": (wrong.AcceptsOtherIds, "wrong_id", "accept was 1 for result"),
    "a result twice": (wrong.ShowsTwice, "each_once", "was shown after result"),
    "its own heartbeat": (wrong.BeatsByItself, "beat_stops", "advances without the station"),
    "reasons swapped": (wrong.SwapsReasons, "reason LOST", "reason is 'STALE', the station says 'LOST'"),
    "any recipe": (wrong.IgnoresRecipe, "recipe", "accept was 1 for result"),
    "old triggers again": (wrong.RepeatsTriggers, "gateway", "was executed or refused"),
    "no acknowledgement": (wrong.DropsUnacknowledged, "handshake", "was not acknowledged, and another one was shown"),
    "no end of accept": (wrong.AcceptsAfterHold, "hold", "with no result after it"),
    "simulated parts": (ModbusRegisters, "simulated", "accept was 1 for result"),
}
BEFORE = {"a result twice": ("good", "bad", "used_id")}
"""Rows that pass before it, where it takes some results."""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WrongLine]:
    with looping() as loop, WrongLine(tmp_path_factory.mktemp("line"), loop) as made:
        yield made


def walked(line: WrongLine, *keys: str, patience_s: float = PATIENCE_S) -> dict[str, tuple[str, str]]:
    """Row's key -> its outcome and what was seen."""
    line.start_gateway()
    plc = Plc(side_of("modbus", "127.0.0.1", line.cable.port, PATIENCE_S, RECIPES, None))
    plc.start()
    try:
        walk = Walk(plc, line, Limits(patience_s, FALL_S), PATIENCE_S, GOOD_RECIPE, FAILING_RECIPE)
        outcomes = [walk.do(row) for row in ROWS if row.key in keys]
    finally:
        plc.close()
    return {outcome.key: (outcome.status, outcome.seen) for outcome in outcomes}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gateway_fails_at_its_row(line: WrongLine, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registers, key, seen = WRONG[name]
    monkeypatch.setattr(line, "registers", registers)
    monkeypatch.setattr(line, "accepts_simulated", name == "simulated parts")
    before = BEFORE.get(name, ("good",))
    patience_s = 3 * FALL_S if key == "hold" else PATIENCE_S  # which waits for the end that never comes
    found = walked(line, *before, key, patience_s=patience_s)
    assert {found[row][0] for row in before} == {PASSED}, found
    assert found[key][0] == FAILED and seen in found[key][1], found


def test_the_right_gateway_passes_these_rows(line: WrongLine) -> None:
    keys = {key for _, key, _ in WRONG.values()} - {"beat_stops", "accept_beat"}  # which need more than FALL_S
    found = walked(line, *keys, "whole_run")
    assert {status for status, _ in found.values()} == {PASSED}, found


def real(line: WrongLine, questions: Questions) -> Document:
    """A commissioning of this line as if it were a real one."""
    line.start_gateway()
    plc = Plc(side_of("modbus", "127.0.0.1", line.cable.port, PATIENCE_S, RECIPES, None))
    plc.start()
    try:
        walk = Walk(plc, AskedLine(line.witness, questions.ask), Limits(PATIENCE_S))
        outcomes = walk_through(walk, ROWS, questions, lambda _: None)
        return document(walk, outcomes, "modbus", "here", "", "somebody")
    finally:
        plc.close()


def test_what_nobody_answers_is_not_checked_and_never_passed(line: WrongLine) -> None:
    made = real(line, Questions(None))
    found = {row.key: row.status for row in made.rows}
    assert not made.passed and FAILED not in found.values()
    assert found["identity"] == found["beat"] == found["counters"] == PASSED
    assert found["good"] == found["cable"] == found["restart"] == found["reason RESTARTED"] == NOT_CHECKED
    assert found["reason OVERLOAD"] == found["simulated"] == NOT_NEEDED  # a simulation is for these


def test_what_is_left_out_is_not_checked_and_written_down(line: WrongLine) -> None:
    said: list[str] = []

    def prompt(text: str) -> str:
        said.append(text)
        return "s" if len(said) % 2 else "what?"

    made = real(line, Questions(prompt))
    good = next(row for row in made.rows if row.key == "good")
    assert good.status == NOT_CHECKED and good.answers == ("Put a good part in place. - s",)
    assert any("Stop the inspector where it stands" in text for text in said)
    assert not made.passed


def test_every_row_has_one_key(tmp_path: Path) -> None:
    assert len({row.key for row in ROWS}) == len(ROWS)
