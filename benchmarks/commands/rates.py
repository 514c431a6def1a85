"""``asperity bench rates``: the highest sustained rate for 1, 2 and 4 stations in one process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer


def command(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle to run; without it, the simulated engine.")] = None,
    folder: Annotated[Path | None, typer.Argument(help="Frames of the product, in the MVTec 3D-AD layout.")] = None,
    stations: Annotated[str, typer.Option(help="Number of stations in the process, as 1 or 1,2,4.")] = "1",
    deadline_ms: Annotated[int, typer.Option(min=1, help="[limits] deadline_ms of the station.")] = 500,
    trial_s: Annotated[float, typer.Option(min=1, help="Seconds per trial of the search.")] = 12.0,
    engine: Annotated[str, typer.Option(help="Engine of a bundle: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: one per core.")] = 0,
    pin: Annotated[str, typer.Option(help="Cores of the inspector, as 0 or 0,1; empty: all.")] = "",
    out: Annotated[Path | None, typer.Option(help="Result file; a page is written next to it.")] = None,
) -> None:
    """Find the highest frame rate without a dropped or late frame."""
    from rich.console import Console

    from asperity.benchmarks.commands.options import both_or_neither, cores_of, numbers_of
    from asperity.benchmarks.line import rates_page
    from asperity.benchmarks.line.rates import RatesBenchmark, run_rates
    from asperity.benchmarks.results_tools import reports

    both_or_neither(bundle, folder)
    counts = tuple(max(1, int(count)) for count in numbers_of(stations, "--stations"))
    options = RatesBenchmark(bundle, folder, counts, deadline_ms, trial_s, engine, threads, cores_of(pin))
    with (
        tempfile.TemporaryDirectory(prefix="asperity-") as scratch,
        Console(markup=False, stderr=True).status("starting the inspector") as status,
    ):
        report = run_rates(options, Path(scratch), status.update)
    if out is not None:
        reports.write_result(out, report)
        rates_page.write(out.with_suffix(".html"), report)
    cases = [{key: value for key, value in case.items() if key != "latencies_us"} for case in report["cases"]]
    typer.echo(reports.as_text({**report, "cases": cases}))
