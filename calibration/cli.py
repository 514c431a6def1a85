"""Commands of ``calibration``."""

from __future__ import annotations

import typer

from asperity.calibration.commands import pretrain_points, tune


def register(app: typer.Typer) -> None:
    """Add this package's commands."""
    app.command("pretrain-points")(pretrain_points.command)
    app.command("tune")(tune.command)
