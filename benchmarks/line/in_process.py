"""The same frames through the same pipeline without sockets: what the engine takes, and what measuring it costs."""

from __future__ import annotations

import itertools
import statistics as plain
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from asperity.runtime.frame import Frame, Result
from asperity.runtime.judging.pipeline import Job, Outcome, Recipe, inspect
from asperity.runtime.judging.recipes import open_recipe, recipe_name
from asperity.runtime.records.slowest_frames import FrameTrace, SlowestFrames
from asperity.runtime.settings.loading import load

FAR_NS = 3600 * 1_000_000_000
STATION = "bench"
BLOCKS, BLOCK_FRAMES = 16, 10
"""Frames per block of the comparison with and without measuring."""
DIRECT_ROUNDS = 5000


@dataclass(slots=True)
class InProcessRun:
    """Result of a run."""

    latencies_us: list[int] = field(default_factory=list)
    """From a frame's scheduled time to its verdict, for the frames that were scored."""
    stage_us: list[dict[str, int]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    traces: SlowestFrames = field(default_factory=lambda: SlowestFrames(0))


def open_in_process(bundle: Path | None, threads: int, engine: str = "cpu") -> Recipe:
    """The bundle's recipe as the inspector would open it; None: the simulated engine's.

    Raises BundleError, EngineError, ParityError.
    """
    threadpool_limits(limits=1, user_api="blas")  # as `asperity run` does; the engine takes its own
    if bundle is None:
        name, engine, place = "simulated", "simulated", "script:ok ok ng"
    else:
        name, place = recipe_name(bundle), str(bundle.absolute())
    config = load(None, {"recipes": {name: place}, "engine": {"name": engine, "threads": threads}})
    return open_recipe(name, config, lambda stage: None)


def measure(
    recipe: Recipe, pictures: list[Frame], frames: int, rate_hz: float | None, *, warm_up: int = 20, keep: int = 0
) -> InProcessRun:
    """``rate_hz`` None: back to back; else a frame's clock starts when it is due. ``keep``: count of slowest traces."""
    run = InProcessRun(traces=SlowestFrames(keep))
    jobs = _jobs(pictures)
    digest: int | None = None
    for _ in range(warm_up):
        digest = inspect(next(jobs), recipe, digest, _nothing)[1]
    began_ns = time.monotonic_ns()
    for number in range(frames):
        job = next(jobs)
        due_ns = began_ns + round(number * 1e9 / rate_hz) if rate_hz else time.monotonic_ns()
        while (left_ns := due_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / 1e9)
        outcome, digest = inspect(replace(job, t_recv_ns=due_ns), recipe, digest, _nothing)
        _record(run, outcome, due_ns)
    run.seconds = (time.monotonic_ns() - began_ns) / 1e9
    return run


def overhead(recipe: Recipe, pictures: list[Frame]) -> dict[str, Any]:
    """What measuring costs, as a share of a frame: counted directly, and by alternating blocks with and without it."""
    jobs = _jobs(pictures)
    digest: int | None = None
    shares: list[float] = []
    bare_us: list[float] = []
    for block in range(2 * BLOCKS + 2):  # the first pair is warm-up
        measured, run = bool(block % 2), InProcessRun(traces=SlowestFrames(20))
        began_ns = time.monotonic_ns()
        for job in itertools.islice(jobs, BLOCK_FRAMES):
            due_ns = time.monotonic_ns() if measured else 0
            outcome, digest = inspect(job, recipe, digest, _nothing)
            if measured:
                _record(run, outcome, due_ns)
        spent_us = (time.monotonic_ns() - began_ns) / 1000 / BLOCK_FRAMES
        if not measured:
            bare_us.append(spent_us)
        elif block > 1:
            shares.append(spent_us / bare_us[-1] - 1)
    run, now_ns = InProcessRun(traces=SlowestFrames(20)), time.monotonic_ns()
    began_ns = time.perf_counter_ns()
    for _ in range(DIRECT_ROUNDS):
        time.monotonic_ns()
        _record(run, outcome, now_ns)
    direct_us = (time.perf_counter_ns() - began_ns) / 1000 / DIRECT_ROUNDS
    frame_us = plain.median(bare_us[1:])
    middle = float(np.median(shares))
    reach = 1.96 * 1.2533 * float(np.std(shares, ddof=1)) / len(shares) ** 0.5  # standard error of a median
    return {
        "frame_ms": round(frame_us / 1000, 3),
        "direct_us": round(direct_us, 2),
        "direct_percent": round(100 * direct_us / frame_us, 4),
        "paired_percent": round(100 * middle, 3),
        "paired_interval_95": [round(100 * (middle - reach), 3), round(100 * (middle + reach), 3)],
        "blocks": len(shares),
        "what": "per frame: two looks at the clock, keeping latency, stages and result, and the trace of the slowest",
    }


def _record(run: InProcessRun, outcome: Outcome, due_ns: int) -> None:
    end_ns, result = time.monotonic_ns(), outcome.result
    run.results.append(result)
    if not outcome.spans:  # it was not scored
        return
    run.latencies_us.append((end_ns - due_ns) // 1000)
    trace = FrameTrace(STATION, result.result_id, result.seq, result.reason.name, due_ns, end_ns, outcome.spans)
    run.traces.add(trace)
    spent_us = {stage: ns // 1000 for stage, ns in trace.stage_ns().items()}
    run.stage_us.append({**spent_us, "total": trace.total_ns // 1000})


def _jobs(pictures: list[Frame]) -> Iterator[Job]:
    session = str(uuid.uuid4())
    for number, picture in enumerate(itertools.cycle(pictures), 1):
        frame = replace(picture, seq=number, camera_session=session)
        now_ns = time.monotonic_ns()
        born = Result(STATION, session, number, camera=frame.camera, camera_session=session, seq=number)
        yield Job(born, frame, None, now_ns, now_ns + FAR_NS)


def _nothing(stage: str) -> None:
    """The heartbeat is not used here."""
