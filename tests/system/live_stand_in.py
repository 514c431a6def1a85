"""A source for ``asperity camera live`` whose camera shows the part that is there, and which can be held in any phase.

Its folder has: ``part``, the number of the part in front of the camera; ``truth``, a line for each exposure: its time,
the part that it shows; ``hold``, the name of the phase in which the next process that comes there is held until the
file is gone (``reached`` then has its name). ``hang`` in place of ``hold``: in a call that no signal interrupts.
``pulled``: the camera is gone.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from asperity.cameras import CameraError, Frame, Section, Shot, SourceKind, path_text
from asperity.runtime.cameras.exposure_order import ExposureOrder
from asperity.runtime.cameras.trigger_inbox import TriggerInbox
from asperity.runtime.client.frame_sender import FrameSender

NAME = "standin"
UNCHECKED = "STAND_IN_UNCHECKED"
"""Set for the control: triggers that waited are answered all the same."""


class Options(Section, frozen=True, forbid_unknown_fields=True):
    """A camera that a test controls."""

    folder: Annotated[str, path_text("folder of its files")] = ""


class StandIn:
    sensor = "Stand-in 7"

    def __init__(self, options: Options, triggers: str) -> None:
        self._folder = Path(options.folder)
        self._waiting: list[Shot] = []
        self._number = 0
        send = FrameSender.send

        def sending(*given: Any, **more: Any) -> bool:
            self._phase("sending")
            return send(*given, **more)

        FrameSender.send = sending  # type: ignore[method-assign]
        if os.environ.get(UNCHECKED):
            TriggerInbox.is_fresh = lambda inbox, asked: True  # type: ignore[method-assign]
            ExposureOrder.reacted_us = lambda order, frame, asked: 0.0  # type: ignore[method-assign]
            ExposureOrder.latest_ns = lambda order, frame, arrived: 0  # type: ignore[method-assign]
        self._phase("opening")

    def trigger(self) -> None:
        self._phase("triggered")
        self._waiting.clear()
        part, now_us = int((self._folder / "part").read_text()), time.time_ns() // 1000
        self._number += 1
        rgb = np.random.default_rng(now_us).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        rgb[0, 0] = part // 65536, part // 256 % 256, part % 256
        xyz = np.random.default_rng(now_us).normal(size=(24, 32, 3)).astype(np.float32)
        with (self._folder / "truth").open("a") as truth:
            truth.write(f"{now_us} {part}\n")
        # By a clock of its own, an exposure does not show that it came long after its trigger.
        clock: Literal["device", "realtime"] = "device" if os.environ.get(UNCHECKED) else "realtime"
        frame = Frame("", "", 0, rgb, xyz, unit="mm", sensor=self.sensor, t_exposure_us=now_us, clock=clock)
        self._waiting.append(Shot(frame, self._number))

    def shot(self, timeout_ms: int) -> Shot | None:
        self._phase("exposed" if self._waiting else "idle")
        if (self._folder / "pulled").exists():
            (self._folder / "pulled").unlink()
            raise CameraError(f"{self.sensor}: the cable was pulled out")
        if not self._waiting:
            time.sleep(timeout_ms / 1000)
        return self._waiting.pop(0) if self._waiting else None

    def close(self) -> None:
        self._phase("closing")

    def _phase(self, name: str) -> None:
        for how in ("hold", "hang"):
            file = self._folder / how
            try:
                wanted = file.read_text()
            except FileNotFoundError:
                continue
            if wanted == name:
                (self._folder / "reached").write_text(name)
                if how == "hang":
                    for_ever = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
                    for_ever.start()
                    assert for_ever.ident is not None
                    ctypes.CDLL(None).pthread_join(ctypes.c_ulong(for_ever.ident), None)
                while file.exists():
                    time.sleep(0.005)


KIND = SourceKind("Held by a test", Options, StandIn, triggers=("software",))
