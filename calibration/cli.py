"""Commands of ``calibration``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asperity.runtime.commands.lazy import LazyTyper


def register(app: LazyTyper) -> None:
    """Add this package's commands."""
    room = "asperity.calibration.commands"
    app.add("tune", f"{room}.tune:command", "Compare settings of the adaptation on normal frames.")
