"""The part's surface on the window's organised grid: neighbours are pixels, so means and normals need no search.

Nothing is averaged or differenced across a depth edge: points whose depths differ by more than a slope of
``LEVEL_CELLS`` allows at their distance on the grid lie on different levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import BoolArray, FloatArray

T = TypeVar("T", bound=np.generic)
F = TypeVar("F", bound=np.floating)

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

    points: FloatArray  # S x S x 3, mm; finite and meaningless where not valid
    valid: BoolArray  # S x S, a point of the part was measured
    filled: BoolArray  # S x S, the part with its missing points
    cell_mm: float
    """Size of a cell on the part."""
    up: FloatArray
    """Unit vector towards the sensor (3,): the background plane's normal, or the axis."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The grid's points, each averaged with its neighbours, and the surface's normals there, in the part's box.

    One plane per coordinate: what follows reads each of them from end to end.
    """

    side: int
    """Of the grid that the box is cut from."""
    top: int
    left: int
    """Where it begins: even numbers."""
    points: FloatArray  # 3 x H x W, mm; 0 where not present
    present: BoolArray  # H x W
    normals: FloatArray  # 3 x H x W, unit vectors towards the sensor; 0 where not ``sloped``
    sloped: BoolArray  # H x W

    def placed(self, values: NDArray[T]) -> NDArray[T]:
        """H x W [x C] in S x S [x C] of zeros, where they lie."""
        height, width = self.present.shape
        whole = np.zeros((self.side, self.side, *values.shape[2:]), values.dtype)
        whole[self.top : self.top + height, self.left : self.left + width] = values
        return whole

    def heights(self, up: FloatArray) -> FloatArray:
        """H x W: the points along ``up``, mm."""
        x, y, z = self.points
        heights: FloatArray = x * up[0] + y * up[1] + z * up[2]
        return heights


def blocks(side_px: int) -> tuple[int, int]:
    """Pixels of a block's side, and cells of the grid's, for a window of this side."""
    block = -(-side_px // MOST_PX)
    return block, -(-side_px // block)


def padded(planes: NDArray[T], width: int) -> NDArray[T]:
    """C x H x W between zeros for boxes of odd ``width``: C x flat, for sums along rows of W + width - 1, then in them.

    Flat, since one long loop is several times faster than one per row; what a loop mixes at the rows' ends falls into
    the zeros' columns, which the reader drops.
    """
    count, height, across = planes.shape
    half, pitch = width // 2, across + width - 1
    flat = np.zeros((count, (height + width - 1) * pitch + width - 1), planes.dtype)
    inner = flat[:, : (height + width - 1) * pitch].reshape(count, -1, pitch)
    inner[:, half : half + height, half : half + across] = planes
    return flat


def box_sums(planes: FloatArray, width: int) -> FloatArray:
    """Sums over squares of odd ``width`` around every cell of C x H x W; nothing lies beyond the edge."""
    count, height, across = planes.shape
    pitch = across + width - 1
    flat = padded(planes, width)
    for step in (pitch, 1):
        length = flat.shape[1] - (width - 1) * step
        total = flat[:, :length] + flat[:, step : step + length]
        for shift in range(2 * step, width * step, step):  # in this order, which the device has too
            total += flat[:, shift : shift + length]
        flat = total
    return flat.reshape(count, height, pitch)[:, :, :across]


def run_sums(flat: NDArray[F], count: int, step: int) -> NDArray[F]:
    """Of every ``count`` numbers ``step`` apart, by doubling: for boxes so wide that one sum after another is slow."""
    total, taken, span = flat, 0, 1
    while True:
        if count & span:
            part = flat[..., taken * step :]
            total = total[..., : part.shape[-1]] + part if taken else part
            taken += span
        if taken == count:
            return total
        flat = flat[..., : -span * step] + flat[..., span * step :]
        span *= 2


def surface_of(grid: SurfaceGrid, width: int) -> Surface:
    """Masked box means of odd ``width`` and the normals of what they give."""
    rows, columns = _box(grid.filled)
    points, present = _means(grid, rows, columns, width)
    normals, sloped = _normals(points, present, grid)
    return Surface(len(grid.valid), rows.start, columns.start, points, present, normals, sloped)


def _box(filled: BoolArray) -> tuple[slice, slice]:
    """Rows and columns of the part, from even ones on; one cell where there is none."""
    found = []
    for axis in (1, 0):
        there = np.flatnonzero(filled.any(axis=axis))
        found.append(slice(int(there[0]) // 2 * 2, int(there[-1]) + 1) if len(there) else slice(0, 1))
    return found[0], found[1]


def _means(grid: SurfaceGrid, rows: slice, columns: slice, width: int) -> tuple[FloatArray, BoolArray]:
    valid, filled = grid.valid[rows, columns], grid.filled[rows, columns]
    members = np.empty((4, *valid.shape), np.float32)
    coordinates, there = members[:3], members[3]
    there[...] = valid
    np.multiply(grid.points[rows, columns].transpose(2, 0, 1), there, out=coordinates)
    centre = coordinates.sum(axis=(1, 2), dtype=np.float64) / max(int(np.count_nonzero(valid)), 1)
    coordinates -= centre.astype(np.float32)[:, None, None]
    coordinates *= there
    sums = box_sums(members, width)
    counts = sums[3]
    present = filled & (counts >= LEAST_MEMBERS * width * width)
    means = sums[:3] / np.maximum(counts, np.float32(1.0))
    _mend_edges(valid, coordinates, width, LEVEL_CELLS * width * grid.cell_mm, means, present)
    means += centre.astype(np.float32)[:, None, None]
    means *= present
    return means, present


def _mend_edges(
    valid: BoolArray, members: FloatArray, width: int, level_mm: float, means: FloatArray, present: BoolArray
) -> None:
    """In boxes that span levels only points of the middle one's level are averaged; a missing middle has none."""
    half = width // 2
    depths = members[2]
    low = _extreme(np.where(valid, depths, np.float32(np.inf)), half, np.minimum)
    high = _extreme(np.where(valid, depths, np.float32(-np.inf)), half, np.maximum)
    rows, columns = np.nonzero(present & (high - low > level_mm))
    if not len(rows):
        return
    height, across = valid.shape
    around = np.arange(-half, half + 1)
    near_rows = rows[:, None, None] + around[:, None]
    near_columns = columns[:, None, None] + around[None, :]
    inside = (near_rows >= 0) & (near_rows < height) & (near_columns >= 0) & (near_columns < across)
    near = np.clip(near_rows, 0, height - 1), np.clip(near_columns, 0, across - 1)
    same = inside & valid[near] & (np.abs(depths[near] - depths[rows, columns][:, None, None]) <= 0.5 * level_mm)
    counts = same.sum(axis=(1, 2))
    sums = np.einsum("nij,cnij->cn", same.astype(np.float32), members[:, near[0], near[1]])
    means[:, rows, columns] = sums / np.maximum(counts, 1)
    present[rows, columns] = valid[rows, columns] & (counts > 0)


def _extreme(values: FloatArray, half: int, pick: np.ufunc) -> FloatArray:
    """Smallest or largest value in every box of 2 ``half`` + 1."""
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
    across, has_across = _tangents(points, present, limit_mm, 2)
    down, has_down = _tangents(points, present, limit_mm, 1)
    # 0 where either tangent is.
    normals = np.stack([
        across[1] * down[2] - across[2] * down[1], across[2] * down[0] - across[0] * down[2],
        across[0] * down[1] - across[1] * down[0],
    ])  # fmt: skip
    x, y, z = normals
    length = np.sqrt(x * x + y * y + z * z)
    sloped = has_across & has_down & (length > 0)
    # Every surface that is seen is seen from one side, so one sign serves the whole frame.
    towards = float(normals.sum(axis=(1, 2)) @ grid.up)
    normals *= np.float32(1.0 if towards >= 0 else -1.0) / np.maximum(length, np.float32(1e-30))
    return normals, sloped


def _tangents(points: FloatArray, present: BoolArray, limit_mm: float, axis: int) -> tuple[FloatArray, BoolArray]:
    """Differences along an axis over ``TANGENT_STEP`` cells on either side, or on one where the other has no point."""
    behind, ahead = [slice(None)] * 3, [slice(None)] * 3
    behind[axis], ahead[axis] = slice(None, -TANGENT_STEP), slice(TANGENT_STEP, None)
    one, other = tuple(behind), tuple(ahead)
    steps = points[other] - points[one]
    joined = present[other[1:]] & present[one[1:]] & (np.abs(steps[2]) <= limit_mm)
    steps *= joined
    tangents, found = np.zeros_like(points), np.zeros_like(present)
    tangents[one] = steps
    tangents[other] += steps
    found[one[1:]] = joined
    found[other[1:]] |= joined
    return tangents, found
