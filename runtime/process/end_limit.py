"""Ends a process that was asked to stop and does not: a driver's call that never returns keeps Python's handlers away.

    with EndLimit(5.0) as limit:      # main thread
        ...                           # SIGTERM or SIGINT: the process ends within 5 s
        limit.start(20, "sentence")   # or now: within 5 s it ends with this code
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import TracebackType

from asperity.runtime.process.exits import end_at_once

STOP_EXIT_CODE = 128 + signal.SIGTERM
STOPPED = "it was asked to stop, and a call of the driver did not return; nothing more is sent"


class EndLimit:
    """From the moment the process is asked to stop, it has ``limit_s`` until the end of the ``with``."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._over = limit_s, threading.Event()
        self._told = STOP_EXIT_CODE, STOPPED
        self._hear, self._say = os.pipe()
        os.set_blocking(self._say, False)

    def start(self, exit_code: int, sentence: str) -> None:
        """The time begins now; if it passes, the process says the sentence and ends with this code."""
        self._told = exit_code, sentence
        os.write(self._say, bytes([signal.SIGTERM]))

    def __enter__(self) -> EndLimit:
        # Python's own C handler writes each signal's number here, whatever the main thread is doing.
        self._before = signal.set_wakeup_fd(self._say, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="end limit", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._before)
        self._over.set()
        os.close(self._say)

    def _watch(self) -> None:
        while number := os.read(self._hear, 1):
            if number[0] in (signal.SIGTERM, signal.SIGINT) and not self._over.wait(self._limit_s):
                exit_code, sentence = self._told
                print(f"asperity: {sentence}", file=sys.stderr)
                end_at_once(exit_code)
        os.close(self._hear)
