"""A camera process for benchmarks: frames from memory, sent when they are due.

Each frame carries its scheduled time as its exposure time, so that a frame sent late is a slow frame and not a missing
one (no coordinated omission). Everything is on the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import numpy as np

from asperity.runtime.cameras.replay import ReplayCamera
from asperity.runtime.cameras.schedule import Schedule
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.errors import CameraError
from asperity.runtime.frame import Frame

PICTURES = 32
"""Number of different frames, sent in turn."""
SIMULATED_PX = 64
CONNECT_MS = 30_000
ANSWER_S = 30.0
"""Back to back: longest wait for a result before the next frame is sent anyway."""
READY_S = 120.0


@dataclass(frozen=True, slots=True)
class CameraPlan:
    """Options of a camera process."""

    camera: str
    station: str
    frames_endpoint: str
    results_endpoint: str
    folder: Path | None
    """Recorded frames; None: random ones, for the simulated engine."""
    frames: int
    rate_hz: float | None
    """None: back to back, the next frame when the previous one has its result."""
    cores: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CameraReport:
    """Report of a camera's run."""

    due: int
    """Frames scheduled."""
    not_sent: int
    """Of those, the frames that the send queue did not accept: the line was still busy with the previous one."""
    late_us: list[int]
    """How long after its scheduled time each frame was handed to the socket."""


def wall_offset_ns() -> int:
    """Offset from monotonic to wall time, fixed for a whole run."""
    return time.time_ns() - time.monotonic_ns()


def pictures(folder: Path | None, camera: str, most: int = PICTURES) -> list[Frame]:
    """Up to ``most`` frames of a folder, or random ones. Raises DataError."""
    if folder is not None:
        return [shot.frame for shot in itertools.islice(ReplayCamera(folder, name=camera), most)]
    rng = np.random.default_rng(1)
    shape = (SIMULATED_PX, SIMULATED_PX, 3)
    return [
        Frame(
            camera=camera, camera_session="", seq=0, unit="mm", rgb=rng.integers(0, 256, shape, np.uint8),
            xyz=rng.normal(500, 50, shape).astype(np.float32),
        )
        for _ in range(most)
    ]  # fmt: skip


class CameraProcess:
    """A camera in a separate process, for the length of a ``with``. It begins when ``go`` is called."""

    def __init__(self, plan: CameraPlan, offset_ns: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(plan, offset_ns, theirs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether it is still running."""
        return self._process.is_alive()

    def go(self) -> str:
        """Wait until it is connected and has its frames in memory, then let it begin; returns its camera session.

        Raises CameraError.
        """
        session = self._await()
        self._ours.send(None)
        return str(session)

    def poll(self) -> bool:
        """Whether the report has arrived."""
        return self._ours.poll(0) or not self.alive

    def report(self, timeout_s: float) -> CameraReport:
        """The report of the run. Raises CameraError if the process ended without one."""
        report = self._await(timeout_s)
        if not isinstance(report, CameraReport):
            raise CameraError("the camera process ended before its run did; see its output above")
        return report

    def _await(self, timeout_s: float = READY_S) -> object:
        with suppress(EOFError):
            if self._ours.poll(timeout_s):
                return self._ours.recv()
        raise CameraError(f"the camera process said nothing in {timeout_s:.0f} s or ended; see its output above")

    def __enter__(self) -> CameraProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.join(timeout=1.0 if error is None else 0.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _run(plan: CameraPlan, offset_ns: int, pipe: Connection) -> None:
    if plan.cores:
        os.sched_setaffinity(0, plan.cores)
    frames = pictures(plan.folder, plan.camera)
    with FrameSender(plan.camera, plan.frames_endpoint) as sender:
        if not sender.wait_connected(CONNECT_MS):
            raise CameraError(f"{plan.frames_endpoint} did not answer in {CONNECT_MS} ms")
        pipe.send(sender.camera_session)
        pipe.recv()
        shots = itertools.islice(itertools.cycle(frames), plan.frames)
        late_us = (
            _on_schedule(shots, sender, plan.rate_hz, offset_ns)
            if plan.rate_hz
            else _back_to_back(shots, sender, plan, offset_ns)
        )
        pipe.send(CameraReport(sender.seq, sender.dropped, late_us))


def _on_schedule(shots: itertools.islice[Frame], sender: FrameSender, rate_hz: float, offset_ns: int) -> list[int]:
    schedule = Schedule(rate_hz)
    late_us = []
    for shot in shots:
        late_ns = schedule.wait()
        due_ns = time.monotonic_ns() - late_ns
        sender.send(_exposed(shot, due_ns + offset_ns))
        late_us.append((time.monotonic_ns() - due_ns) // 1000)
    return late_us


def _back_to_back(shots: itertools.islice[Frame], sender: FrameSender, plan: CameraPlan, offset_ns: int) -> list[int]:
    from asperity.runtime.client.station_client import StationClient

    late_us = []
    with StationClient(plan.results_endpoint, station=plan.station) as station:
        station.await_state(CONNECT_MS)
        for shot in shots:
            began_ns = time.monotonic_ns()
            sender.send(_exposed(shot, began_ns + offset_ns), wait_ms=CONNECT_MS)
            late_us.append((time.monotonic_ns() - began_ns) // 1000)
            ends_s = time.monotonic() + ANSWER_S
            while time.monotonic() < ends_s:
                if any(getattr(item, "seq", 0) == sender.seq for item in station.poll(100)):
                    break
    return late_us


def _exposed(frame: Frame, wall_ns: int) -> Frame:
    return replace(frame, t_exposure_us=wall_ns // 1000, clock="realtime")
