"""Every fault that docs/failsafe.md claims has the test that it names, and the page names what it must."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "failsafe.md"


def test_every_named_test_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert len(named) > 30
    assert named <= there, f"no such test: {sorted(named - there)}"


def test_every_row_has_a_test() -> None:
    rows = [
        row for row in PAGE.read_text().splitlines() if row.startswith("| ") and not row.startswith(("| fault", "|--"))
    ]
    assert all("`test_" in row for row in rows), [row for row in rows if "`test_" not in row]
