"""What lies between desk and bench: a queue in order of arrival, of which at most a few are frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Errand = Callable[[], None]
"""Something the bench does between two frames: taking over a recipe, a self-test."""


class Inbox(Generic[T]):
    """At most ``length`` frames wait; errands keep their place between them and are few (the desk gives one at a time).

    Thread-safe. ``T`` is the frame's job.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._queue: deque[tuple[T | None, Errand | None]] = deque()
        self._filled = threading.Condition()

    def put(self, job: T) -> T | None:
        """Add a frame; returns the oldest one waiting if it had to go for it."""
        with self._filled:
            waiting = [at for at, (waits, _) in enumerate(self._queue) if waits is not None]
            displaced = None
            if len(waiting) >= self._length:
                displaced = self._queue[waiting[0]][0]
                del self._queue[waiting[0]]
            self._queue.append((job, None))
            self._filled.notify()
            return displaced

    def put_errand(self, errand: Errand) -> None:
        """Add an errand behind the frames that already wait."""
        with self._filled:
            self._queue.append((None, errand))
            self._filled.notify()

    def take(self, timeout_s: float) -> tuple[T | None, Errand | None]:
        """The next frame or errand; (None, None) when none came within ``timeout_s``."""
        with self._filled:
            self._filled.wait_for(lambda: bool(self._queue), timeout_s)
            return self._queue.popleft() if self._queue else (None, None)

    def discard(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the waiting frames for which ``unwanted`` holds; errands stay."""
        with self._filled:
            gone = [job for job, _ in self._queue if job is not None and unwanted(job)]
            self._queue = deque(item for item in self._queue if not any(item[0] is job for job in gone))
            return gone
