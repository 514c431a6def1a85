"""Run a line for a long time: does anything grow, slow down, or go unanswered?

Memory is the inspector's proportional set size. The first third of the run is warm-up; slopes are those of the rest,
with the one-sided 95 % bounds of a regression over batch means. The journal is a ring that is touched page by page, so
it is made small enough to wrap around within the first third.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asperity.benchmarks.line.rig import Line, limits, line_engine
from asperity.benchmarks.line.whole_path import Arrival, Load, Run, drive, require_scored
from asperity.benchmarks.line.whole_path import conditions as where
from asperity.benchmarks.results_tools import conditions, statistics
from asperity.benchmarks.results_tools.statistics import Slope

MEMORY_MAX_MB_PER_HOUR = 4.0
OBJECTS_MAX_PERCENT_PER_HOUR = 1.0
DRIFT_MAX_PERCENT = 5.0
"""Share of the median window's p99, over the measured time."""
JUDGED_MINUTES = 15.0
"""Bounded caches fill in the first minutes, and a short run's slope is mostly noise: slopes are not judged below it."""
SAMPLE_S = 2.0
WINDOWS = 20
"""Windows of latencies over the measured time."""
JOURNAL_SLOTS = 4096
WARM_SHARE = 1 / 3
Step = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class SoakBenchmark:
    """One run."""

    bundle: Path | None
    """None: the simulated engine."""
    folder: Path | None
    minutes: float = 30.0
    rate_hz: float = 5.0
    deadline_ms: int = 500
    engine: str = "cpu"
    cores: tuple[int, ...] = ()


@dataclass(slots=True)
class Samples:
    """Measurements of the inspector's process over time."""

    t_s: list[float] = field(default_factory=list)
    pss_kb: list[int] = field(default_factory=list)
    anonymous_kb: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, pid: int, t_s: float) -> None:
        """Look at /proc."""
        memory = _rows(Path(f"/proc/{pid}/smaps_rollup"))
        self.t_s.append(round(t_s, 2))
        self.pss_kb.append(memory["Pss"])
        self.anonymous_kb.append(memory["Pss_Anon"])
        self.handles.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        self.threads.append(_rows(Path(f"/proc/{pid}/status"))["Threads"])


def run_soak(options: SoakBenchmark, scratch: Path, step: Step = lambda share: None) -> dict[str, Any]:
    """Run a line; returns what was measured, its slopes and the limits. Raises StationError, CameraError, DataError."""
    before = conditions.begin()
    frames = max(1, round(options.minutes * 60 * options.rate_hz))
    slots = min(JOURNAL_SLOTS, max(512, frames // 6))
    sections: dict[str, Any] = {
        "journal": {"slots": slots},
        "limits": limits(options.deadline_ms),
        "engine": line_engine(options.bundle, options.engine),
    }
    samples, blocks_file = Samples(), scratch / "blocks"
    latencies: list[tuple[float, int]] = []
    unbalanced: list[str] = []
    log = scratch / "inspector.log"
    with Line(options.bundle, log, cores=options.cores, samples=blocks_file, **sections) as line:
        began_s = time.monotonic()

        def tick(new: list[Arrival]) -> None:
            t_s = time.monotonic() - began_s
            latencies.extend((t_s, arrival.result.latency_us["total"]) for arrival in new if arrival.scored)
            state = line.station.state
            if state is not None and (not state.balanced or "LAW" in state.alarms) and len(unbalanced) < 10:
                unbalanced.append(str(state))
            if not samples.t_s or t_s - samples.t_s[-1] >= SAMPLE_S:
                samples.take(line.pid, t_s)
                step(min(1.0, t_s / (60 * options.minutes)))

        run = drive(line, Load(options.folder, frames, options.rate_hz), tick)
        last = _settled(line)
        began_ns = int(began_s * 1e9)
        log_lines = log.read_text(errors="replace").count("\n")
    require_scored(run, options.folder)
    blocks = [(int(t) - began_ns, int(n), int(ns)) for t, n, ns in map(str.split, blocks_file.open())]
    blocks = [row for row in blocks if row[0] >= 0]
    report = {
        "benchmark": "soak",
        "measured": "the inspector's process over time; latency is frame arrival to result sent",
        **conditions.end(before, **where(options.cores, 0), engine=options.engine),
        "bundle": next(iter(run.arrivals.values())).result.bundle,
        "minutes": options.minutes,
        "rate_hz": options.rate_hz,
        "deadline_ms": options.deadline_ms,
        "journal_slots": slots,
        "fps": run.fps(),
        **statistics.summary(run.inside_us(), run.due - len(run.scored())),
        "fates": {
            "due": run.due, "not_sent": run.not_sent, "results": len(run.arrivals), "repeated": run.repeated,
            "gaps": run.gaps, "unknown": run.fates(), "deadline_missed": run.deadline_missed(),
        },
        "law": {
            "broken": unbalanced, "received": last.received, "lost": last.lost, "ok": last.ok, "ng": last.ng,
            "unknown": last.unknown, "in_flight": last.in_flight,
        },
        "log_lines": log_lines,
        "counting_blocks_us": round(float(np.median([ns for _, _, ns in blocks])) / 1000, 1) if blocks else None,
    }  # fmt: skip
    report |= _slopes(samples, blocks, latencies)
    report["bars"] = bars(report, run, options.minutes)
    report["failed"] = [bar["bar"] for bar in report["bars"] if bar["holds"] is False]
    report["samples"] = {
        "t_s": samples.t_s, "pss_kb": samples.pss_kb, "anonymous_kb": samples.anonymous_kb,
        "handles": samples.handles, "threads": samples.threads,
        "blocks_t_s": [round(t / 1e9, 1) for t, _, _ in blocks], "blocks": [count for _, count, _ in blocks],
        "latency_t_s": [round(t, 2) for t, _ in latencies], "latency_us": [us for _, us in latencies],
    }  # fmt: skip
    return report


def bars(report: dict[str, Any], run: Run, minutes: float) -> list[dict[str, Any]]:
    """Each limit, what was measured, and whether it holds; None if the run was too short to say."""
    slopes, law, fates = report["slopes"], report["law"], report["fates"]
    blocks_max = OBJECTS_MAX_PERCENT_PER_HOUR / 100 * report["levels"]["blocks"]
    short = minutes < JUDGED_MINUTES
    drift = slopes["p99_ms"]
    looked_at_h = (1 - WARM_SHARE) * minutes / 60
    drift_max = DRIFT_MAX_PERCENT / 100 * (report["levels"]["p99_ms"] or 0.0) / looked_at_h
    answered = fates["results"] == fates["due"] and fates["repeated"] == fates["gaps"] == law["in_flight"] == 0
    return [
        _bar(f"upper bound of the memory's slope < {MEMORY_MAX_MB_PER_HOUR:g} MB/h", slopes["pss_mb"],
             MEMORY_MAX_MB_PER_HOUR, short),
        _bar(f"upper bound of the objects' slope < {OBJECTS_MAX_PERCENT_PER_HOUR:g} %/h", slopes["blocks"], blocks_max,
             short),
        {"bar": "handles do not grow", "seen": report["growth"]["handles"], "holds": report["growth"]["handles"] <= 0},
        {"bar": "threads do not grow", "seen": report["growth"]["threads"], "holds": report["growth"]["threads"] <= 0},
        {"bar": "every frame has one result", "seen": fates, "holds": answered},
        {"bar": "the counters add up", "seen": law["broken"], "holds": not law["broken"]},
        {
            "bar": f"p99 does not drift: lower bound of its slope within {DRIFT_MAX_PERCENT:g} % of it over the run",
            "seen": drift,
            "holds": None if drift is None else drift["lower_95"] <= drift_max,
        },
    ]  # fmt: skip


def _bar(name: str, seen: dict[str, float] | None, most: float, short: bool) -> dict[str, Any]:
    holds = seen is not None and seen["upper_95"] < most
    if short and not holds:
        why = f"a run of less than {JUDGED_MINUTES:g} minutes cannot distinguish growth from caches that fill"
        return {"bar": name, "seen": seen, "holds": None, "why": why}
    return {"bar": name, "seen": seen, "holds": holds}


def _slopes(samples: Samples, blocks: list[tuple[int, int, int]], latencies: list[tuple[float, int]]) -> dict[str, Any]:
    """Slopes, levels and growth over the last two thirds."""
    from_s = WARM_SHARE * samples.t_s[-1]
    kept = [at for at, t_s in enumerate(samples.t_s) if t_s >= from_s]
    t_s = [samples.t_s[at] for at in kept]
    late_blocks = [(t / 1e9, count) for t, count, _ in blocks if t / 1e9 >= from_s]
    windows = _windows([row for row in latencies if row[0] >= from_s])
    middle = [row[0] for row in windows]
    slopes = {
        "pss_mb": statistics.slope(t_s, [samples.pss_kb[at] / 1024 for at in kept]),
        "anonymous_mb": statistics.slope(t_s, [samples.anonymous_kb[at] / 1024 for at in kept]),
        "blocks": statistics.slope([t for t, _ in late_blocks], [count for _, count in late_blocks]),
        "p50_ms": statistics.slope(middle, [row[1] for row in windows]),
        "p99_ms": statistics.slope(middle, [row[2] for row in windows]),
    }
    half = kept[len(kept) // 2 :]
    first = kept[: len(kept) // 2] or kept
    return {
        "looked_at_s": [round(from_s, 1), samples.t_s[-1]],
        "slopes": {name: _told(found) for name, found in slopes.items()},
        "growth": {
            name: max(values[at] for at in half) - max(values[at] for at in first)
            for name, values in (("handles", samples.handles), ("threads", samples.threads))
        },
        "levels": {
            "pss_mb": round(float(np.mean([samples.pss_kb[at] for at in kept])) / 1024, 2),
            "blocks": round(float(np.mean([count for _, count in late_blocks]))) if late_blocks else 0,
            "handles": samples.handles[-1], "threads": samples.threads[-1],
            "p99_ms": round(float(np.median([row[2] for row in windows])), 3) if windows else None,
        },
        "latency_windows": {
            "t_s": [round(row[0], 1) for row in windows], "p50_ms": [round(row[1], 3) for row in windows],
            "p99_ms": [round(row[2], 3) for row in windows],
        },
    }  # fmt: skip


def _windows(latencies: list[tuple[float, int]]) -> list[tuple[float, float, float]]:
    """(middle s, p50 ms, p99 ms) of windows of equal counts."""
    parts = np.array_split(np.asarray(latencies, dtype=np.float64).reshape(-1, 2), WINDOWS)
    p50, p99 = (statistics.percentile_of(percent) for percent in (50, 99))
    return [
        (float(part[:, 0].mean()), float(p50(part[None, :, 1])[0]) / 1000, float(p99(part[None, :, 1])[0]) / 1000)
        for part in parts
        if len(part)
    ]


def _told(found: Slope | None) -> dict[str, float | int] | None:
    return found.told() if found else None


def _settled(line: Line) -> Any:
    """The first state after the last result in which nothing is in work, or the last one within a second."""
    seen_s = time.monotonic()
    line.station.poll(300)
    state = line.station.await_state(1000)
    while state.in_flight and time.monotonic() - seen_s < 1.0:
        line.station.poll(100)
        state = line.station.await_state(1000)
    return state


def _rows(path: Path) -> dict[str, int]:
    """``Name: number`` rows of a file in /proc."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
