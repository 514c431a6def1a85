"""A memory bank as the kernels of the nearest-neighbour search read it, on the host and on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.launch import Buffer, Device
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.nearest import checked_rows

Path: TypeAlias = Literal["tensor", "wgmma", "product", "float32"]
"""Which kernels search it (``cuda.nearest``)."""

# As in nearest.cuh.
TILE_ROWS = 128
STAGE_CHANNELS = 32
WIDE_TILE = 256
WIDE_CHANNELS = 64

HALF_MAX = 65504.0


@dataclass(frozen=True, slots=True)
class BankArrays:
    """A memory bank as the kernels read it: N rows of D, padded to N' (256) rows of D' (64) halfs."""

    rows: FloatArray  # N x D float32, as calibrated
    halves: NDArray[np.float16]  # N' x D', half((row - centre) * scale), zero padded
    half_norms: FloatArray  # N' float32, |half row|^2 / 2; infinite in the padding
    centre: FloatArray  # D float32
    scale: float  # a power of two that brings the rows near 1
    error: float  # upper bound of |(row - centre) * scale - half row| over all rows
    length: float  # upper bound of |half row|


def bank_arrays(rows: FloatArray) -> BankArrays:
    """``rows``: N x D, within ``vision.nearest.LARGEST``. Raises EngineError as ``vision.nearest.MemoryBank`` does."""
    rows = checked_rows(rows)
    n, d = rows.shape
    centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.mean(np.square(rows - centre, dtype=np.float64)))
    scale = float(2.0 ** -np.round(np.log2(spread))) if spread > 0 else 1.0
    halves = np.zeros((up(n, WIDE_TILE), up(d, WIDE_CHANNELS)), dtype=np.float16)
    norms = np.full(len(halves), np.inf)
    error = 0.0
    for start in range(0, n, 4096):  # a large bank must not be held in float64
        part = slice(start, min(start + 4096, n))
        moved = (rows[part].astype(np.float64) - centre) * scale
        halves[part, :d] = np.clip(moved, -HALF_MAX, HALF_MAX)
        rounded = halves[part, :d].astype(np.float64)
        norms[part] = 0.5 * np.einsum("nd,nd->n", rounded, rounded)
        rest = moved - rounded
        error = max(error, float(np.sqrt(np.einsum("nd,nd->n", rest, rest).max())))
    length = float(np.sqrt(2.0 * norms[:n].max()))
    return BankArrays(rows, halves, norms.astype(np.float32), centre, scale, error * (1 + 1e-6), length * (1 + 1e-6))


def packed(halves: NDArray[np.float16]) -> NDArray[np.float16]:
    """Padded half rows in the order of ``nearest::packed_place``: 128 x 64 blocks, 8 pieces a row, swizzled."""
    rows, channels = halves.shape
    pieces = halves.reshape(rows // TILE_ROWS, TILE_ROWS // 8, 8, channels // WIDE_CHANNELS, 8, 8)
    swizzled = np.empty_like(pieces)
    for row in range(8):
        swizzled[:, :, row] = pieces[:, :, row][:, :, :, np.arange(8) ^ row]
    return np.ascontiguousarray(swizzled.transpose(0, 3, 1, 2, 4, 5))


class DeviceBank:
    """A memory bank on a device, laid out for one path. Searches of several frames may share it."""

    def __init__(self, device: Device, arrays: BankArrays, path: Path) -> None:
        """Raises EngineError where this chip has no such path."""
        if path == "wgmma" and device.capability != (9, 0):
            raise EngineError(
                f"the wgmma path is for compute capability 9.0, and {device.name} has {device.capability}"
            )
        self.path: Path = path
        self.n, self.d = arrays.rows.shape
        self.scale, self.error, self.length = arrays.scale, arrays.error, arrays.length
        self.rows, self.centre = device.upload(arrays.rows), device.upload(arrays.centre)
        self.halves: Buffer | None = None
        self.norms: Buffer | None = None
        if path != "float32":
            stride = up(self.d, STAGE_CHANNELS)
            self.halves = device.upload(packed(arrays.halves) if path == "wgmma" else arrays.halves[:, :stride])
            self.norms = device.upload(arrays.half_norms)


def up(value: int, multiple: int) -> int:
    """``value`` rounded up to a multiple."""
    return -(-value // multiple) * multiple
