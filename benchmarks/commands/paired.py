"""``asperity bench paired``: this checkout's CPU engine against another checkout's, frame by frame in turn."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def command(
    bundle: Annotated[Path, typer.Argument(help="Bundle to run.")],
    folder: Annotated[Path, typer.Argument(help="Frames of the product, in the MVTec 3D-AD layout.")],
    before: Annotated[Path, typer.Option(help="Folder of the other checkout.")],
    pairs: Annotated[int, typer.Option(min=2, help="Frames that each side scores, after a warm-up of 3.")] = 100,
    threads: Annotated[int, typer.Option(min=0, max=256, help="Threads per side; 0: one per core.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the result to this file too.")] = None,
) -> None:
    """Time the CPU engine of this checkout against another checkout.

    Prints the ratio of median times, before over now, with its interval, as JSON.
    """
    from asperity.benchmarks.published_form.paired import compare_checkouts
    from asperity.benchmarks.results_tools import reports
    from asperity.benchmarks.results_tools.machine import commit, machine
    from asperity.runtime.process.processors import usable_processors

    said = {
        "command": shlex.join(["asperity", *sys.argv[1:]]),
        "measured": "frame to distances in process, preparation inside; both checkouts in turn, one process each",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        **compare_checkouts(bundle, folder, before, pairs, threads or usable_processors()),
    }
    typer.echo(reports.as_text(said))
    if out is not None:
        reports.write_result(out, said)
