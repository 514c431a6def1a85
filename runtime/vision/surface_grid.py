"""The part's surface on the window's organised grid: neighbours are pixels, so means and normals need no search.

Nothing is averaged or differenced across a depth edge: points whose depths differ by more than a slope of
``LEVEL_CELLS`` allows at their distance on the grid lie on different levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import BoolArray, FloatArray

LEVEL_CELLS = 2.0
"""Points this many cell sizes deeper per cell of distance are on different levels: a slope of 63 degrees."""
MOST_PX = 512
"""Largest side of the grid: a larger window's points are averaged in square blocks first."""
LEAST_MEMBERS = 0.2
"""A mean needs points on at least this share of its box."""
TANGENT_STEP = 2
"""Cells on either side that a tangent is taken from."""


@dataclass(frozen=True, slots=True)
class SurfaceGrid:
    """The window's part at the camera's resolution."""

    points: FloatArray  # S x S x 3, mm; (0, 0, 0) where not valid
    valid: BoolArray  # S x S, a point of the part was measured
    filled: BoolArray  # S x S, the part with its missing points
    cell_mm: float
    """Size of a cell on the part."""
    up: FloatArray
    """Unit vector towards the sensor (3,): the background plane's normal, or the axis."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The grid's points, each averaged with its neighbours, and the surface's normals there."""

    points: FloatArray  # S x S x 3, mm
    present: BoolArray  # S x S
    normals: FloatArray  # S x S x 3, unit vectors towards the sensor; 0 where not ``sloped``
    sloped: BoolArray  # S x S


def blocks(side_px: int) -> tuple[int, int]:
    """Pixels of a block's side, and cells of the grid's, for a window of this side."""
    block = -(-side_px // MOST_PX)
    return block, -(-side_px // block)


def box_sums(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Sums over squares of odd ``width`` around every cell of S x S [x C]; nothing lies beyond the edge."""
    half = width // 2
    for axis in (0, 1):
        padded = np.zeros([side + 2 * half * (at == axis) for at, side in enumerate(values.shape)], values.dtype)
        inner = [slice(None)] * values.ndim
        inner[axis] = slice(half, half + values.shape[axis])
        padded[tuple(inner)] = values
        total = np.zeros_like(values)
        for shift in range(width):
            inner[axis] = slice(shift, shift + values.shape[axis])
            total += padded[tuple(inner)]
        values = total
    return values


def surface_of(grid: SurfaceGrid, width: int) -> Surface:
    """Masked box means of odd ``width`` and the normals of what they give."""
    points, present = _means(grid, width)
    normals, sloped = _normals(points, present, grid)
    return Surface(points, present, normals, sloped)


def _means(grid: SurfaceGrid, width: int) -> tuple[FloatArray, BoolArray]:
    valid = grid.valid
    centre = grid.points[valid].mean(axis=0, dtype=np.float64).astype(np.float32) if valid.any() else np.zeros(3)
    members = np.where(valid[:, :, None], grid.points - centre, np.float32(0.0)).astype(np.float32)
    sums = box_sums(np.concatenate([members, valid[:, :, None].astype(np.float32)], axis=2), width)
    counts = sums[:, :, 3]
    present = grid.filled & (counts >= LEAST_MEMBERS * width * width)
    means = sums[:, :, :3] / np.maximum(counts, np.float32(1.0))[:, :, None]
    _mend_edges(grid, members, width, means, present)
    return np.where(present[:, :, None], means + centre, np.float32(0.0)).astype(np.float32), present


def _mend_edges(grid: SurfaceGrid, members: FloatArray, width: int, means: FloatArray, present: BoolArray) -> None:
    """In boxes that span levels only points of the middle one's level are averaged; a missing middle has none."""
    level_mm = LEVEL_CELLS * width * grid.cell_mm
    half, side = width // 2, grid.valid.shape[0]
    depths = members[:, :, 2]
    low = _extreme(np.where(grid.valid, depths, np.float32(np.inf)), width, np.minimum)
    high = _extreme(np.where(grid.valid, depths, np.float32(-np.inf)), width, np.maximum)
    rows, columns = np.nonzero(present & (high - low > level_mm))
    if not len(rows):
        return
    around = np.arange(-half, half + 1)
    near_rows = rows[:, None, None] + around[:, None]
    near_columns = columns[:, None, None] + around[None, :]
    inside = (near_rows >= 0) & (near_rows < side) & (near_columns >= 0) & (near_columns < side)
    near = np.clip(near_rows, 0, side - 1), np.clip(near_columns, 0, side - 1)
    same = inside & grid.valid[near] & (np.abs(depths[near] - depths[rows, columns][:, None, None]) <= 0.5 * level_mm)
    counts = same.sum(axis=(1, 2))
    sums = np.einsum("nij,nijc->nc", same.astype(np.float32), members[near])
    means[rows, columns] = sums / np.maximum(counts, 1)[:, None]
    present[rows, columns] = grid.valid[rows, columns] & (counts > 0)


def _extreme(values: FloatArray, width: int, pick: np.ufunc) -> FloatArray:
    """Largest or smallest value in every box."""
    half = width // 2
    for axis in (0, 1):
        result = values.copy()
        for shift in range(1, half + 1):
            here = [slice(None), slice(None)]
            there = [slice(None), slice(None)]
            here[axis], there[axis] = slice(shift, None), slice(None, -shift)
            pick(result[tuple(here)], values[tuple(there)], out=result[tuple(here)])
            pick(result[tuple(there)], values[tuple(here)], out=result[tuple(there)])
        values = result
    return values


def _normals(points: FloatArray, present: BoolArray, grid: SurfaceGrid) -> tuple[FloatArray, BoolArray]:
    limit_mm = LEVEL_CELLS * TANGENT_STEP * grid.cell_mm
    across, has_across = _tangents(points, present, limit_mm)
    turned = points.transpose(1, 0, 2), present.T
    down, has_down = _tangents(*turned, limit_mm)
    along, has_along = down.transpose(1, 0, 2), has_down.T
    x = across[:, :, 1] * along[:, :, 2] - across[:, :, 2] * along[:, :, 1]
    y = across[:, :, 2] * along[:, :, 0] - across[:, :, 0] * along[:, :, 2]
    z = across[:, :, 0] * along[:, :, 1] - across[:, :, 1] * along[:, :, 0]
    length = np.sqrt(x * x + y * y + z * z)
    sloped = has_across & has_along & (length > 0)
    # Every surface that is seen is seen from one side, so one sign serves the whole frame.
    towards = float((x * grid.up[0] + y * grid.up[1] + z * grid.up[2])[sloped].sum())
    scale = np.where(sloped, np.float32(1.0 if towards >= 0 else -1.0) / np.maximum(length, np.float32(1e-30)), 0.0)
    return np.stack([x * scale, y * scale, z * scale], axis=2).astype(np.float32), sloped


def _tangents(points: FloatArray, present: BoolArray, limit_mm: float) -> tuple[FloatArray, BoolArray]:
    """Differences along rows over ``TANGENT_STEP`` cells on either side, on one side where the other has no point."""
    step = TANGENT_STEP
    depths = points[:, :, 2]
    joined = np.zeros_like(present)
    joined[:, step:] = (
        present[:, step:] & present[:, :-step] & (np.abs(depths[:, step:] - depths[:, :-step]) <= limit_mm)
    )
    ahead = np.zeros_like(present)
    ahead[:, :-step] = joined[:, step:]
    tangents = np.zeros_like(points)
    steps = np.where(joined[:, step:, None], points[:, step:] - points[:, :-step], np.float32(0.0))
    tangents[:, :-step] += steps
    tangents[:, step:] += steps
    return tangents, joined | ahead
