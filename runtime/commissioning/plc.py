"""The PLC's cycle: reads in a separate thread, records what was shown, acknowledges, as a PLC on the line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from asperity.runtime.commissioning.plc_side import NoAnswer, PlcSide, Reading, Shown
from asperity.runtime.errors import AsperityError

RETRY_S = 0.1
T = TypeVar("T")


class Recorded(NamedTuple):
    """A result that was shown, and in which life of the gateway."""

    shown: Shown
    epoch: int


class Beat(NamedTuple):
    """Since when the heartbeat has this value."""

    value: int
    since_s: float
    readings: int
    """Readings with this value."""


class Plc:
    """Reads ``side`` until it is closed. What is recorded may be read by any thread."""

    def __init__(self, side: PlcSide) -> None:
        self.side = side
        self.holding = False
        """A shown result is not acknowledged."""
        self.reading: Reading | None = None
        """The last; None: the last was not answered."""
        self.silence = ""
        """Why the last reading was not answered; empty: it was."""
        self.readings = 0
        self.silences = 0
        self.recorded: list[Recorded] = []
        self.contradictions: list[str] = []
        """What no reading may say: accept 1 without quality, or without a result."""
        self.accepted_at: dict[int, int] = {}
        """Number of a result -> the last reading in which accept was 1 for it."""
        self.beat = Beat(-1, time.monotonic(), 0)
        self.epoch = 0
        self.failure = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plc", daemon=True)

    @property
    def passed(self) -> set[int]:
        """Numbers of results for which accept was 1 in some reading."""
        return set(self.accepted_at)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def ask(self, do: Callable[[PlcSide], T]) -> T:
        """Do something between two readings. Raises NoAnswer."""
        with self._lock:
            return do(self.side)

    def again(self) -> None:
        """The gateway was restarted: its results are numbered by the station, and some were not shown."""
        with self._lock:
            self.epoch += 1

    def close(self) -> None:
        """Read no longer."""
        self._ended.set()
        self._thread.join()
        with suppress(AsperityError):
            self.side.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._lock:
                    self._cycle()
            except NoAnswer as error:
                self.silence, self.reading = str(error), None
                self.silences += 1
                self._ended.wait(RETRY_S)
            except Exception as error:  # noqa: BLE001 - reported by the row that waits for a reading
                self.failure = f"{type(error).__name__}: {error}"
                return
            self._ended.wait(self.side.cycle_s)

    def _cycle(self) -> None:
        reading = self.side.read()
        now_s = time.monotonic()
        for shown in reading.new:
            self.recorded.append(Recorded(shown, self.epoch))
        for shown in (*reading.new, *([reading.shown] if reading.shown else [])):
            if shown.accept:
                self.accepted_at[shown.number] = self.readings
        if reading.accept and not reading.quality:
            self.contradictions.append("accept was 1 while quality was 0")
        if reading.accept and reading.shown is None:
            self.contradictions.append("accept was 1 without a result")
        same = reading.beat == self.beat.value
        self.beat = self.beat._replace(readings=self.beat.readings + 1) if same else Beat(reading.beat, now_s, 1)
        self.reading, self.silence = reading, ""
        self.readings += 1
        if reading.shown is not None and not self.holding and self.side.handshake:
            self.side.acknowledge(reading.shown)
