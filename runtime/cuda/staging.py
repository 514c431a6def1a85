"""A frame's bytes on their way to the device: through page-locked memory, in pieces, so that copies overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.lane import Lane
from asperity.runtime.cuda.streams import FrameDevice
from asperity.runtime.frame import Frame
from asperity.runtime.manifest import Geometry

CHUNK = 2**20
"""The device fetches one piece while the processor copies the next."""
ALIGN = 256


class Staging:
    """Page-locked memory of one frame. ``sent`` tells when it may be used again."""

    def __init__(self, device: FrameDevice, geometry: Geometry) -> None:
        pixels = geometry.height_px * geometry.width_px
        self.device = device
        self._rgb, self._cloud = ALIGN, ALIGN + -(3 * pixels // -ALIGN) * ALIGN
        self.host = device.host(self._cloud + 12 * pixels)
        self.sent = device.event()
        self.used = False

    def send(self, frame: Frame, number: int, lane: Lane) -> None:
        """Copy and enqueue the frame and its number to the lane's inputs, on the lane's main branch.

        ``sent`` was reached, or ``used`` is False.
        """
        device, data = self.device, self.host.data
        with device.on(lane.main):
            data[:4].view(np.uint32)[0] = number
            device.send(self.host, 0, 4, lane.number)
            for array, first, target in (
                (frame.rgb, self._rgb, lane.rgb_in), (stored(frame), self._cloud, lane.cloud_in),
            ):  # fmt: skip
                source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                for at in range(0, len(source), CHUNK):
                    piece = source[at : at + CHUNK]
                    data[first + at : first + at + len(piece)] = piece
                    device.send(self.host, first + at, len(piece), target, at)
            device.record(self.sent)
        self.used = True


def stored(frame: Frame) -> NDArray[Any]:
    """The frame's 3D data in a type that the kernels read: float32, or 16-bit depth."""
    if frame.xyz is not None:
        return frame.xyz.astype(np.float32, copy=False)
    assert frame.depth is not None
    return frame.depth if frame.depth.dtype == np.uint16 else frame.depth.astype(np.float32, copy=False)
