"""The highest rate that a machine sustains: no frame dropped, none past its deadline, p99 under it; found by bisection.

One process hosts 1, 2, 4 stations on one engine, each with its own camera. A trial is short and judged by its own
frames; the reported rate was sustained in a run long enough for its p99 to have an interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asperity.benchmarks.line.rig import Line, limits, line_engine
from asperity.benchmarks.line.whole_path import Load, Run, drive_all, require_scored
from asperity.benchmarks.line.whole_path import conditions as where
from asperity.benchmarks.results_tools import conditions, statistics

SEARCH_TRIALS = 5
PROBE_FRAMES = 30
"""Frames back to back, to know where to search."""
HIGHEST = 1.3
"""Share of the back-to-back rate at which the search assumes failure."""
STEP_DOWN = 0.9
CONFIRM_TRIES = 6
WARM_UP = 5
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RatesBenchmark:
    """What to search."""

    bundle: Path | None
    folder: Path | None
    stations: tuple[int, ...] = (1,)
    deadline_ms: int = 500
    trial_s: float = 12.0
    engine: str = "cpu"
    threads: int = 0
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate, tried."""

    rate_hz: float
    """Rate of all stations together."""
    runs: list[Run]
    deadline_ms: int

    @property
    def latencies_us(self) -> list[int]:
        """Latencies of every station, in the order of the results."""
        found = [arrival.result for run in self.runs for arrival in run.scored()]
        return [result.latency_us["total"] for result in sorted(found, key=lambda result: result.t_done_us)]

    @property
    def dropped(self) -> int:
        """Frames that were due and not scored, for any reason."""
        return sum(run.due - len(run.scored()) for run in self.runs)

    @property
    def slowest_ms(self) -> float:
        """p99 if there are enough frames for it, else the slowest of all."""
        figures = statistics.summary(self.latencies_us)
        return float(figures["p99_ms"] or figures.get("max_ms") or math.inf)

    @property
    def held(self) -> bool:
        """Nothing dropped, and p99 (or all, in a short trial) under the deadline."""
        return not self.dropped and self.slowest_ms < self.deadline_ms

    def told(self) -> dict[str, Any]:
        """For the result file."""
        return {
            "rate_hz": round(self.rate_hz, 3), "frames": sum(run.due for run in self.runs), "dropped": self.dropped,
            "p99_or_max_ms": self.slowest_ms if math.isfinite(self.slowest_ms) else None, "held": self.held,
        }  # fmt: skip


def run_rates(options: RatesBenchmark, scratch: Path, say: Say = lambda text: None) -> dict[str, Any]:
    """Search for each number of stations. Raises StationError, CameraError, and DataError when nothing is scored."""
    before = conditions.begin()
    cases = [_search(options, count, scratch, say) for count in options.stations]
    first = cases[0]
    return {
        "benchmark": "rates",
        "measured": "highest rate of all stations together with no frame dropped and p99 under the deadline; arrival "
        "to result sent, over ipc sockets, camera processes beside",
        **conditions.end(before, **where(options.cores, 0), engine=options.engine,
                         engine_threads=options.threads or "all cores"),
        "bundle": first["bundle"],
        "folder": options.folder.name if options.folder else None,
        "deadline_ms": options.deadline_ms,
        "fps": first["held_hz"],
        **{key: first["latency"][key] for key in ("count", "p50_ms", "p99_ms")},
        "cases": cases,
    }  # fmt: skip


def _search(options: RatesBenchmark, stations: int, scratch: Path, say: Say) -> dict[str, Any]:
    sections: dict[str, Any] = {
        "limits": limits(options.deadline_ms),
        "engine": line_engine(options.bundle, options.engine, threads=options.threads),
    }
    name = f"{stations} station{'s' if stations > 1 else ''}"
    trials: list[Trial] = []
    log = scratch / f"inspector{stations}.log"
    with Line(options.bundle, log, cores=options.cores, stations=stations, **sections) as line:
        say(f"{name}: back to back")
        probes = drive_all(line, Load(options.folder, PROBE_FRAMES, None, WARM_UP))
        for probe in probes:
            require_scored(probe, options.folder)
        alone_hz = sum(probe.fps() or 1.0 for probe in probes)

        def attempt(rate_hz: float, frames: int) -> Trial:
            say(f"{name}: {rate_hz:.2f} frames/s")
            each = max(WARM_UP, math.ceil(frames / stations))
            runs = drive_all(line, Load(options.folder, each, rate_hz / stations, WARM_UP))
            trials.append(Trial(rate_hz, runs, options.deadline_ms))
            return trials[-1]

        low, high = 0.0, HIGHEST * alone_hz
        for _ in range(SEARCH_TRIALS):
            rate_hz = (low + high) / 2 if low else 0.8 * high
            held = attempt(rate_hz, math.ceil(options.trial_s * rate_hz)).held
            low, high = (rate_hz, high) if held else (low, rate_hz)
        rate_hz, needed = low or high, statistics.least_count(99.0)
        for _ in range(CONFIRM_TRIES):
            confirmed = attempt(rate_hz, needed)
            if confirmed.held:
                break
            rate_hz *= STEP_DOWN
    return {
        "name": name,
        "stations": stations,
        "bundle": probes[0].scored()[0].result.bundle,
        "back_to_back_hz": round(alone_hz, 3),
        "held_hz": round(confirmed.rate_hz, 3) if confirmed.held else None,
        "a_station_hz": round(confirmed.rate_hz / stations, 3) if confirmed.held else None,
        "latency": statistics.summary(confirmed.latencies_us, confirmed.dropped),
        "trials": [trial.told() for trial in trials],
        "latencies_us": confirmed.latencies_us,
    }
