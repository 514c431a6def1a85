"""Frames through a line and back: a camera process, the inspector's process, and this one as the subscriber."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asperity.benchmarks.line.camera_process import ANSWER_S, CameraPlan, CameraProcess, CameraReport, wall_offset_ns
from asperity.benchmarks.line.rig import SILENCE_TIMEOUT_S, Line
from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import DataError, StationError
from asperity.runtime.frame import Verdict
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import ReceivedResult

QUIET_S = 3.0
"""After the camera's report, this long without a result means that no more will come."""
CORES_ALL: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A result and when it was received."""

    result: ReceivedResult
    exposure_to_received_us: int

    @property
    def scored(self) -> bool:
        """It has a verdict, or would have one if its bundle were not for timing only: it passed every stage."""
        return self.result.verdict is not Verdict.UNKNOWN or self.result.reason_code == Reason.TIMING_ONLY


@dataclass(slots=True)
class Run:
    """Results of one camera's run, by ``seq``, without the warm-up."""

    arrivals: dict[int, Arrival] = field(default_factory=dict)
    repeated: int = 0
    """Results beyond the one per frame."""
    gaps: int = 0
    due: int = 0
    not_sent: int = 0
    late_us: list[int] = field(default_factory=list)
    watching_percent: float = 0.0
    """Share of all cores that this process, the subscriber of all stations, used while frames were sent."""

    def scored(self) -> list[Arrival]:
        """Those that passed every stage, in the order of the frames."""
        found = (self.arrivals[seq] for seq in sorted(self.arrivals))
        return [arrival for arrival in found if arrival.scored]

    def inside_us(self) -> list[int]:
        """Frame arrival to result sent, by the inspector's clock, of the scored frames."""
        return [arrival.result.latency_us["total"] for arrival in self.scored()]

    def outside_us(self) -> list[int]:
        """Due to received, of the scored frames: camera, both sockets and the inspector."""
        return [arrival.exposure_to_received_us for arrival in self.scored()]

    def fps(self) -> float | None:
        """Scored frames per second, from the first result to the last; None with fewer than two."""
        done_us = [arrival.result.t_done_us for arrival in self.scored()]
        return round(1e6 * (len(done_us) - 1) / (done_us[-1] - done_us[0]), 3) if len(done_us) > 1 else None

    def fates(self) -> dict[str, int]:
        """Number of frames that were not scored, by reason; ``NOT_ANSWERED`` without any result."""
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
    """How frames are sent to a line."""

    folder: Path | None
    frames: int
    rate_hz: float | None
    """None: back to back."""
    warm_up: int = 20
    cores: tuple[int, ...] = CORES_ALL


Tick = Callable[[list[Arrival]], None]


def drive(line: Line, load: Load, tick: Tick = lambda arrivals: None) -> Run:
    """Send ``warm_up + frames`` frames through a line of one station.

    ``tick`` is called several times per second with what is new. Raises StationError when the inspector dies or
    stops answering, CameraError when the camera does.
    """
    return drive_all(line, load, tick)[0]


def drive_all(line: Line, load: Load, tick: Tick = lambda arrivals: None) -> list[Run]:
    """The same through every station of a line at once, with one camera process and run each."""
    offset_ns = wall_offset_ns()
    with ExitStack() as stack:
        ways = [
            _Way(stack.enter_context(CameraProcess(_plan(line, load, at), offset_ns)), station, load, offset_ns)
            for at, station in enumerate(line.stations)
        ]
        for way in ways:
            way.begin()
        began_s, used_s = time.monotonic(), time.process_time()
        patience_s = max(SILENCE_TIMEOUT_S, 3 / load.rate_hz) if load.rate_hz else ANSWER_S + SILENCE_TIMEOUT_S
        while not all(way.ended for way in ways):
            for way in ways:
                tick(way.look(timeout_ms=100 if len(ways) == 1 else 5))
                if time.monotonic() - way.heard_s > patience_s and not way.ended:
                    raise StationError(f"no result in {patience_s:.0f} s; see the inspector's log")
            if not line.alive:
                raise StationError("the inspector ended while frames were sent; see its log")
        share = (time.process_time() - used_s) / (time.monotonic() - began_s) / (os.cpu_count() or 1)
    for way in ways:
        way.run.watching_percent = round(100 * share, 3)
    return [way.run for way in ways]


def _plan(line: Line, load: Load, at: int) -> CameraPlan:
    station = line.names[at]
    return CameraPlan(
        line.cameras[station], station, line.ends["frames"], line.ends["results"], load.folder,
        load.warm_up + load.frames, load.rate_hz, load.cores,
    )  # fmt: skip


class _Way:
    """One station: its camera process, its subscriber, and the results of both."""

    def __init__(self, camera: CameraProcess, station: StationClient, load: Load, offset_ns: int) -> None:
        self.run = Run()
        self.ended = False
        self.heard_s = 0.0
        self._camera, self._station, self._load, self._offset_ns = camera, station, load, offset_ns
        self._session = ""
        self._report: CameraReport | None = None

    def begin(self) -> None:
        """Let the camera begin."""
        self._session = self._camera.go()
        self.heard_s = time.monotonic()

    def look(self, timeout_ms: int) -> list[Arrival]:
        """Receive for at most this long; returns what is new."""
        new = self._take(timeout_ms)
        now_s = time.monotonic()
        if self._report is None and self._camera.poll():
            self._report = report = self._camera.report(timeout_s=1.0)
            self.run.due, self.run.not_sent = report.due - self._load.warm_up, report.not_sent
            self.run.late_us = report.late_us[self._load.warm_up :]
            self.heard_s = now_s
        if new:
            self.heard_s = now_s
        if self._report is not None and not self.ended:
            answered = len(self.run.arrivals) >= self.run.due
            self.ended = answered or now_s - self.heard_s > QUIET_S
        return new

    def _take(self, timeout_ms: int) -> list[Arrival]:
        items = self._station.poll(timeout_ms)
        now_us = (time.monotonic_ns() + self._offset_ns) // 1000
        run, new = self.run, list[Arrival]()
        for item in items:
            if isinstance(item, Gap):
                run.gaps += 1
            elif item.camera_session == self._session and item.seq > self._load.warm_up:
                run.repeated += item.seq in run.arrivals
                arrival = Arrival(item, now_us - item.t_exposure_us)
                run.arrivals[item.seq] = arrival
                new.append(arrival)
        return new


def require_scored(run: Run, folder: Path | None) -> None:
    """Raises DataError when no frame was scored: these cannot be the product's frames."""
    if not run.scored():
        raise DataError(f"no frame of {folder} was scored ({run.fates()}); give the bundle's own product")


def conditions(cores: tuple[int, ...], nice: int) -> dict[str, Any]:
    """Cores and priority of the inspector."""
    return {"pinned_to": list(cores) or None, "nice": nice, "cores_allowed": sorted(os.sched_getaffinity(0))}
