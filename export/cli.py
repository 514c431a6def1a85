"""Commands of ``export``."""

from __future__ import annotations

import typer

from asperity.export.commands import calibrate, engines, export


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    app.command("calibrate")(calibrate.command)
    app.command("export")(export.command)
    app.add_typer(engines.app)
