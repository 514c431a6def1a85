"""The inbox between I/O and engine thread: one queue per station in order of arrival, with at most a few frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Errand = Callable[[], None]
"""Something the engine thread does between two frames: taking over a recipe, a self-test."""


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """What the engine thread does next: a frame's job, or an errand."""

    station: int
    job: T | None
    errand: Errand | None


class Inbox(Generic[T]):
    """For each station at most ``length`` frames wait; errands keep their place between them and are few.

    The station that was served longest ago goes first, so before a frame whose station has nothing else waiting at most
    one of each other station is seen to, however many they send. Thread-safe. ``T`` is the frame's job.
    """

    def __init__(self, stations: int, length: int) -> None:
        self._length = length
        self._queues: list[deque[Item[T]]] = [deque() for _ in range(stations)]
        self._turns = list(range(stations))  # the one served longest ago first
        self._woken = False
        self._filled = threading.Condition()

    def put(self, station: int, job: T) -> T | None:
        """Add a frame; returns the station's oldest one waiting if it had to go for it."""
        with self._filled:
            queue = self._queues[station]
            waiting = [at for at, item in enumerate(queue) if item.job is not None]
            displaced = None
            if len(waiting) >= self._length:
                displaced = queue[waiting[0]].job
                del queue[waiting[0]]
            queue.append(Item(station, job, None))
            self._filled.notify()
            return displaced

    def put_errand(self, station: int, errand: Errand) -> None:
        """Add an errand behind the station's frames that already wait."""
        with self._filled:
            self._queues[station].append(Item(station, None, errand))
            self._filled.notify()

    def take(self, timeout_s: float) -> Item[T] | None:
        """The next frame or errand; None when none came within ``timeout_s``, or on ``wake``."""
        with self._filled:
            self._filled.wait_for(lambda: self._woken or any(self._queues), timeout_s)
            self._woken = False
            return self._next(bool, self._turns)

    def take_beside(self, stations: Collection[int], most: int) -> list[Item[T]]:
        """The frames of these stations whose turn it is, at most one each and ``most`` in all; does not wait."""
        with self._filled:
            found: list[Item[T]] = []
            left = set(stations)
            while len(found) < most:
                item = self._next(lambda queue: bool(queue) and queue[0].job is not None, left)
                if item is None:
                    break
                left.discard(item.station)
                found.append(item)
            return found

    def discard(self, station: int, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove and return the station's waiting frames for which ``unwanted`` holds; errands stay."""
        with self._filled:
            queue = self._queues[station]
            gone = [item.job for item in queue if item.job is not None and unwanted(item.job)]
            self._queues[station] = deque(item for item in queue if not any(item.job is job for job in gone))
            return gone

    def wake(self) -> None:
        """Let ``take`` return at once."""
        with self._filled:
            self._woken = True
            self._filled.notify()

    def _next(self, fits: Callable[[deque[Item[T]]], bool], stations: Collection[int]) -> Item[T] | None:
        """The first item of the station, among those that fit, that was served longest ago."""
        for station in self._turns:
            if station in stations and fits(self._queues[station]):
                self._turns.remove(station)
                self._turns.append(station)
                return self._queues[station].popleft()
        return None
