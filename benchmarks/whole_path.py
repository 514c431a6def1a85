"""Frames through a line and back: a camera process, the inspector's process, and this one as the subscriber."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.camera import ANSWER_S, CameraPlan, CameraProcess, CameraReport, wall_offset_ns
from benchmarks.line import CAMERA, SILENCE_TIMEOUT_S, STATION, Line
from runtime.errors import DataError, StationError
from runtime.frame import Verdict
from runtime.ordering import Gap
from runtime.reasons import Reason
from runtime.wire import ReceivedResult

QUIET_S = 3.0
"""After the camera's report, so long without a result means that no more will come."""
CORES_ALL: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result and when it was received."""

    result: ReceivedResult
    exposure_to_received_us: int

    @property
    def scored(self) -> bool:
        """It has a verdict, or would have one if its bundle were not for timing only: it went the whole way."""
        return self.result.verdict is not Verdict.UNKNOWN or self.result.reason_code == Reason.TIMING_ONLY


@dataclass(slots=True)
class Run:
    """What came of one camera's run, by ``seq``; the warm-up is not in it."""

    arrivals: dict[int, Arrival] = field(default_factory=dict)
    repeated: int = 0
    """Results beyond the one that a frame may have."""
    gaps: int = 0
    due: int = 0
    not_sent: int = 0
    late_us: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def scored(self) -> list[Arrival]:
        """Those that went the whole way, in the order of the frames."""
        found = (self.arrivals[seq] for seq in sorted(self.arrivals))
        return [arrival for arrival in found if arrival.scored]

    def inside_us(self) -> list[int]:
        """Frame arrival to result sent, by the inspector's clock, of the scored frames."""
        return [arrival.result.latency_us["total"] for arrival in self.scored()]

    def outside_us(self) -> list[int]:
        """Due to received, of the scored frames: camera, both sockets and the inspector."""
        return [arrival.exposure_to_received_us for arrival in self.scored()]

    def fates(self) -> dict[str, int]:
        """What became of the frames that were not scored, by reason; ``NOT_ANSWERED`` without any result."""
        told = Counter(
            Reason(arrival.result.reason_code).name for arrival in self.arrivals.values() if not arrival.scored
        )
        if self.due > len(self.arrivals):
            told["NOT_ANSWERED"] = self.due - len(self.arrivals)
        return dict(told)

    def deadline_missed(self) -> int:
        """Frames that had no verdict when their deadline passed."""
        return sum(arrival.result.deadline_missed for arrival in self.arrivals.values())


@dataclass(frozen=True, slots=True)
class Load:
    """How frames are given to a line."""

    folder: Path | None
    frames: int
    rate_hz: float | None
    """None: back to back."""
    warm_up: int = 20
    cores: tuple[int, ...] = CORES_ALL


Tick = Callable[[list[Arrival]], None]


def drive(line: Line, load: Load, tick: Tick = lambda arrivals: None) -> Run:
    """Send ``warm_up + frames`` frames through a line. ``tick`` is called several times a second with what is new.

    Raises StationError when the inspector dies or falls silent, CameraError when the camera does.
    """
    run, offset_ns = Run(), wall_offset_ns()
    plan = CameraPlan(
        CAMERA, STATION, line.endpoints["frames"], line.endpoints["results"], load.folder,
        load.warm_up + load.frames, load.rate_hz, load.cores,
    )  # fmt: skip
    with CameraProcess(plan, offset_ns) as camera:
        session = camera.go()
        began_s = heard_s = time.monotonic()
        patience_s = max(SILENCE_TIMEOUT_S, 3 / load.rate_hz) if load.rate_hz else ANSWER_S + SILENCE_TIMEOUT_S
        report: CameraReport | None = None
        while not _all_there(run, report, load, heard_s):
            new = _take(line, run, session, load.warm_up, offset_ns)
            heard_s = time.monotonic() if new else heard_s
            tick(new)
            if report is None and camera.poll():
                report = camera.report(timeout_s=1.0)
                heard_s = time.monotonic()
            if not line.alive:
                raise StationError("the inspector ended while frames were sent; see its log")
            if time.monotonic() - heard_s > patience_s:
                raise StationError(f"no result in {patience_s:.0f} s; see the inspector's log")
        run.seconds = time.monotonic() - began_s
    assert report is not None
    run.due = report.due - load.warm_up
    run.late_us = report.late_us[load.warm_up :]
    run.not_sent = report.not_sent
    return run


def require_scored(run: Run, folder: Path | None) -> None:
    """Raises DataError when no frame was scored: these cannot be the product's frames."""
    if not run.scored():
        raise DataError(f"no frame of {folder} was scored ({run.fates()}); give the bundle's own product")


def conditions(cores: tuple[int, ...], nice: int) -> dict[str, Any]:
    """Where and how urgently the inspector ran."""
    return {"pinned_to": list(cores) or None, "nice": nice, "cores_allowed": sorted(os.sched_getaffinity(0))}


def _all_there(run: Run, report: CameraReport | None, load: Load, heard_s: float) -> bool:
    if report is None:
        return False
    answered = len(run.arrivals) >= report.due - load.warm_up
    return answered or time.monotonic() - heard_s > QUIET_S


def _take(line: Line, run: Run, session: str, warm_up: int, offset_ns: int) -> list[Arrival]:
    items = line.station.poll(timeout_ms=100)
    now_us = (time.monotonic_ns() + offset_ns) // 1000
    new: list[Arrival] = []
    for item in items:
        if isinstance(item, Gap):
            run.gaps += 1
        elif item.camera_session == session and item.seq > warm_up:
            run.repeated += item.seq in run.arrivals
            arrival = Arrival(item, now_us - item.t_exposure_us)
            run.arrivals[item.seq] = arrival
            new.append(arrival)
    return new
