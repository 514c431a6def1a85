"""Commands of ``calibration``."""

from __future__ import annotations

import typer

from asperity.calibration.commands import tune


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    app.command("tune")(tune.command)
