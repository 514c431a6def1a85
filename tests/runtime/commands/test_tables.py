"""Tables on stdout."""

from __future__ import annotations

import pytest
from rich.table import Table

from asperity.runtime.commands.tables import COLUMNS_MIN, print_table


@pytest.mark.parametrize("columns", ["0", "1", "20", "80", "x"])
def test_no_cell_is_left_out(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table = Table("what", "state", "found", box=None)
    table.add_row("wall clock", "missing for cuda", "a container uses its host's clock")
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert "wall clock  missing for cuda  a container" in lines[1]
    assert max(map(len, lines)) <= max(COLUMNS_MIN, 80)
