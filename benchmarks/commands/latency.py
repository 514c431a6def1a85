"""``asperity bench latency``: a bundle's latency over real sockets and in process."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle to run; without it, the simulated engine.")] = None,
    folder: Annotated[Path | None, typer.Argument(help="Frames of the product, in the MVTec 3D-AD layout.")] = None,
    rate: Annotated[str, typer.Option(help="Frames per second of the camera; several separated by commas.")] = "5",
    frames: Annotated[int, typer.Option(min=10, help="Frames measured per case, after a warm-up of 20.")] = 600,
    starts: Annotated[
        int, typer.Option(min=1, max=100, help="Starts of the inspector; each measures its share of the frames.")
    ] = 5,
    path: Annotated[
        str, typer.Option(help="Path: sockets, in-process, or both separated by a comma.")
    ] = "sockets,in-process",
    load: Annotated[
        str,
        typer.Option(help="Load: open, back-to-back, gaps (a frame every 0.1, 1, 10 s; takes 140 s), with commas."),
    ] = "open,back-to-back",
    deadline_ms: Annotated[int, typer.Option(min=1, help="[limits] deadline_ms of the station.")] = 500,
    engine: Annotated[str, typer.Option(help="Engine of a bundle: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Threads of the engine; 0: one per core.")] = 0,
    pin: Annotated[str, typer.Option(help="Cores of the inspector, as 0 or 0,1; empty: all.")] = "",
    priority: Annotated[
        int, typer.Option(min=-20, max=19, help="Nice value of the inspector; below 0 is more urgent.")
    ] = 0,
    trace_slowest: Annotated[int, typer.Option(min=0, max=4096, help="Write a trace of this many slowest frames.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Result file; a page (and the .trace.json) is written next to it.")
    ] = None,
) -> None:
    """Measure the latency of a bundle, over sockets and in process.

    Shows percentiles with intervals, stages, jitter and the slowest frames.
    """
    from rich.console import Console

    from asperity.benchmarks.commands.options import both_or_neither, cores_of, numbers_of, words_of
    from asperity.benchmarks.line import latency_page
    from asperity.benchmarks.line.latency import LatencyBenchmark, run_latency
    from asperity.benchmarks.results_tools import reports

    both_or_neither(bundle, folder)
    options = LatencyBenchmark(
        bundle, folder, numbers_of(rate, "--rate"), frames, starts=starts, deadline_ms=deadline_ms, engine=engine,
        threads=threads,
        paths=words_of(path, ("sockets", "in-process"), "--path"),
        loads=words_of(load, ("open", "back-to-back", "gaps"), "--load"),
        cores=cores_of(pin), nice=priority, trace_slowest=trace_slowest,
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="asperity-") as scratch,
        Console(markup=False, stderr=True).status("starting the inspector") as status,
    ):
        report = run_latency(options, Path(scratch), lambda text: status.update(f"measuring: {text}"))
    trace = report.pop("trace", None)
    if trace is not None:
        report["mean_stage_ms"], report["slowest"] = trace["otherData"]["mean_ms"], trace["otherData"]["slowest"]
    if out is not None:
        reports.write_result(out, report)
        latency_page.write(out.with_suffix(".html"), report)
        if trace is not None:
            out.with_suffix(".trace.json").write_text(json.dumps(trace))
    typer.echo(reports.as_text(_short(report)))


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """The report without raw latencies and histograms, for the terminal."""
    long = ("latencies_us", "due_to_received_us", "jitter_ms")
    cases = [{key: value for key, value in case.items() if key not in long} for case in report["cases"]]
    return {**report, "cases": cases}
