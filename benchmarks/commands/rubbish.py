"""``asperity bench rubbish``: mutated messages over the real sockets of an inspector."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer


def command(
    messages: Annotated[int, typer.Option(min=100, help="Messages to send, half frames and half requests.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the mutations.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the result to this file too.")] = None,
) -> None:
    """Send mutated messages to an inspector and check every answer.

    Fails if the counters do not add up, a message is lost or a request has no answer.
    """
    from rich.console import Console
    from rich.progress import Progress

    from asperity.benchmarks.line.fuzz import run_rubbish
    from asperity.benchmarks.results_tools import reports

    with (
        tempfile.TemporaryDirectory(prefix="asperity-") as scratch,
        Progress(console=Console(markup=False, stderr=True), transient=True) as bars,
    ):
        bar = bars.add_task("messages", total=messages)
        result = run_rubbish(
            messages, seed, Path(scratch) / "inspector.log", lambda done, total: bars.update(bar, completed=done)
        )
    report = {"command": shlex.join(["asperity", *sys.argv[1:]]), **result}
    typer.echo(reports.as_text(report))
    if out is not None:
        reports.write_result(out, report)
