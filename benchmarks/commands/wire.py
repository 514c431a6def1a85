"""``asperity bench wire``: camera process to decoded frame, loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    frames: Annotated[int, typer.Option(min=10, help="Frames measured per format and transport.")] = 1000,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="Frames per second of the camera process.")] = 30.0,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a frame.")] = 480,
    columns: Annotated[int, typer.Option(min=1, help="Columns of a frame.")] = 640,
    size: Annotated[
        str,
        typer.Option(help="Megapixels, such as 0.3,2,5: 20 frames each, at a rate that fits, and preprocessing."),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Result file; a page is written next to it.")] = None,
) -> None:
    """Measure the transport of frames from a camera process.

    XYZ and depth frames over tcp and ipc; prints percentiles as JSON.
    """
    from rich.console import Console

    from asperity.benchmarks.commands.options import numbers_of
    from asperity.benchmarks.line.frame_sizes import SizeBenchmark, run_sizes
    from asperity.benchmarks.line.wire import WireBenchmark, run_wire
    from asperity.benchmarks.parts import part_page
    from asperity.runtime.errors import UsageError

    if size:
        megapixels = numbers_of(size, "--size")
        if not all(0.01 <= each <= 16 for each in megapixels):
            raise UsageError(f"--size {size!r}: give 0.01 to 16 megapixels")
        with Console(markup=False, stderr=True).status("sending frames of each size, about 80 s for 0.3,2,5"):
            report = run_sizes(SizeBenchmark(megapixels))
        part_page.tell(report, out)
        return
    options = WireBenchmark(frames=frames, rate_hz=rate, rows=rows, columns=columns)
    seconds = (options.frames + options.warm_up) / rate * len(options.forms) * len(options.transports)
    with Console(markup=False, stderr=True).status(f"sending frames, about {seconds:.0f} s"):
        report = run_wire(options)
    part_page.tell(report, out)
