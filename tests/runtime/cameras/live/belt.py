"""Parts on a belt, triggered cameras above it, a real station: each picture holds the number of the part it shows.

A part is good if it is there to be seen, so that the verdict is of the picture alone: the simulated engine looks for
it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np

from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.live import LiveLoop
from asperity.runtime.cameras.source import Shot, Source
from asperity.runtime.cameras.sources.genicam.payload import Delivery
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.engines.simulated import LOOK_SHAPE_PX, SENSOR_PREFIX
from asperity.runtime.errors import CameraLostError
from asperity.runtime.frame import ByteArray, Frame
from asperity.runtime.reasons import Reason
from asperity.runtime.simulation.camera import scene
from asperity.runtime.wire import ReceivedResult, Trigger
from asperity.testing import CAMERA, PATIENCE_MS, STATION, Line
from tests.runtime.cameras.genicam.genicam_stand_in import MM, StandIn, StandInNodes, part

SENSOR = f"{SENSOR_PREFIX}look"
TRIGGER = {"TriggerSelector": "AcquisitionStart", "TriggerMode": "Off", "TriggerSource": "Line9"}
WARM_UP = count(10_000)
LAG_S = 0.15
"""How long after its trigger a camera exposes that ``lags``, as one that runs freely does."""
ANSWER_MS = 300
"""Longest wait of the station for a picture."""


class Over(BaseException):
    """The camera is not needed any more."""


class Belt:
    """The part that lies under the camera now. Every third one is bad."""

    def __init__(self) -> None:
        self.part = 0
        self._good, self._bad = scene(), scene(part=False)
        self._shade = np.random.default_rng(0).integers(0, 200, (*LOOK_SHAPE_PX, 3), dtype=np.uint8)

    @staticmethod
    def is_good(part: int) -> bool:
        return part % 3 != 0

    def picture(self, serial: int) -> tuple[ByteArray, Any]:
        """Colour and points of the part that is there; no two pictures are alike."""
        rgb = self._shade.copy()
        rgb[0, :2] = np.frombuffer((self.part * 65536 + serial).to_bytes(6, "big"), np.uint8).reshape(2, 3)
        return rgb, (self._good if self.is_good(self.part) else self._bad).copy()


def shown(frame: Frame) -> int:
    """Number of the part in a picture."""
    return int.from_bytes(frame.rgb[0, :2].tobytes(), "big") // 65536


class Scripted:
    """What both cameras do with a trigger, by a word for each of them; then ``one``, always."""

    def __init__(self, belt: Belt, words: str, transit_ms: float = 0.0, second_ms: int = 20) -> None:
        self.second_ms = second_ms
        self.belt, self.words, self.transit_ms = belt, words.split(), transit_ms
        self.triggered = self.exposed = self.number = 0
        self.under_way: list[tuple[int, float, Any]] = []
        """After how many triggers, and when it comes, and what."""
        self.lagging: list[tuple[int, float]] = []
        """After how many triggers, and when, an exposure is made."""
        self.after_ms = 0
        """How long after its trigger an exposure is made."""
        self.over = self.holds = False
        """``holds``: what lags is not exposed yet."""
        self.make: Callable[[], Any]

    def fire(self) -> None:
        """The camera is triggered."""
        self.triggered += 1
        word = self.words.pop(0) if self.words else "one"
        if word == "deaf":
            return
        now_s = time.monotonic()
        if word == "lags":
            self.lagging.append((self.triggered, now_s + LAG_S))
            return
        if word == "stopped":
            time.sleep(0.6)
        if word == "skips":
            self.expose()
        delays = {"one": [0], "stopped": [0], "skips": [0], "lost": [], "late": [1], "two": [0, 0], "two-late": [0, 1],
                  "three-late": [0, 1, 1], "late-two": [1, 1]}[word]  # fmt: skip
        if not delays:
            self.expose()
        for at, later in enumerate(delays):
            self.after_ms = at * self.second_ms
            self.under_way.append(
                (self.triggered + later, now_s + (self.transit_ms + self.after_ms) / 1000, self.expose())
            )
        self.after_ms = 0

    def expose(self) -> Any:
        self.exposed += 1
        self.number += 1
        return self.make()

    def come(self) -> Any | None:
        """The next that has come."""
        if self.over:
            raise Over
        while self.lagging and not self.holds and self.lagging[0][1] <= time.monotonic():
            self.under_way.append((*self.lagging.pop(0), self.expose()))
        for at, (triggers, when_s, what) in enumerate(self.under_way):
            if triggers <= self.triggered and when_s <= time.monotonic():
                del self.under_way[at]
                return what
        return None


class GenicamBelt(StandIn):
    """A GenICam camera above the belt. ``latch``: it tells its time; ``stamps``, ``ids``: its buffers have them."""

    def __init__(
        self, script: Scripted, *, latch: bool = True, stamps: bool = True, ids: bool = True, first: int = 0
    ) -> None:
        more: dict[str, Any] = {"TimestampLatch": 0, "TimestampLatchValue": 0} if latch else {}
        super().__init__(StandInNodes({**TRIGGER, **more}), serial="", wraps=first > 0)
        self.seen = self.seen._replace(id="", serial="", text=SENSOR)
        self.script, self.stamps, self.ids = script, stamps, ids
        script.number = first
        script.make = self.delivery
        self.nodes.on_execute = self.executed

    def executed(self, name: str) -> None:
        if name == "TriggerSoftware":
            self.script.fire()
        elif name == "TimestampLatch":
            self.nodes.values["TimestampLatchValue"] = time.monotonic_ns() - 10**9

    def delivery(self) -> Delivery:
        rgb, xyz = self.script.belt.picture(self.script.exposed)
        frame_id = (self.script.number - 1) % 65535 + 1 if self.ids else None
        time_us = (time.monotonic_ns() - 10**9) // 1000 + self.script.after_ms * 1000 if self.stamps else 0
        return Delivery((part("RGB8", rgb), part("Coord3D_ABC32f", xyz)), frame_id, time_us, MM)

    def fetch(self, timeout_ms: int, scan3d: Any) -> Delivery | None:
        ends_s = time.monotonic() + timeout_ms / 1000
        while (come := self.script.come()) is None and time.monotonic() < ends_s:
            time.sleep(0.004)
        return come


class BeltSource:
    """A source that keeps its promises as far as a camera lets it: it discards what has come before a trigger."""

    def __init__(self, script: Scripted, *, clock: Any = "realtime", stamps: bool = True, counts: bool = True) -> None:
        self.sensor, self.script = SENSOR, script
        self.clock, self.stamps, self.counts = clock, stamps, counts
        script.make = self.exposure

    def exposure(self) -> Shot:
        rgb, xyz = self.script.belt.picture(self.script.exposed)
        ns = time.monotonic_ns() if self.clock == "device" else time.time_ns()
        frame = Frame("", "", 0, rgb, xyz, unit="mm", sensor=SENSOR, clock=self.clock,
                      t_exposure_us=ns // 1000 + self.script.after_ms * 1000 if self.stamps else 0)  # fmt: skip
        return Shot(frame, self.script.number if self.counts else None)

    def shot(self, timeout_ms: int) -> Shot | None:
        ends_s = time.monotonic() + timeout_ms / 1000
        while (come := self.script.come()) is None and time.monotonic() < ends_s:
            time.sleep(0.004)
        return come  # type: ignore[no-any-return]

    def trigger(self) -> None:
        while self.script.come() is not None:
            pass
        self.script.fire()

    def close(self) -> None:
        pass


class Watched(FrameSender):
    """Keeps which part each frame shows that was sent."""

    shows: dict[int, int]

    def send(self, frame: Frame, trigger: Trigger | None = None, *, wait_ms: int = 0) -> bool:
        sent = super().send(frame, trigger, wait_ms=wait_ms)
        self.shows[self.seq] = shown(frame)
        return sent


class Plc:
    """Moves the belt, triggers the station, and keeps the answers."""

    def __init__(self, line: Line, belt: Belt, sender: Watched) -> None:
        self.line, self.belt, self.sender = line, belt, sender
        self.lost: CameraLostError | None = None

    def inspect(self, *parts: int) -> dict[int, ReceivedResult]:
        """Trigger once for each part as it comes; the results by part."""
        with self.line.client() as client:
            for number in parts:
                self.belt.part = number
                reply = client.request("trigger", trigger_id=number, part_id=str(number), timeout_ms=ANSWER_MS)
                assert reply.ok, reply
                self.results(number)
        return {number: self.results(number) for number in parts}

    def overtake(self, script: Scripted, first: int, second: int, timeout_ms: int) -> dict[int, ReceivedResult]:
        """The camera is triggered for the first part, and exposes when the second is there and was triggered."""
        script.holds, before = True, script.triggered
        with self.line.client() as client:
            for number in (first, second):
                self.belt.part = number
                reply = client.request("trigger", trigger_id=number, part_id=str(number), timeout_ms=timeout_ms)
                assert reply.ok, reply
                self.line.wait(lambda: script.triggered > before, "the camera's first trigger")
        time.sleep(LAG_S)
        script.holds = False
        return {number: self.results(number) for number in (first, second)}

    def results(self, number: int) -> ReceivedResult:
        """The one result of a part."""
        found: list[ReceivedResult] = []

        def come() -> bool:
            found[:] = [one for one in self.line.heard.results if one.trigger_id == number]
            return bool(found)

        self.line.wait(come, f"the result of part {number}")
        (result,) = found
        return result

    def wrong(self, results: dict[int, ReceivedResult]) -> list[tuple[int, int, bool]]:
        """Part, part in its picture, accepted: where these are not the same."""
        session = self.sender.camera_session
        found = []
        for result in results.values():
            number = result.trigger_id
            shows = self.sender.shows.get(result.seq, 0) if result.camera_session == session else 0
            judged = result.accept or result.score is not None
            if (judged and shows != number) or (result.accept and not Belt.is_good(number)):
                found.append((number, shows, result.accept))
        return found


@contextmanager
def watched(line: Line, belt: Belt, script: Scripted, source: Source, **live: Any) -> Iterator[Plc]:
    """The live loop with this source, in a thread; a camera that is lost ends it."""
    settings = LiveSection(triggers="software", late_ms=500, **live)
    with Watched(CAMERA, line.ends["frames"], station=STATION, results_endpoint=line.ends["results"]) as sender:
        sender.shows = {}
        assert sender.wait_connected(PATIENCE_MS)
        loop, plc = LiveLoop(source, sender, settings), Plc(line, belt, sender)

        def work() -> None:
            try:
                loop.run()
            except Over:
                pass
            except CameraLostError as error:
                plc.lost = error

        thread = threading.Thread(target=work)
        thread.start()
        try:
            script.words, words = [], script.words
            while plc.inspect(next(WARM_UP)).popitem()[1].reason is Reason.NO_FRAME:
                pass  # it does not listen yet
            script.words = words
            yield plc
        finally:
            script.over = True
            thread.join()
