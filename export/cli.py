"""Commands of ``export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asperity.runtime.commands.lazy import LazyTyper


def register(app: LazyTyper) -> None:
    """Add this package's commands."""
    room = "asperity.export.commands"
    app.add("calibrate", f"{room}.calibrate:command", "Learn a product from normal frames and write a signed bundle.")
    app.add("refit", f"{room}.refit:command", "Add frames that came later to a calibration and write a signed bundle.")
    app.add("export", f"{room}.export:command", "Write a signed bundle from a calibration folder.")
    app.add("engines", f"{room}.engines:app", "Build and manage TensorRT engines for this machine's GPU.")
