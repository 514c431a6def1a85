"""Commands of ``benchmarks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asperity.runtime.commands.lazy import LazyTyper


def register(app: LazyTyper) -> None:
    """Add this package's commands."""
    room = "asperity.benchmarks.commands"
    app.add("bench", f"{room}.bench:app", "Measure latency, frame rates and robustness of this machine.")
    app.add("demo", f"{room}.demo:command", "Calibrate and inspect parts of the virtual camera.")
    app.add("evaluate", f"{room}.evaluate:command", "Measure how well the defects of a labelled data set are found.")
