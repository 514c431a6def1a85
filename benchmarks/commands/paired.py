"""``asperity bench paired``: this checkout's CPU engine against another checkout's, frame by frame in turn."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle to run")],
    folder: Annotated[Path, typer.Argument(help="frames of its product, MVTec 3D-AD layout")],
    before: Annotated[Path, typer.Option(help="the other checkout: a folder with its runtime/ in it")],
    pairs: Annotated[int, typer.Option(min=2, help="frames that either side scores, after three to warm up")] = 100,
    threads: Annotated[int, typer.Option(min=0, max=256, help="threads of either side; 0: all cores")] = 0,
    out: Annotated[Path | None, typer.Option(help="also write the result to this file")] = None,
) -> None:
    """Measure one change to the engine: ratio of median times with its interval, before over now, as JSON on stdout."""
    from asperity.benchmarks.published_form.paired import compare_checkouts
    from asperity.benchmarks.results_tools import reports
    from asperity.benchmarks.results_tools.machine import commit, machine
    from asperity.runtime.engines.cpu import available_cores

    said = {
        "command": shlex.join(["asperity", *sys.argv[1:]]),
        "measured": "frame to distances in process, preparation inside; both checkouts in turn, one process each",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        **compare_checkouts(bundle, folder, before, pairs, threads or available_cores()),
    }
    typer.echo(reports.as_text(said))
    if out is not None:
        reports.write_result(out, said)
