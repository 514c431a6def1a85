"""Features standardised and projected (whitened) on the device, before they are searched; the bank's rows are already.

The CPU counterpart is ``vision.distances.ModalityBank.standardised``; kernel ``projection.cu``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asperity.runtime.cuda.launch import Buffer, Device, Launch
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray

TILE = 32
THREADS = 256


@dataclass(frozen=True, slots=True)
class DeviceProjection:
    """A matrix on the device, C x D float32, for all lanes."""

    matrix: Buffer
    channels: int
    columns: int

    @classmethod
    def upload(cls, device: Device, matrix: FloatArray) -> DeviceProjection:
        """Onto a device. Raises EngineError for what is not a finite matrix."""
        if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
            raise EngineError(f"a projection of shape {matrix.shape} is not a finite matrix; calibrate again")
        return cls(device.upload(np.ascontiguousarray(matrix, dtype=np.float32)), *matrix.shape)


class Projected:
    """``out``: tokens x D float32, the projected features of the tokens in a mask; NaN for all others."""

    def __init__(self, device: Device, projection: DeviceProjection, tokens: int, mean: float, std: float) -> None:
        self.device, self.tokens, self._projection = device, tokens, projection
        self._mean, self._inverse_std = np.float32(mean), np.float32(1.0 / std)
        self.out = device.alloc(4 * tokens * projection.columns)

    def enqueue(self, features: Buffer, mask: Buffer, fault: Buffer) -> None:
        """``features`` tokens x C f4, ``mask`` tokens u1."""
        one = self._projection
        grid = (-(self.tokens // -TILE), -(one.columns // -TILE), 1)
        self.device.launch(
            Launch("project_features", grid, (THREADS, 1, 1)),
            features, mask, np.int32(self.tokens), self._mean, self._inverse_std, one.matrix, np.int32(one.channels),
            np.int32(one.columns), self.out, fault,
        )  # fmt: skip
