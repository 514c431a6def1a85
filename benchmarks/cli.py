"""Commands of ``benchmarks``."""

from __future__ import annotations

import typer

from benchmarks.commands import demo


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    app.command("demo")(demo.command)
