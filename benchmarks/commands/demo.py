"""``asperity demo``: all steps on the virtual camera."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option(help="Folder of the demo: new, or an earlier demo's.")] = Path("build/demo"),
    product: Annotated[str, typer.Option(help="Product: nameplate, bracket or roll.")] = "nameplate",
    normals: Annotated[int, typer.Option(min=40, help="Normal frames to calibrate on.")] = 160,
    frames: Annotated[int, typer.Option(min=1, help="Frames to inspect.")] = 120,
    rate: Annotated[float, typer.Option(min=0.1, max=100, help="Frames per second of the camera.")] = 4.0,
    profile: Annotated[str, typer.Option(help="Profile: lite, edge or paper.")] = "lite",
    method: Annotated[str, typer.Option(help="Method: lsfa or frozen.")] = "lsfa",
    seed: Annotated[int, typer.Option(min=0, help="Seed of parts, poses, noise and defects.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
) -> None:
    """Calibrate and inspect parts of the virtual camera.

    Calibrates on normal frames, exports a bundle, inspects frames with defects mixed in and shows the results.
    """
    from rich.console import Console

    from asperity.benchmarks.demo import DemoOptions, run_demo

    console = Console(markup=False, stderr=as_json)
    summary = run_demo(DemoOptions(out, product, normals, frames, rate, profile, method, seed), console)
    if as_json:
        typer.echo(json.dumps(summary))
