"""A line in miniature: an inspector process, a camera process, and this process subscribing as a customer would."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from asperity.client import Gap, ReceivedResult, StationClient, StationError, Verdict
from asperity.runtime.errors import UsageError
from asperity.runtime.process.child import Child
from asperity.testing import CAMERA, STATION, Site

__all__ = ["CAMERA", "STATION", "Answers", "Line", "asperity", "limits", "line_engine"]
START_TIMEOUT_S = 120.0
SILENCE_TIMEOUT_S = 60.0
"""Longest time without a result before a stream is abandoned."""


@dataclass(slots=True)
class Answers:
    """What was received while a camera ran."""

    results: dict[int, ReceivedResult] = field(default_factory=dict)  # by seq
    gaps: list[Gap] = field(default_factory=list)
    seconds: float = 0.0

    def judged(self) -> list[ReceivedResult]:
        """The results with a verdict."""
        return [result for result in self.results.values() if result.verdict is not Verdict.UNKNOWN]


def asperity(*arguments: str) -> list[str]:
    """The command line of a step, in this interpreter's environment."""
    return [sys.executable, "-m", "asperity.runtime.cli", *arguments]


def limits(deadline_ms: int) -> dict[str, int]:
    """The table [limits] for a measurement."""
    return {"deadline_ms": deadline_ms, "max_age_ms": max(1000, 2 * deadline_ms)}


def line_engine(bundle: Path | None, engine: str, **more: Any) -> dict[str, Any]:
    """The table [engine]; without a bundle, the simulated one."""
    return more if bundle is None else {"name": engine, **more}


class Line(Site):
    """An inspector that runs for the length of a ``with``, and a subscriber to each station as a customer has it."""

    def __init__(
        self,
        bundle: Path | None,
        log: Path,
        *,
        cores: tuple[int, ...] = (),
        nice: int = 0,
        samples: Path | None = None,
        stations: int = 1,
        **sections: Any,
    ) -> None:
        """``log``: file for the inspector's log. ``sections``: further tables of its station.toml.

        Without a bundle the engine is the simulated one. ``cores`` and ``nice``: its cores and priority.
        ``samples``: file for the counts of its Python objects (``line.sampled``). ``stations``: hosted by the one
        process, each with its own camera.
        """
        names = [f"st{number}" for number in range(1, stations + 1)] if stations > 1 else ()
        super().__init__(names=names, bundle=bundle, patient=False, log=log, **sections)
        self._cores, self._nice, self._samples = cores, nice, samples
        self._stack = ExitStack()

    @property
    def pid(self) -> int:
        """The inspector's process."""
        return self.inspector.pid

    @property
    def alive(self) -> bool:
        """Whether the inspector is still running."""
        return self.inspector.poll() is None

    @property
    def station(self) -> StationClient:
        """The first station as a customer sees it."""
        return self.stations[0]

    def __enter__(self) -> Line:
        """Start the inspector and wait until it judges. Raises StationError when it does not."""
        with ExitStack() as stack:
            stack.callback(self.close)
            self.stations = [stack.enter_context(self.client(station=name)) for name in self.names]
            self.start()
            stack.callback(self.stop)
            for station in self.stations:
                self.await_judging(station, START_TIMEOUT_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def command(self, *arguments: str) -> list[str]:
        """The command line that ``start`` runs."""
        command = super().command(*arguments)
        if self._samples is None:
            return command
        return [sys.executable, "-m", "asperity.benchmarks.line.sampled", str(self._samples), *command[3:]]

    def start(self, *arguments: str) -> Child:
        """A child inherits its parent's cores, so that it counts them correctly from its first line on."""
        before = os.sched_getaffinity(0) if self._cores else set()
        if self._cores:
            try:
                os.sched_setaffinity(0, self._cores)
            except OSError as error:
                raise UsageError(f"cores {self._cores} cannot be used ({error}); this machine has 0 to "
                                 f"{(os.cpu_count() or 1) - 1}") from error  # fmt: skip
        try:
            process = super().start(*arguments)
        finally:
            if before:
                os.sched_setaffinity(0, before)
        if self._nice:
            try:
                os.setpriority(os.PRIO_PROCESS, process.pid, self._nice)
            except OSError as error:
                raise UsageError(f"priority {self._nice}: {error}; below 0 needs the privilege") from error
        return process

    def stream(self, frames: int, *camera: str) -> Answers:
        """Run ``asperity camera ...`` with these arguments for ``frames`` exposures and collect their results.

        Raises StationError when the camera fails or results are missing.
        """
        answers = Answers()
        command = asperity("camera", *camera, "--frames", str(frames), "--camera", CAMERA,
                           "--frames-endpoint", self.ends["frames"])  # fmt: skip
        began_s = time.monotonic()
        process = Child(command)
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
                raise StationError(f"the camera ended with exit code {process.returncode}; see its output above")
        finally:
            process.end(SILENCE_TIMEOUT_S)
        return answers
