"""Checks names and passwords without holding up the loop, or one another.

scrypt takes some 50 ms on purpose. It runs in threads (hashlib lets the others run meanwhile), ``checks`` at a time.
The log-ins of one user name from one address wait for each other, and longer after each wrong password; no other
log-in waits for them. So neither many log-ins nor password guessing keeps another client out.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from asperity.runtime.gateways.config import Users
from asperity.runtime.gateways.log_ins import users

LANES_MAX = 1024
"""User names and addresses that are remembered; the one heard of longest ago is forgotten."""
UNKNOWN_LANES = 4
"""Names that are in no file share these, so that inventing names does not give more tries."""


class BusyError(Exception):
    """The log-in waited for its turn for too long; nothing was checked."""


@dataclass
class _Lane:
    """The log-ins of one user name from one address."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    failures: int = 0
    """In a row."""
    not_before_s: float = 0.0

    @property
    def in_use(self) -> bool:
        return self.waiting > 0 or self.turn.locked()


class LogIns:
    """For one loop."""

    def __init__(self, known: Mapping[str, users.User], config: Users) -> None:
        self._known = dict(known)
        self._wait_s = config.wait_ms / 1000
        self._delay_s, self._delay_max_s = config.delay_ms / 1000, config.delay_max_ms / 1000
        self._slots = asyncio.Semaphore(config.checks)
        self._pool = ThreadPoolExecutor(config.checks, "log-in")
        self._lanes: OrderedDict[tuple[str, str], _Lane] = OrderedDict()
        self._running: set[asyncio.Task[users.User | None]] = set()

    async def check(self, name: str, password: str, host: str) -> users.User | None:
        """The user, if name and password match; None: refused. Raises BusyError after ``wait_ms``."""
        lane = self._lane(name, host)
        lane.waiting += 1
        try:
            await asyncio.wait_for(self._await_turn(lane), self._wait_s)
        except asyncio.TimeoutError:
            raise BusyError from None
        finally:
            lane.waiting -= 1
        # Whoever hangs up does not cut the check short: its thread works on, and what it finds still counts.
        running = asyncio.ensure_future(self._run(lane, name, password))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        return await asyncio.shield(running)

    def close(self) -> None:
        """Check no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _await_turn(self, lane: _Lane) -> None:
        """Returns with the lane's turn and one of the slots."""
        await lane.turn.acquire()
        try:
            await asyncio.sleep(max(0.0, lane.not_before_s - time.monotonic()))
            await self._slots.acquire()
        except BaseException:
            lane.turn.release()
            raise

    async def _run(self, lane: _Lane, name: str, password: str) -> users.User | None:
        loop, user = asyncio.get_running_loop(), None
        try:
            user = await loop.run_in_executor(self._pool, users.check_password, self._known, name, password)
        finally:
            lane.failures = 0 if user is not None else lane.failures + 1
            if lane.failures:
                delay_s = min(self._delay_max_s, self._delay_s * 2 ** min(lane.failures - 1, 32))
                lane.not_before_s = time.monotonic() + delay_s
            self._slots.release()
            lane.turn.release()
        return user

    def _lane(self, name: str, host: str) -> _Lane:
        key = (name if name in self._known else f" {hash(name) % UNKNOWN_LANES}", host)
        lane = self._lanes.setdefault(key, _Lane())
        self._lanes.move_to_end(key)
        if len(self._lanes) > LANES_MAX:
            idle = next((k for k, other in self._lanes.items() if other is not lane and not other.in_use), None)
            if idle is not None:
                del self._lanes[idle]
        return lane
