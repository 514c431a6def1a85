"""``asperity bench latency``: the whole path over real sockets, open loop at a rate."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer


def command(
    bundle: Annotated[Path, typer.Argument(help="bundle to run")],
    folder: Annotated[Path, typer.Argument(help="frames of its product, MVTec 3D-AD layout")],
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="frames per second of the camera")] = 5.0,
    frames: Annotated[int, typer.Option(min=10, help="frames measured, after a warm-up of 20")] = 600,
    out: Annotated[Path | None, typer.Option(help="also write the result to this file")] = None,
) -> None:
    """Measure from a frame's arrival to its result sent, at a fixed rate; percentiles as JSON on stdout."""
    from benchmarks.latency import LatencyBenchmark, run_latency

    with tempfile.TemporaryDirectory(prefix="asperity-") as scratch:
        result = run_latency(LatencyBenchmark(bundle, folder, rate, frames), Path(scratch) / "inspector.log")
    text = json.dumps({"command": shlex.join(["asperity", *sys.argv[1:]]), **result}, indent=1)
    typer.echo(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
