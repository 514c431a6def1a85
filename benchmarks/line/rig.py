"""A line in miniature: an inspector as a process, a camera as another, this one subscribing as a customer would."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from asperity.runtime.client.ordering import Gap
from asperity.runtime.client.station_client import StationClient
from asperity.runtime.errors import StationError, UsageError
from asperity.runtime.frame import Verdict
from asperity.runtime.states import JUDGING
from asperity.runtime.wire import ReceivedResult

STATION = "bench"
CAMERA = "cam1"
START_TIMEOUT_S = 120.0
SILENCE_TIMEOUT_S = 60.0
"""Longest time without any result before a stream is given up."""


@dataclass(slots=True)
class Answers:
    """What came back while a camera ran."""

    results: dict[int, ReceivedResult] = field(default_factory=dict)  # by seq
    gaps: list[Gap] = field(default_factory=list)
    seconds: float = 0.0

    def judged(self) -> list[ReceivedResult]:
        """The results with a verdict."""
        return [result for result in self.results.values() if result.verdict is not Verdict.UNKNOWN]


def asperity(*arguments: str) -> list[str]:
    """The command line of a step, in this interpreter's environment."""
    return [sys.executable, "-m", "asperity.runtime.cli", *arguments]


def line_engine(bundle: Path | None, engine: str) -> str:
    """The line of [engine] that names it; without a bundle ``asperity run`` names the simulated one itself."""
    return "" if bundle is None else f'name = "{engine}"\n'


class Line:
    """An inspector over ipc in a folder of its own, for the length of a ``with``."""

    def __init__(
        self,
        bundle: Path | None,
        log: Path,
        more: str = "",
        *,
        cores: tuple[int, ...] = (),
        nice: int = 0,
        samples: Path | None = None,
        stations: int = 1,
    ) -> None:
        """``log``: file for what the inspector says. ``more``: further tables of its station.toml.

        Without a bundle the engine is the simulated one. ``cores`` and ``nice``: where and how urgently it runs.
        ``samples``: file into which it counts its Python objects (``line.sampled``). ``stations``: hosted by the
        one process, each with a camera of its own.
        """
        self._bundle, self._log, self._more = bundle, log, more
        self.names = [(STATION, CAMERA)] if stations == 1 else [
            (f"{STATION}{number}", f"cam{number}") for number in range(1, stations + 1)
        ]  # fmt: skip
        """Of each station and its camera."""
        self._cores, self._nice, self._samples = cores, nice, samples
        self._stack = ExitStack()

    @property
    def pid(self) -> int:
        """The inspector's process."""
        return self._inspector.pid

    @property
    def alive(self) -> bool:
        """Whether the inspector still runs."""
        return self._inspector.poll() is None

    @property
    def station(self) -> StationClient:
        """The first station as a customer sees it."""
        return self.stations[0]

    def _stations(self, folder: str) -> str:
        if len(self.names) == 1:
            return f'[station]\nname = "{STATION}"\ncamera = "{CAMERA}"\n'
        return "".join(
            f'[[stations]]\nname = "{name}"\nnumber = {number}\ncamera = "{camera}"\n'
            f'journal = "{folder}/{name}.journal"\n'
            for number, (name, camera) in enumerate(self.names, 1)
        )

    def _journal(self, folder: str) -> str:
        return f'path = "{folder}/line.journal"\n' if len(self.names) == 1 else ""

    def __enter__(self) -> Line:
        """Start the inspector and wait until it judges. Raises StationError when it does not."""
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="asperity-"))
            self.endpoints = {name: f"ipc://{folder}/{name}" for name in ("frames", "results", "bulk", "control")}
            sockets = "\n".join(f'{name} = "{endpoint}"' for name, endpoint in self.endpoints.items())
            config = Path(folder) / "station.toml"
            config.write_text(
                f"{self._stations(folder)}[sockets]\n{sockets}\n[journal]\n{self._journal(folder)}{self._more}"
            )
            said = stack.enter_context(self._log.open("wb"))
            judge = ("--engine", "simulated") if self._bundle is None else (str(self._bundle),)
            command = asperity("run", *judge, "--config", str(config))
            if self._samples is not None:
                command = [sys.executable, "-m", "asperity.benchmarks.line.sampled", str(self._samples), *command[3:]]
            self._inspector = self._start(command, said)
            stack.callback(_end, self._inspector)
            self.stations = [
                stack.enter_context(StationClient(self.endpoints["results"], self.endpoints["control"], station=name))
                for name, _ in self.names
            ]
            for station in self.stations:
                self._await_judging(station)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self, command: list[str], said: IO[bytes]) -> subprocess.Popen[bytes]:
        """A child inherits the cores of whoever starts it, so that it counts them rightly from its first line on."""
        before = os.sched_getaffinity(0) if self._cores else set()
        if self._cores:
            try:
                os.sched_setaffinity(0, self._cores)
            except OSError as error:
                raise UsageError(f"cores {self._cores} cannot be used ({error}); this machine has 0 to "
                                 f"{(os.cpu_count() or 1) - 1}") from error  # fmt: skip
        try:
            process = subprocess.Popen(command, stderr=said, stdout=said)
        finally:
            if before:
                os.sched_setaffinity(0, before)
        if self._nice:
            try:
                os.setpriority(os.PRIO_PROCESS, process.pid, self._nice)
            except OSError as error:
                _end(process)
                raise UsageError(f"priority {self._nice}: {error}; below 0 needs the right to it") from error
        return process

    def stream(self, frames: int, *camera: str) -> Answers:
        """Run ``asperity camera ...`` with these arguments for ``frames`` exposures and gather their results.

        Raises StationError when the camera fails or results stay away.
        """
        answers = Answers()
        command = asperity("camera", *camera, "--frames", str(frames), "--camera", CAMERA,
                           "--frames-endpoint", self.endpoints["frames"])  # fmt: skip
        began_s = time.monotonic()
        process = subprocess.Popen(command)
        try:
            for item in self.station.results(idle_timeout_s=SILENCE_TIMEOUT_S):
                if isinstance(item, Gap):
                    answers.gaps.append(item)
                else:
                    answers.results[item.seq] = item
                if len(answers.results) >= frames:
                    break
            answers.seconds = time.monotonic() - began_s
            if process.wait(timeout=SILENCE_TIMEOUT_S):
                raise StationError(f"the camera ended with exit code {process.returncode}; see its words above")
        finally:
            _end(process)
        return answers

    def _await_judging(self, station: StationClient) -> None:
        ends_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < ends_s:
            if self._inspector.poll() is not None:
                last = (self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
                raise StationError(f"the inspector ended with exit code {self._inspector.returncode}: {last}")
            station.poll(timeout_ms=100)
            if station.state is not None and station.state.state in JUDGING:
                return
        raise StationError(f"the inspector does not judge after {START_TIMEOUT_S:.0f} s; its log is {self._log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=SILENCE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
