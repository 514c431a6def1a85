"""``asperity bench soak``: run a line for a long time and check that nothing grows."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

FAILED = 1


def command(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle to run; without it, the simulated engine.")] = None,
    folder: Annotated[Path | None, typer.Argument(help="Frames of the product, in the MVTec 3D-AD layout.")] = None,
    minutes: Annotated[float, typer.Option(min=0.2, max=100_000, help="Minutes to send frames.")] = 30.0,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="Frames per second.")] = 5.0,
    deadline_ms: Annotated[int, typer.Option(min=1, help="[limits] deadline_ms of the station.")] = 500,
    engine: Annotated[str, typer.Option(help="Engine of a bundle: cpu or cuda.")] = "cpu",
    pin: Annotated[str, typer.Option(help="Cores of the inspector, as 0 or 0,1; empty: all.")] = "",
    out: Annotated[Path | None, typer.Option(help="Result file; a page is written next to it.")] = None,
) -> None:
    """Run a line for a long time and check that nothing grows.

    Measures memory, objects, handles, threads, dropped frames and latency. The exit code is 1 if a limit is exceeded.
    """
    from rich.console import Console
    from rich.progress import Progress

    from asperity.benchmarks.commands.options import both_or_neither, cores_of
    from asperity.benchmarks.line import soak_page
    from asperity.benchmarks.line.soak import SoakBenchmark, run_soak
    from asperity.benchmarks.results_tools import reports

    both_or_neither(bundle, folder)
    options = SoakBenchmark(bundle, folder, minutes, rate, deadline_ms, engine, cores_of(pin))
    with (
        tempfile.TemporaryDirectory(prefix="asperity-") as scratch,
        Progress(console=Console(markup=False, stderr=True), transient=True) as progress,
    ):
        bar = progress.add_task("soak", total=1.0)
        report = run_soak(options, Path(scratch), lambda share: progress.update(bar, completed=share))
    if out is not None:
        reports.write_result(out, report)
        soak_page.write(out.with_suffix(".html"), report)
    typer.echo(reports.as_text({key: value for key, value in report.items() if key != "samples"}))
    if report["failed"]:
        print(f"asperity: failed: {'; '.join(report['failed'])}", file=sys.stderr)
        raise typer.Exit(FAILED)
