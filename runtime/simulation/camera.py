"""The camera of ``asperity simulate``: tiny frames through the real socket, right or wrong on demand."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zmq

from asperity.runtime import wire
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.engines.simulated import LOOK_DISTANCE_MM, LOOK_SHAPE_PX, SENSOR_PREFIX
from asperity.runtime.frame import ByteArray, FloatArray, Frame
from asperity.runtime.security.curve_keys import receive

SEND_WAIT_MS = 2000
"""Longest wait for the inspector to take a frame; then the exposure counts and is not sent."""
PART_HEIGHT_MM = 10.0
_PART = (slice(11, -11), slice(12, -12))  # inside the border by which a moved camera is told


class Exposed(NamedTuple):
    """An exposure whose result is to come."""

    camera_session: str
    seq: int


class SimulatedCamera(FrameSender):
    """One run of a camera that is controlled from outside. Not for several threads."""

    def __init__(
        self, camera: str, frames_endpoint: str, *, station: str, results_endpoint: str, key: Path | None = None
    ) -> None:
        """Connect. ``results_endpoint`` is needed for triggers only. Raises as FrameSender."""
        super().__init__(camera, frames_endpoint, station=station, results_endpoint=results_endpoint, key=key)
        self._shade = np.random.default_rng(0).integers(0, 200, (*LOOK_SHAPE_PX, 3), dtype=np.uint8)
        self._scene = scene()
        self._picture = self._shade

    def expose(self, word: str = "ok", *, repeat: bool = False, cut_bytes: int = 0, **changes: Any) -> Exposed:
        """Expose and send: the simulated engine will say ``word`` of it.

        ``repeat``: the picture before once more. ``cut_bytes``: leave out so much of the last buffer. ``changes``:
        fields of the frame (``seq`` too, which then does not count). A frame that cannot be sent in SEND_WAIT_MS is
        dropped, as a camera's would be; the gap in ``seq`` tells it.
        """
        if "seq" not in changes:
            self.seq += 1
        if not repeat:
            self._picture = self._next_picture()
        now_us = time.time_ns() // 1000
        frame = Frame(
            camera=self.camera,
            camera_session=self.camera_session,
            seq=self.seq,
            rgb=self._picture,
            xyz=self._scene,
            unit="mm",
            part_id=str(self.seq),
            t_exposure_us=now_us,
            t_sent_us=now_us,
            clock="realtime",
            sensor=SENSOR_PREFIX + word,
        )
        frame = replace(frame, **changes)
        parts = wire.encode_frame(frame)
        if cut_bytes:
            parts[-1] = memoryview(parts[-1])[:-cut_bytes]
        if self.wait_connected(SEND_WAIT_MS):
            self._push.send_multipart(parts, zmq.NOBLOCK)
            self.sent += 1
        return Exposed(frame.camera_session, frame.seq)

    def await_triggers(self, timeout_s: float) -> None:
        """Wait until triggers reach this camera, before any was given.

        Subscriptions are taken in their order: once a state comes over the same connection, so will triggers.
        """
        assert self._sub is not None, "it receives triggers"
        ends_s = time.monotonic() + timeout_s
        self._sub.subscribe(wire.topic("state", self._station))
        while time.monotonic() < ends_s:
            if self._sub.poll(20) and bytes(receive(self._sub)[0]).startswith(b"state/"):
                break
        self._sub.unsubscribe(wire.topic("state", self._station))

    def skip(self, count: int = 1) -> None:
        """Expose and send nothing."""
        for _ in range(count):
            self.missed()

    def _next_picture(self) -> ByteArray:
        picture = self._shade.copy()
        picture[0, :3] = np.frombuffer(self.seq.to_bytes(9, "little"), np.uint8).reshape(3, 3)
        return picture


def scene(distance_mm: float = LOOK_DISTANCE_MM, part: bool = True) -> FloatArray:
    """Points (rows x columns x 3, mm) of a part on a plane ``distance_mm`` before the camera."""
    rows, columns = LOOK_SHAPE_PX
    points = np.empty((rows, columns, 3), dtype=np.float32)
    points[:, :, 0] = np.arange(columns) - columns / 2
    points[:, :, 1] = (np.arange(rows) - rows / 2)[:, None]
    points[:, :, 2] = distance_mm
    if part:
        points[(*_PART, 2)] -= PART_HEIGHT_MM
    return points
