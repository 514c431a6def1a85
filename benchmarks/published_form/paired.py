"""One change measured: this checkout's engine against another checkout's, alternating frame by frame in one run.

Whatever else the machine does affects both. Each side is a separate process (``paired_side.py``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.benchmarks.results_tools.statistics import bootstrap, interval
from asperity.runtime.errors import DataError

WARM_UP = 3
SIDE = Path(__file__).with_name("paired_side.py")
HERE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Quotient of two medians of paired times with its 95 % bootstrap interval."""

    ratio: float
    low: float
    high: float


def ratio_of_medians(over: list[float], under: list[float], seed: int = 0) -> Ratio:
    """median(over) / median(under); pairs are resampled together. Raises ValueError on lists of unequal length."""
    if len(over) != len(under) or not over:
        raise ValueError(f"{len(over)} and {len(under)} times do not form pairs")
    pairs: NDArray[np.float64] = np.array([over, under])
    size = len(over)
    chosen = np.array(bootstrap(lambda rng: rng.integers(size, size=size), seed=seed))
    medians = np.median(pairs[:, chosen], axis=2)
    low, high = interval(medians[0] / medians[1])
    whole = np.median(pairs, axis=1)
    return Ratio(float(whole[0] / whole[1]), float(low), float(high))


def compare_checkouts(bundle: Path, frames: Path, before: Path, pairs: int, threads: int) -> dict[str, Any]:
    """Both sides over ``pairs`` frames in turn. Raises DataError when a side ends early (its message is on stderr)."""
    sides = [_Side(checkout, bundle, frames, threads) for checkout in (before, HERE)]
    try:
        for index in range(WARM_UP):
            for side in sides:
                side.score(index)
        said = [[side.score(index) for side in sides] for index in range(pairs)]
    finally:
        for side in sides:
            side.close()
    old, new = ([one[which] for one in said] for which in (0, 1))
    ratio = ratio_of_medians([one["ms"] for one in old], [one["ms"] for one in new])
    return {
        "pairs": pairs,
        "before": _figures(old),
        "now": _figures(new),
        "before_over_now": round(ratio.ratio, 3),
        "interval_95": [round(ratio.low, 3), round(ratio.high, 3)],
        "largest_image_distance_difference": max(
            abs(a[name] - b[name]) / max(abs(a[name]), 1e-9) for a, b in said for name in ("rgb", "points")
        ),
    }


class _Side:
    """A child process that scores frames on demand."""

    def __init__(self, checkout: Path, bundle: Path, frames: Path, threads: int) -> None:
        self._checkout = checkout
        self._child = subprocess.Popen(
            [sys.executable, str(SIDE), str(checkout), str(bundle), str(frames), "16", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def score(self, index: int) -> dict[str, Any]:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(f"{index}\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._child.stdout.readline()
        if not line:
            raise DataError(f"the engine of {self._checkout} ended; see its output above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _figures(said: list[dict[str, Any]]) -> dict[str, Any]:
    times = [one["ms"] for one in said]
    return {
        "p25_ms": round(float(np.percentile(times, 25)), 2),
        "p50_ms": round(float(np.median(times)), 2),
        "p90_ms": round(float(np.percentile(times, 90)), 2),
        "max_ms": round(max(times), 2),
        "cpu_ms": round(float(np.median([one["cpu_ms"] for one in said])), 2),
        "stage_p50_ms": {
            stage: round(float(np.median([one["stage_us"].get(stage, 0) for one in said])) / 1000, 2)
            for stage in said[0]["stage_us"]
        },
    }
