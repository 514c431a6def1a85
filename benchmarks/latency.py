"""Latency of the whole path, from a frame's arrival at the inspector to its result sent, over real sockets.

Frames come from a folder at a fixed rate on an open loop: a late answer does not delay the next exposure. Background
removal is inside the figure; rendering or decoding a recording is the camera process's and outside of it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.line import Line
from benchmarks.machine import commit, machine
from benchmarks.wire import summary
from runtime.errors import DataError
from runtime.frame import LATENCY_STAGES
from runtime.reasons import Reason


@dataclass(frozen=True, slots=True)
class LatencyBenchmark:
    """One run."""

    bundle: Path
    folder: Path
    rate_hz: float
    frames: int = 600
    warm_up: int = 20


def run_latency(options: LatencyBenchmark, log: Path) -> dict[str, Any]:
    """Stream ``warm_up + frames`` frames; the figures. Raises StationError, and DataError with none judged."""
    before = machine()
    with Line(options.bundle, log) as line:
        camera = ("replay", str(options.folder), "--loop", "--rate", str(options.rate_hz))
        answers = line.stream(options.warm_up + options.frames, *camera)
    measured = [result for seq, result in sorted(answers.results.items()) if seq > options.warm_up]
    judged = [result for result in measured if result.latency_us.get("total") and result.score is not None]
    if not judged:
        reasons = Counter(Reason(result.reason_code).name for result in measured)
        raise DataError(f"no frame of {options.folder} was judged ({dict(reasons)}); give the bundle's own product")
    stages = {
        stage: round(float(np.median([result.latency_us.get(stage, 0) for result in judged])) / 1000, 3)
        for stage in LATENCY_STAGES
    }
    return {
        "measured": "frame arrival to result sent; camera process on the same machine; background removal inside",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": before,
        "bundle": measured[0].bundle,
        "rate_hz": options.rate_hz,
        "frames": len(measured),
        "warm_up": options.warm_up,
        "fps": round(len(answers.results) / answers.seconds, 2),
        "unknown": dict(Counter(Reason(r.reason_code).name for r in measured if r.score is None)),
        "gaps": len(answers.gaps),
        **summary([result.latency_us["total"] for result in judged]),
        "stage_p50_ms": stages,
    }
