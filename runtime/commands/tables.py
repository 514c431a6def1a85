"""Tables for people on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

COLUMNS_MIN = 72
"""A terminal with fewer wraps the lines; Rich would leave out cells to fit."""


def print_table(table: Table, columns_min: int = COLUMNS_MIN) -> None:
    """Print it as wide as the terminal, but with nothing left out."""
    console = Console(markup=False, highlight=False)
    console.width = max(console.width, columns_min)
    console.print(table)
