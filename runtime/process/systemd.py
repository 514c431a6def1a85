"""Notifies a supervisor (systemd, ``Type=notify``): sd_notify datagrams written to NOTIFY_SOCKET, nothing else.

Ready is sent once, after the first recipe has judged its golden frames. The watchdog is fed only when work has moved
on (for the inspector: the engine thread's heartbeat), never by a timer, so that a stuck engine is ended and restarted.
Without NOTIFY_SOCKET every call does nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

EXTENSION_S = 30
"""How much longer the supervisor is asked to wait while a recipe is being opened."""
EXTENSION_INTERVAL_S = 5
WATCHDOG_DIGITS_MAX = 20
WATCHDOG_FEEDS = 4
"""The watchdog is fed at most this many times within its time."""


class Supervision:
    """Tells the supervisor how this process gets on. For one thread."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Reads ``NOTIFY_SOCKET`` (a path, or ``@name`` for an abstract one) and ``WATCHDOG_USEC``."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        is_time = watchdog_us.isdecimal() and len(watchdog_us) <= WATCHDOG_DIGITS_MAX
        self._feed_ns = int(watchdog_us) * 1000 // WATCHDOG_FEEDS if is_time else 0
        self._clock_ns = clock_ns
        self._ready = False
        self._complained = False
        self._status = ""
        self._progress: int | None = None
        self._fed_ns: int | None = None
        self._extended_ns: int | None = None

    def opening(self) -> None:
        """The first recipe is being opened: ask for more time, every few seconds. Call it only while it is."""
        now_ns = self._clock_ns()
        if self._ready or (self._extended_ns is not None and now_ns - self._extended_ns < EXTENSION_INTERVAL_S * 10**9):
            return
        self._extended_ns = now_ns
        self._tell(f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 10**6}")

    def ready(self) -> None:
        """The process can do its work; said once, again where the supervisor had no room for it."""
        if not self._ready:
            self._ready = self._tell("READY=1")

    def progress(self, count: int) -> None:
        """Feed the watchdog if ``count`` has moved since it was fed last."""
        now_ns = self._clock_ns()
        if not self._feed_ns or count == self._progress:
            return
        if self._fed_ns is None or now_ns - self._fed_ns >= self._feed_ns:
            self._progress, self._fed_ns = count, now_ns
            self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for people (``systemctl status``), on change."""
        if text != self._status:
            self._status = text
            self._tell("STATUS=" + text.replace("\n", " "))

    def stopping(self) -> None:
        """The process is ending."""
        self._tell("STOPPING=1")

    def _tell(self, line: str) -> bool:
        """False where the supervisor has not yet read earlier messages, and the line is lost."""
        if not self._address:
            return True
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto(line.encode(), address)
        except BlockingIOError:
            return False
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning(
                    "the supervisor at NOTIFY_SOCKET=%s could not be notified of %s: %s", self._address, line, error
                )
        return True
