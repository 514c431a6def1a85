"""Every command in every environment works, or says in one sentence what to set: never a traceback, never a hang."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import LiteBundle
from tests.system.environment_box import HANGS, Boxes, Case, Outcome, short_folder
from tests.system.environments import COMMANDS, ROWS, TABLE, Row, commands_of


@pytest.fixture(scope="module")
def boxes() -> Iterator[Boxes]:
    started = Boxes()
    yield started
    started.close()


def test_the_table_has_enough_rows() -> None:
    assert len(ROWS) == len(TABLE) >= 40


@pytest.mark.parametrize("name", ROWS)
def test_the_quick_commands(name: str, boxes: Boxes, lite_bundle: LiteBundle) -> None:
    assert not wrong(ROWS[name], commands_of(ROWS[name], whole=False), boxes, lite_bundle)


@pytest.mark.soak
@pytest.mark.parametrize("name", ROWS)
def test_all_commands(name: str, boxes: Boxes, lite_bundle: LiteBundle) -> None:
    assert not wrong(ROWS[name], commands_of(ROWS[name], whole=True), boxes, lite_bundle)


def wrong(row: Row, commands: list[str], boxes: Boxes, bundle: LiteBundle) -> list[str]:
    """What did not end as the table says."""
    found = []
    for command in commands:
        with short_folder() as folder:
            case = Case(row.name, command, str(folder), str(bundle.path), str(bundle.trust.folder),
                        str(bundle.normals / "train" / "good"))  # fmt: skip
            outcome = boxes.run(case)
            if why := outcome.skipped():
                pytest.skip(f"{row.name} cannot be made here: {why}")
            journals = b"".join(path.read_bytes() for path in folder.rglob("*.journal"))
        if why := fault(row, command, outcome, journals):
            found.append(f"{command}: {why}; exit code {outcome.code}\n{outcome.out[-500:]}{outcome.err[-1500:]}")
    return found


def fault(row: Row, command: str, outcome: Outcome, journals: bytes) -> str:
    """What is wrong with an outcome; empty: nothing."""
    code, word = row.ends.get(command, row.ends.get("*", COMMANDS[command].end))
    said, last = outcome.out + outcome.err, outcome.err.rstrip().rpartition("\n")[2]
    faults = {
        "it hangs": outcome.code == HANGS,
        "it shows a traceback": "Traceback" in said or "Exception ignored" in said,
        f"the exit code should be {code}": outcome.code != code,
        "it never was ready": COMMANDS[command].serves and code == 0 and not outcome.ready,
        f"the sentence does not name {word}": word not in said and not row.silent,
        "the last line is not the sentence": code > 1 and not row.silent and "asperity: " not in last,
        "a standard stream is something else": any(".journal" in each or "anon" in each or "socket" in each
                                                   for each in outcome.streams),
        "log lines are in the journal": b" INFO " in journals or b"asperity: " in journals,
    }  # fmt: skip
    return next((why for why, holds in faults.items() if holds), "")
