"""Commands of ``export``."""

from __future__ import annotations

import typer

from export.commands import export


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    app.command("export")(export.command)
