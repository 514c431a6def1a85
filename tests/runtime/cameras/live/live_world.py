"""A camera, a station and time for the live loop, all scripted: nothing waits, and every run is the same.

Each exposure has a serial number of its own in its pixels, which the loop does not look at: what was sent shows by it
which exposure it is, whatever the camera said of it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import numpy as np

from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.live import LiveLoop
from asperity.runtime.cameras.source import WAITING_MAX, Shot
from asperity.runtime.clock import MS, Now
from asperity.runtime.errors import CameraLostError
from asperity.runtime.frame import Frame
from asperity.runtime.wire import Trigger

SENSOR = "Stand-in 1"
SESSION = "0f8fad5b-d9cb-469f-a165-70867728950e"
WALL_US = 1_700_000_000_000_000


class Over(BaseException):
    """The script has ended, as SIGTERM would end it."""


class World:
    """Time, and what happens when."""

    def __init__(self) -> None:
        self.ns = 5_000 * MS
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._frozen_ns = 0
        self.wall_us = WALL_US
        """Of the beginning; another value is a clock that was set."""

    def clock(self) -> Now:
        return Now(self.ns, self.wall_us + self.ns // 1000)

    def at(self, ms: int, what: Callable[[], None]) -> None:
        """``what`` happens so long from now."""
        heapq.heappush(self._agenda, (self.ns + ms * MS, next(self._order), what))

    def over(self) -> None:
        raise Over

    def freeze(self, ms: int) -> None:
        """The process stands still for so long (SIGSTOP); the world goes on."""
        self._frozen_ns = max(self._frozen_ns, self.ns + ms * MS)

    def thaw(self) -> None:
        """Let the time pass for which the process stands still."""
        self.wait(lambda: False, 0)

    def wait(self, ready: Callable[[], bool], timeout_ms: int) -> None:
        """Until something is there or the time is over, and not while the process stands still."""
        ends_ns = self.ns + timeout_ms * MS
        while self.ns < self._frozen_ns or (not ready() and self.ns < ends_ns):
            until_ns = self._frozen_ns if self.ns < self._frozen_ns else ends_ns
            if self._agenda and self._agenda[0][0] <= until_ns:
                when, _, what = heapq.heappop(self._agenda)
                self.ns = max(self.ns, when)
                what()
            else:
                self.ns = until_ns


@dataclass
class ScriptedCamera:
    """Exposes when it is triggered, or when the script says so."""

    world: World
    sensor: str = SENSOR
    clock: Any = "realtime"
    counts: bool = True
    stamps: bool = True
    transit_ms: int = 0
    lag_ms: int = 0
    """How long after a trigger it exposes."""
    serial: int = 0
    """Of the last exposure: one for each, whether it comes out or not."""
    exposed: dict[int, int] = field(default_factory=dict)
    """Serial -> when (monotonic, ns)."""
    numbers: dict[int, int] = field(default_factory=dict)
    """Serial -> the camera's own count."""
    waiting: deque[Shot] = field(default_factory=deque)
    on_trigger: list[Callable[[], None]] = field(default_factory=list)
    """What happens at the next triggers, before the camera exposes."""
    deaf: int = 0
    """So many triggers from now on are not heard."""
    lose: int = 0
    """So many exposures from now on are counted, and do not come out."""
    number_before: int = 0
    """Serial after which the camera's own count began."""
    keeps: bool = False
    """A trigger does not discard what is still under way, as it should, and what nobody asked for answers it."""
    only: int = 0
    """Serial of the exposure that answers the last trigger."""
    triggered: int = 0
    closed: bool = False

    def frame(self) -> Frame:
        now, device_us = self.world.clock(), self.world.ns // 1000 - 4_000_000
        rgb = np.full((4, 5, 3), self.serial % 251, np.uint8)
        rgb[0, 0] = self.serial % 256, self.serial // 256 % 256, 0
        return Frame(
            "", "", 0, rgb, np.ones((4, 5, 3), np.float32), unit="mm", sensor=self.sensor, clock=self.clock,
            t_exposure_us=0 if not self.stamps else now.wall_us if self.clock == "realtime" else device_us,
        )  # fmt: skip

    def expose(self, **changed: Any) -> Shot | None:
        """One exposure, with some of its frame ``changed``; None: it is lost."""
        self.serial += 1
        self.exposed[self.serial] = self.world.ns
        number = self.numbers[self.serial] = self.serial - self.number_before
        shot = Shot(replace(self.frame(), **changed), number if self.counts else None)
        if self.lose:
            self.lose -= 1
            return None
        if self.only and self.serial != self.only and not self.keeps:
            return shot
        if self.transit_ms:
            before = self.triggered

            def come() -> None:
                if self.keeps or self.triggered == before:
                    self.arrive(shot)

            self.world.at(self.transit_ms, come)
        else:
            self.arrive(shot)
        return shot

    def arrive(self, shot: Shot) -> None:
        self.waiting.append(shot)
        while len(self.waiting) > WAITING_MAX:
            self.waiting.popleft()

    def shot(self, timeout_ms: int) -> Shot | None:
        assert timeout_ms >= 1
        self.world.wait(lambda: bool(self.waiting), timeout_ms)
        return self.waiting.popleft() if self.waiting else None

    def trigger(self) -> None:
        for what in self.on_trigger:
            what()
        self.on_trigger.clear()
        self.world.thaw()
        self.world.ns += MS
        self.waiting.clear()
        self.triggered += 1
        self.only = self.serial + 1
        if self.deaf:
            self.deaf -= 1
        elif self.lag_ms:
            triggered = self.triggered
            self.world.at(self.lag_ms, lambda: self.expose() if self.triggered == triggered else None)
        else:
            self.expose()

    def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedSender:
    """The station's side of the wire, which keeps what it is sent."""

    world: World
    connected: bool = True
    clock_us: int = 7_000_000
    """How much its wall clock is ahead of ours."""
    seq: int = 0
    sent: list[tuple[int, int, int, Frame]] = field(default_factory=list)
    """seq, serial of the exposure, trigger id, frame."""
    triggers: deque[Trigger] = field(default_factory=deque)
    sent_ns: dict[int, int] = field(default_factory=dict)
    """Serial -> when it was sent."""
    made_ns: dict[int, int] = field(default_factory=dict)
    """Trigger id -> when the station made it."""
    delayed: set[int] = field(default_factory=set)
    """Triggers that the network holds back."""

    def make(self, trigger_id: int, *, timeout_ms: int = 60_000, delay_ms: int = 0, stamped: bool = True,
             part_id: str = "") -> None:  # fmt: skip
        """The station makes a trigger, which comes here after ``delay_ms``."""
        t_us = self.world.clock().wall_us + self.clock_us if stamped else 0
        trigger = Trigger(
            station="st1", session=SESSION, trigger_id=trigger_id, promise=trigger_id,
            part_id=part_id or str(trigger_id), timeout_ms=timeout_ms, t_us=t_us,
        )  # fmt: skip
        self.made_ns[trigger_id] = self.world.ns
        if delay_ms:
            self.delayed.add(trigger_id)
            self.world.at(delay_ms, lambda: self.triggers.append(trigger))
        else:
            self.triggers.append(trigger)

    def wait_trigger(self, timeout_ms: int) -> Trigger | None:
        self.world.wait(lambda: bool(self.triggers), timeout_ms)
        return self.triggers.popleft() if self.triggers else None

    def wait_connected(self, timeout_ms: int) -> bool:
        self.world.wait(lambda: self.connected, timeout_ms)
        return self.connected

    def send(self, frame: Frame, trigger: Trigger | None = None, *, wait_ms: int = 0) -> bool:
        self.seq += 1
        if self.connected:
            serial = int(frame.rgb[0, 0, 0]) + 256 * int(frame.rgb[0, 0, 1])
            self.sent_ns[serial] = self.world.ns
            self.sent.append((self.seq, serial, trigger.trigger_id if trigger else frame.trigger_id, frame))
        return self.connected

    def missed(self) -> None:
        self.seq += 1

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """seq and serial of what was sent."""
        return [each[:2] for each in self.sent]

    @property
    def answers(self) -> list[tuple[int, int]]:
        """Trigger id and serial of what was sent."""
        return [(each[2], each[1]) for each in self.sent]


@dataclass
class Rig:
    """A loop with a scripted camera and station."""

    world: World
    camera: ScriptedCamera
    sender: ScriptedSender
    loop: LiveLoop

    def play(self, ms: int) -> None:
        """Run the loop for so long."""
        self.world.at(ms, self.world.over)
        try:
            self.loop.run()
        except Over:
            return

    def lost(self, ms: int = 60_000) -> CameraLostError:
        """Run the loop, which must end by this error."""
        self.world.at(ms, self.world.over)
        try:
            self.loop.run()
        except CameraLostError as error:
            return error
        except Over:
            pass
        raise AssertionError(f"the camera was not lost; sent: {self.sender.pairs}")


def rig(triggers: Any = "free_run", silence_ms: int = 5000, lost_max: int = 64, **camera: Any) -> Rig:
    """Everything, in its mode."""
    world = World()
    made, sender = ScriptedCamera(world, **camera), ScriptedSender(world)
    settings = LiveSection(triggers=triggers, silence_ms=silence_ms, lost_max=lost_max)
    return Rig(world, made, sender, LiveLoop(made, sender, settings, clock=world.clock))


def exposing(made: Rig, *times_ms: int) -> None:
    """The camera exposes so long from now."""
    for ms in times_ms:
        made.world.at(ms, made.camera.expose)
