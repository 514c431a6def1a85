"""Latency of a bundle on this machine: over real sockets and in process, on a schedule and back to back.

On a schedule a frame's clock starts when it was due (open loop, no coordinated omission). Two figures of the whole
path: *arrival to result* is the inspector's own, from a frame's arrival at its socket to its result sent; *due to
received* is a subscriber's, including the camera's sending and both sockets. Background removal is part of every
figure; rendering or decoding a recording happens in the camera and is not.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from asperity.benchmarks.line import in_process
from asperity.benchmarks.line.camera_process import pictures
from asperity.benchmarks.line.rig import CAMERA, STATION, Line, limits, line_engine
from asperity.benchmarks.line.whole_path import Load, Run, drive, require_scored
from asperity.benchmarks.line.whole_path import conditions as where
from asperity.benchmarks.results_tools import conditions, statistics
from asperity.runtime.errors import DataError
from asperity.runtime.frame import LATENCY_STAGES
from asperity.runtime.records.slowest_frames import UNEXPLAINED

PathKind = Literal["sockets", "in-process"]
LoadKind = Literal["open", "back-to-back", "gaps"]
GAPS = ((0.1, 100), (1.0, 30), (10.0, 10))
"""Seconds between two frames, and the number of frames."""
GAP_WARM_UP = 3
LEAST_A_START = 10
"""Warm-up frames of each start."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class LatencyBenchmark:
    """What to measure."""

    bundle: Path | None
    """None: the simulated engine, which leaves the line's own time."""
    folder: Path | None
    """Recorded frames of the bundle's product; None: random ones."""
    rates_hz: tuple[float, ...] = (5.0,)
    frames: int = 600
    warm_up: int = 20
    starts: int = 1
    """How often the inspector is started, each time for a share of the frames: the intervals then include what differs
    from start to start (memory layout, which core a thread gets). At most one start per 10 frames."""
    paths: tuple[PathKind, ...] = ("sockets", "in-process")
    loads: tuple[LoadKind, ...] = ("open", "back-to-back")
    deadline_ms: int = 500
    engine: str = "cpu"
    threads: int = 0
    cores: tuple[int, ...] = ()
    nice: int = 0
    trace_slowest: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One path with one load."""

    path: PathKind
    load: LoadKind
    rate_hz: float | None
    frames: int
    warm_up: int

    @property
    def name(self) -> str:
        """The name by which results are compared."""
        if self.rate_hz is None:
            return f"{self.path}, back to back"
        if self.load == "gaps":
            return f"{self.path}, one frame every {1 / self.rate_hz:g} s"
        return f"{self.path}, {self.rate_hz:g} frames/s"


def cases(options: LatencyBenchmark) -> list[Case]:
    """What is measured, in order."""
    found: list[Case] = []
    for path in options.paths:
        if "open" in options.loads:
            found += [Case(path, "open", rate, options.frames, options.warm_up) for rate in options.rates_hz]
        if "back-to-back" in options.loads:
            found.append(Case(path, "back-to-back", None, options.frames, options.warm_up))
        if "gaps" in options.loads:
            found += [Case(path, "gaps", 1 / gap_s, frames, GAP_WARM_UP) for gap_s, frames in GAPS]
    return found


def run_latency(options: LatencyBenchmark, scratch: Path, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure every case. Raises StationError, CameraError, and DataError when no frame was scored."""
    before = conditions.begin()
    wanted = cases(options)
    found: list[dict[str, Any]] = []
    trace: dict[str, Any] | None = None
    overhead: dict[str, Any] | None = None
    bundle = ""
    sockets = [case for case in wanted if case.path == "sockets"]
    inside = [case for case in wanted if case.path == "in-process"]
    if sockets:
        told, trace, bundle = _over_sockets(options, sockets, scratch, say)
        found += told
    if inside:
        told, own_trace, overhead, bundle = _in_process(options, inside, say)
        found += told
        trace = trace or own_trace
    main = found[0]
    figures = {key: main["latency"][key] for key in ("count", "p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")}
    report: dict[str, Any] = {
        "benchmark": "latency",
        "measured": f"{main['name']}: {main['measured']}; background removal inside",
        **conditions.end(before, **where(options.cores, options.nice), engine=options.engine,
                         engine_threads=options.threads or "all cores",
                         blas_threads=conditions.blas_threads()),
        "starts": options.starts,
        "bundle": bundle,
        "folder": options.folder.name if options.folder else None,
        "deadline_ms": options.deadline_ms,
        "fps": main["fps"],
        **figures,
        "cases": found,
    }  # fmt: skip
    if overhead is not None:
        report["overhead"] = overhead
    if trace is not None:
        report["trace"] = trace
    return report


def _over_sockets(
    options: LatencyBenchmark, wanted: list[Case], scratch: Path, say: Say
) -> tuple[list[dict[str, Any]], dict[str, Any] | None, str]:
    sections: dict[str, Any] = {
        "limits": limits(options.deadline_ms),
        "engine": line_engine(options.bundle, options.engine, threads=options.threads),
    }
    if options.trace_slowest:
        sections["trace"] = {"slowest": options.trace_slowest, "folder": str(scratch)}
    log, found = scratch / "inspector.log", scratch / f"{STATION}.trace.json"
    runs: dict[Case, list[Run]] = {case: [] for case in wanted}
    traces: list[dict[str, Any]] = []
    starts = max(1, min(options.starts, options.frames // LEAST_A_START))
    for start in range(starts):
        with Line(options.bundle, log, cores=options.cores, nice=options.nice, **sections) as line:
            for case in wanted:
                if start and case.load == "gaps":
                    continue  # a pause of 10 s is long enough once
                say(f"{case.name}, start {start + 1} of {starts}")
                frames = case.frames if case.load == "gaps" else _share(case.frames, starts, start)
                runs[case].append(drive(line, Load(options.folder, frames, case.rate_hz, case.warm_up)))
                require_scored(runs[case][-1], options.folder)
        if options.trace_slowest and found.exists():  # it is written when the inspector ends
            traces.append(json.loads(found.read_text()))
            found.unlink()
    told = [_socket_case(case, runs[case]) for case in wanted]
    bundle = runs[wanted[0]][0].scored()[0].result.bundle
    return told, max(traces, key=_slowest_ms, default=None), bundle


def _share(frames: int, starts: int, start: int) -> int:
    return frames * (start + 1) // starts - frames * start // starts


def _slowest_ms(trace: dict[str, Any]) -> float:
    return max((float(frame["total_ms"]) for frame in trace["otherData"]["slowest"]), default=0.0)


def _socket_case(case: Case, runs: list[Run]) -> dict[str, Any]:
    scored = [arrival for run in runs for arrival in run.scored()]
    spent_us = [arrival.result.latency_us for arrival in scored]
    due = sum(run.due for run in runs)
    missing = due - len(scored)
    jitter = [
        (b.result.t_done_us - a.result.t_done_us) / 1000 - 1000 / case.rate_hz
        for run in runs for a, b in pairwise(run.scored())
    ] if case.rate_hz else []  # fmt: skip
    rates = [rate for rate in (run.fps() for run in runs) if rate is not None]
    fates = sum((Counter(run.fates()) for run in runs), Counter[str]())
    return {
        "name": case.name,
        "path": case.path,
        "load": case.load,
        "rate_hz": case.rate_hz,
        "warm_up": case.warm_up,
        "measured": "frame arrival to result sent, over ipc sockets, the camera's process beside",
        "fps": round(sum(rates) / len(rates), 3) if rates else None,
        "latency": statistics.summary_of_starts([run.inside_us() for run in runs], missing),
        "due_to_received": statistics.summary_of_starts([run.outside_us() for run in runs], missing),
        "stages": stages(spent_us),
        "fates": {
            "due": due, "not_sent": sum(run.not_sent for run in runs), "gaps": sum(run.gaps for run in runs),
            "not_scored": dict(fates),
        },
        "deadline_missed": sum(run.deadline_missed() for run in runs),
        "camera_late": statistics.summary([us for run in runs for us in run.late_us]),
        "watching_percent": max(run.watching_percent for run in runs),
        "jitter_ms": statistics.histogram(jitter),
        "frames_of_starts": [len(run.scored()) for run in runs],
        "latencies_us": [us for run in runs for us in run.inside_us()],
        "due_to_received_us": [us for run in runs for us in run.outside_us()],
    }


def _in_process(
    options: LatencyBenchmark, wanted: list[Case], say: Say
) -> tuple[list[dict[str, Any]], dict[str, Any] | None, dict[str, Any], str]:
    with ExitStack() as stack:
        if options.cores:
            stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
            os.sched_setaffinity(0, options.cores)
        shots = pictures(options.folder, CAMERA)
        if len(shots) < 2:
            raise DataError(f"{options.folder} holds {len(shots)} frame; at least 2 are needed")
        recipe = in_process.open_in_process(options.bundle, options.threads, options.engine)
        stack.callback(recipe.engine.close)
        told, trace = [], None
        for case in wanted:
            say(case.name)
            run = in_process.measure(recipe, shots, case.frames, case.rate_hz, warm_up=case.warm_up,
                                     keep=options.trace_slowest)  # fmt: skip
            if not run.latencies_us:
                reasons = sorted({result.reason.name for result in run.results})
                raise DataError(f"no frame of {options.folder} was scored ({reasons}); give the bundle's own product")
            told.append(_in_process_case(case, run, options.deadline_ms))
            if options.trace_slowest and trace is None:
                trace = run.traces.document()
        say("what measuring costs")
        return told, trace, in_process.overhead(recipe, shots), recipe.bundle


def _in_process_case(case: Case, run: in_process.InProcessRun, deadline_ms: int) -> dict[str, Any]:
    return {
        "name": case.name,
        "path": case.path,
        "load": case.load,
        "rate_hz": case.rate_hz,
        "warm_up": case.warm_up,
        "measured": "from when a frame was due to its verdict, without sockets",
        "fps": round(len(run.latencies_us) / run.seconds, 3),
        "latency": statistics.summary(run.latencies_us, case.frames - len(run.latencies_us)),
        "stages": stages(run.stage_us),
        "fates": {"due": case.frames, "not_scored": case.frames - len(run.latencies_us)},
        "deadline_missed": sum(us > 1000 * deadline_ms for us in run.latencies_us),
        "jitter_ms": statistics.histogram(_differences_ms(run.latencies_us) if case.rate_hz else []),
        "latencies_us": run.latencies_us,
    }


def stages(spent_us: list[dict[str, int]]) -> dict[str, dict[str, float | None]]:
    """Each stage's median and p99, ms. Branches that run side by side overlap: their sum exceeds the total."""
    told: dict[str, dict[str, float | None]] = {}
    for stage in (*LATENCY_STAGES, UNEXPLAINED):
        values = [spent[stage] for spent in spent_us if stage in spent]
        if values:
            figures = statistics.summary(values)
            told[stage] = {"p50_ms": figures["p50_ms"], "p99_ms": figures["p99_ms"]}
    return told


def _differences_ms(latencies_us: list[int]) -> list[float]:
    """Difference between the interval of two verdicts and the scheduled one: the change in latency."""
    return [(b - a) / 1000 for a, b in pairwise(latencies_us)]
