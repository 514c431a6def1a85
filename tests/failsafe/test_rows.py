"""Each row of docs/failsafe.md: its tests exist, and with the mechanism that the row rests on switched off they fail.

The entries whose tests are quick are run here, each in a process of its own; that these tests pass with the mechanism
is seen where they stand, in the same suite. Those with real processes are marked soak and are `make failsafe-rows` too,
which runs all of them both ways and prints a table.
"""

from __future__ import annotations

import re

import pytest

from tests.failsafe.patches import ENTRIES, WITHOUT
from tests.failsafe.rows import LIMIT_S, PAGE, ROOT, Entry, Outcome, checked, drifted, patched, rows, verdict

ROWS = rows(PAGE.read_text())
FAST = [entry for entry in ENTRIES if not entry.soak]


def names_of(path: str) -> list[str]:
    return re.findall(r"^def (test_\w+)", (ROOT / path).read_text(), re.M)


def test_every_row_names_tests_that_exist() -> None:
    there = {name for path in (ROOT / "tests").rglob("test_*.py") for name in names_of(str(path.relative_to(ROOT)))}
    assert len(ROWS) > 50 and len({row.key for row in ROWS}) == len(ROWS)
    assert not [row.key for row in ROWS if not row.tests or not set(row.tests) <= there]


def test_every_test_of_a_row_has_an_entry_or_a_reason_why_none_is_possible() -> None:
    named = {(*row.key, test) for row in ROWS for test in row.tests}
    tried = {(entry.section, entry.fault, entry.test) for entry in ENTRIES}
    assert named - tried == set(WITHOUT), "not tried, or tried although it is said that this is not possible"
    assert tried <= named, "rows that are not on the page, or do not name the test"
    assert all(len(reason) > 20 for reason in WITHOUT.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_what_is_switched_off_is_there_once(entry: Entry) -> None:
    assert entry.patches and entry.says and not drifted(entry.patches)
    path, _, _ = entry.node.partition("::")
    assert entry.test in names_of(path)


# ---------------------------------------------------------------------- the quick ones


@pytest.mark.parametrize("entry", FAST, ids=lambda entry: entry.name)
def test_it_fails_without_its_mechanism(entry: Entry) -> None:
    assert verdict(entry, patched(entry)) == ""


# ---------------------------------------------------------------------- those with real processes


@pytest.mark.soak
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.soak], ids=lambda entry: entry.name)
def test_it_passes_with_and_fails_without_its_mechanism(entry: Entry) -> None:
    word, why, _ = checked(entry)
    if word == "skipped":
        pytest.skip(why)
    assert word == "needed", why


# ---------------------------------------------------------------------- the check itself


def test_a_test_that_passes_all_the_same_or_fails_otherwise_is_told() -> None:
    entry = FAST[0]
    assert "passed" in verdict(entry, Outcome("passed", "", 1.0))
    assert "broken" in verdict(entry, Outcome("broken", "ERROR collecting", 1.0))
    assert "but not by" in verdict(entry, Outcome("failed", "assert something else", 1.0))
    assert "but not by" in verdict(entry, Outcome("failed", f"NameError: name {entry.says}", 1.0))
    assert verdict(entry, Outcome("failed", f"AssertionError: {entry.says}", 1.0)) == ""
    assert drifted([entry.patches[0].__class__("runtime/clock.py", "nowhere to be found", "")])
