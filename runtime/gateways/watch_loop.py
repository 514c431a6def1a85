"""Ends a gateway whose main loop hangs: a process that has ended accepts nothing, and systemd restarts it.

    watch = TurnWatch(limit_ms)        # limit_ms() is the station's beat_timeout_ms
    watch.start()
    while not ending:
        watch.turned()                 # an asyncio gateway calls it from its own task: await watch.keep_turning()
        ...
    watch.close()

``Link.view`` and ``Link.may_pass`` already answer no without any loop; this covers values that were written before
the loop hung and that nothing else would withdraw.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from asperity.runtime.errors import GatewayError
from asperity.runtime.gateways.link import Link

log = logging.getLogger("asperity.gateway")

BEAT_TIMEOUT_MS = 600
"""Before the station has said its own."""
CHECKS = 8
"""A loop is stuck when it did not turn in so many looks in a row, ``limit / CHECKS`` apart.

Counting looks instead of comparing times spares a process that was itself stopped, or that a crowded machine did not
run: then the watch looked no more often than the loop turned.
"""


def beat_timeout_ms(link: Link) -> Callable[[], int]:
    """The limit of a gateway: its station's ``beat_timeout_ms``."""

    def limit_ms() -> int:
        state = link.view().state
        return BEAT_TIMEOUT_MS if state is None else state.beat_timeout_ms

    return limit_ms


def end_process(text: str) -> NoReturn:
    """End at once, whatever other threads hold: no handler and no destructor runs that could wait for them."""
    print(f"asperity: {text}", file=sys.stderr, flush=True)
    os._exit(GatewayError.exit_code)


class TurnWatch:
    """A thread that counts the turns of another."""

    def __init__(self, limit_ms: Callable[[], int], stuck: Callable[[str], object] = end_process) -> None:
        self._limit_ms = limit_ms
        self._stuck = stuck
        self._turns = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="turn-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch. Everything slow (imports, building an address space) comes before."""
        self._thread.start()

    def turned(self) -> None:
        """The loop has turned."""
        self._turns += 1

    async def keep_turning(self) -> None:
        """A task of an asyncio loop that turns with it until it is cancelled."""
        while True:
            self.turned()
            await asyncio.sleep(self._limit_ms() / 1000 / CHECKS / 2)

    def close(self) -> None:
        """Watch no longer."""
        self._ending.set()

    def _run(self) -> None:
        seen, since_s, looks = self._turns, time.monotonic(), 0
        while not self._ending.wait(self._limit_ms() / 1000 / CHECKS):
            if self._turns != seen:
                seen, since_s, looks = self._turns, time.monotonic(), 0
                continue
            looks += 1
            if looks >= CHECKS:
                waited_ms = round((time.monotonic() - since_s) * 1000)
                self._stuck(
                    f"the gateway's event loop was blocked for {waited_ms} ms; the process exits so that it "
                    "is restarted"
                )
                return
