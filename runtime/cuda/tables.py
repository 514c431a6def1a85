"""Constant tables of the kernels, made on the host once per recipe. Numpy only."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.maps import _spread
from asperity.runtime.vision.points import FILLED_MIN

Ints = NDArray[np.int32]

RESIZE_BITS = 22
"""Pillow's fixed point for 8-bit images: 32 bits less 8 for the value and 2 for overshoot."""

_BICUBIC_SUPPORT = 2.0
_BICUBIC_A = -0.5


def resize_table(size_in: int, size_out: int) -> tuple[Ints, Ints]:
    """Pillow's bicubic resampling along one axis: first source index (size_out,), weights (size_out, span) x 2^22.

    As libImaging/Resample.c has it, so that the kernels' image is Pillow's bit for bit.
    """
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    support = _BICUBIC_SUPPORT * stretch
    span = math.ceil(support) * 2 + 1
    first = np.zeros(size_out, dtype=np.int32)
    weights = np.zeros((size_out, span), dtype=np.int32)
    for at in range(size_out):
        centre = (at + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), size_in)
        shares = np.array([_bicubic((source - centre + 0.5) / stretch) for source in range(low, high)])
        shares /= shares.sum()
        first[at] = low
        weights[at, : high - low] = np.trunc(shares * 2**RESIZE_BITS + np.copysign(0.5, shares)).astype(np.int32)
    return first, weights


def pool_table(cloud_px: int, grid: int, pooling: Literal["published", "valid_mean"]) -> tuple[Ints, FloatArray]:
    """A patch's window along one axis: first row (grid,), weight of each row of it (grid, span), 0 beyond its end.

    The axes of ``runtime.vision.points.patch_map``. Raises EngineError for a pooling that is not known.
    """
    windows: list[tuple[int, list[float]]] = []
    for cell in range(grid):
        if pooling == "published":
            averaged = cloud_px - 2
            start, stop = cell * averaged // grid, -((cell + 1) * averaged // -grid)
            shares = [0.0] * (stop - start + 2)
            for pixel in range(stop - start):
                for tap in range(3):
                    shares[pixel + tap] += 1.0 / (3 * (stop - start))
        elif pooling == "valid_mean":
            start, stop = -(cell * cloud_px // -grid), -((cell + 1) * cloud_px // -grid)
            shares = [1.0] * (stop - start)
        else:
            raise EngineError(f"network.pooling {pooling!r} is not known; calibrate again with this version")
        windows.append((start, shares))
    span = max(len(shares) for _, shares in windows)
    weights = np.zeros((grid, span), dtype=np.float32)
    for cell, (_, shares) in enumerate(windows):
        weights[cell, : len(shares)] = shares
    return np.array([start for start, _ in windows], dtype=np.int32), weights


def filled_min(pooling: Literal["published", "valid_mean"]) -> float:
    """Share of its pixels that a patch needs to be scored; with ``published`` any point is enough."""
    return FILLED_MIN if pooling == "valid_mean" else 0.0


def spread_table(grid: int, blur_px: float) -> FloatArray:
    """Bilinear upsampling and blur along one axis (MAP_PX, grid), as ``runtime.vision.maps.pixel_map``."""
    return _spread(grid, blur_px).astype(np.float32)


def _bicubic(x: float) -> float:
    x = abs(x)
    a = _BICUBIC_A
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0
