"""How far each place of a posed part lies from where good parts have it, in three scales.

The part is turned and shifted onto the good frames' mean (``find_pose``), the plane in which it lies otherwise is taken
out, and what is left is divided by what the good frames leave at that place. For parts that are one like another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.vision.surface_grid import Surface, padded, run_sums

SCALES = (1, 5, 13)
"""Odd sides of the boxes that residuals are averaged in, cells; on points already averaged."""
DIMENSION = 2 * len(SCALES)
"""Highest and lowest residual of a patch in each scale."""
COARSE = 48
"""Cells of a side on which the pose is found."""
BLURS = (3.0, 1.2)
"""Standard deviations of the blur, first one then the other, coarse cells: from far to near."""
STEPS = 8
MOST_TURN = math.radians(30.0)
MOST_SHIFT_SHARE = 0.25
"""A pose beyond these, of the grid's side, is none: the window lies around the part, which is hardly turned."""
PLANE_ROUNDS = 3
LARGEST = 50.0
"""Residuals beyond this many spreads say no more than this one."""

Array = NDArray[np.float64]
F = TypeVar("F", bound=np.floating)
Box = tuple[slice, slice]
EVERYWHERE: Box = (slice(None), slice(None))


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a cell of the model lies in the frame: turned about the grid's middle, then shifted, cells."""

    turn: float = 0.0
    down: float = 0.0
    right: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class HeightModel:
    """What good frames show, in the pose of the first of them."""

    heights: FloatArray  # S x S, mm towards the sensor; 0 where not known
    known: BoolArray  # S x S
    spread: FloatArray  # scales x S x S, mm, above 0


def heights_of(surface: Surface, up: FloatArray) -> tuple[FloatArray, BoolArray]:
    """S x S, mm above the surface's own mean, 0 where it is not present; and where it is."""
    heights, present = surface.heights(up), surface.present
    level = heights[present].mean(dtype=np.float64) if present.any() else 0.0
    own = np.where(present, heights - np.float32(level), np.float32(0.0))
    return surface.placed(own), surface.placed(present)


def find_pose(heights: FloatArray, present: BoolArray, model: HeightModel) -> Pose:
    """The turn and shift by which the frame's outline and heights agree best with the model's, from coarse to fine."""
    scale, theirs = _coarse_model(model)
    ours = _coarse(heights, present, scale)
    cell = heights.shape[0] / COARSE
    starts = [Pose(0.0, *_offset(ours[0], theirs[0], 0.0))]
    turn = _axis(ours[0]) - _axis(theirs[0])
    turn = (turn + 0.5 * math.pi) % math.pi - 0.5 * math.pi
    if abs(turn) < MOST_TURN:
        starts.append(Pose(turn, *_offset(ours[0], theirs[0], turn)))
    ours_blurred, theirs_blurred = (_blurred(one, BLURS[0]) for one in (ours, theirs))
    found = _matched(ours, theirs, min(starts, key=lambda start: _left(ours_blurred, theirs_blurred, start)))
    return Pose(found.turn, found.down * cell, found.right * cell)


def residuals(
    heights: FloatArray, present: BoolArray, model: HeightModel, pose: Pose, box: Box = EVERYWHERE
) -> tuple[FloatArray, BoolArray, Array]:
    """The box's cells, mm above the model's heights in this pose, where both are known, and their places in it."""
    at = _into_model(heights.shape[0], pose, box)
    own, there = heights[box], present[box]
    known, wanted = sampled(np.stack([model.known.astype(np.float32), model.heights]), at)
    both = there & (known > 0.99) & _inside(at, heights.shape[0])
    return _without_plane(own - wanted, both), both, at


def sampled(planes: NDArray[F], at: Array) -> NDArray[F]:
    """Each plane (of P x S x S) between its cells at places 2 x H x W; beyond the edge its nearest cell."""
    side = planes.shape[-1]
    inside = np.clip(at, 0.0, side - 1.0)
    cell = np.minimum(inside.astype(np.intp), side - 2)
    inside -= cell
    down, right = inside.astype(planes.dtype)
    flat, first = planes.reshape(len(planes), -1), cell[0] * side + cell[1]
    one, beside, below, across = (
        flat.take(corner, axis=1) for corner in (first, first + 1, first + side, first + (side + 1))
    )
    one += right * (beside - one)
    below += right * (across - below)
    one += down * (below - one)
    between: NDArray[F] = one
    return between


def scaled(left: FloatArray, both: BoolArray, scale: int) -> FloatArray:
    """Box means of the residuals, where there are any."""
    if scale == 1:
        return left
    height, across = left.shape
    pitch = across + scale - 1
    flat = padded(np.stack([left * both, both.astype(np.float32)]), scale)
    sums = run_sums(run_sums(flat, scale, pitch), scale, 1).reshape(2, height, pitch)[:, :, :across]
    means: FloatArray = sums[0] / np.maximum(sums[1], np.float32(1.0)) * both
    return means


def describe_heights(heights: FloatArray, present: BoolArray, model: HeightModel, grid: int) -> FloatArray:
    """(grid^2, DIMENSION): each patch's highest and lowest residual, in spreads of the good frames.

    A patch of the part where good frames have none is as strange as can be, and so is a part in no pose of theirs.
    """
    side = heights.shape[0]
    found = np.zeros((grid, grid, DIMENSION), np.float32)
    if not present.any():
        return found.reshape(grid * grid, DIMENSION)
    pose = find_pose(heights, present, model)
    (rows, row_starts, box_rows), (columns, column_starts, box_columns) = (
        _patches(np.asarray(present.any(axis=axis)), grid) for axis in (1, 0)
    )
    box = box_rows, box_columns
    left, both, at = residuals(heights, present, model, pose, box)
    most = MOST_SHIFT_SHARE * side
    if not (abs(pose.turn) <= MOST_TURN and abs(pose.down) <= most and abs(pose.right) <= most):  # NaN is no pose
        both = np.zeros_like(both)

    def of_patches(values: NDArray[Any], pick: np.ufunc) -> NDArray[Any]:
        return np.asarray(pick.reduceat(pick.reduceat(values, row_starts, axis=0), column_starts, axis=1))

    own = found[rows, columns]
    for index, spread in enumerate(sampled(model.spread, at)):
        ratio = scaled(left, both, SCALES[index]) / spread
        np.clip(ratio, -LARGEST, LARGEST, out=ratio)
        ratio *= both
        for offset, pick in ((0, np.maximum), (1, np.minimum)):
            own[:, :, 2 * index + offset] = of_patches(ratio, pick)
    foreign = of_patches(present[box], np.logical_or) & ~of_patches(both, np.logical_or)
    own[foreign, 0::2], own[foreign, 1::2] = LARGEST, -LARGEST
    return found.reshape(grid * grid, DIMENSION)


def _patches(there: BoolArray, grid: int) -> tuple[slice, NDArray[np.int64], slice]:
    """Along an axis the patches that hold something, where each starts in their cells, and these cells."""
    side = len(there)
    ends = -(-np.arange(grid + 1) * side // grid)  # a cell's patch is cell * grid // side
    cells = np.flatnonzero(there) * grid // side
    first, last = int(cells[0]), int(cells[-1]) + 1
    return slice(first, last), ends[first:last] - ends[first], slice(int(ends[first]), int(ends[last]))


def warped_back(left: FloatArray, both: BoolArray, pose: Pose) -> tuple[FloatArray, BoolArray]:
    """Residuals on the model's grid, and where there are any."""
    at = _into_frame(left.shape[0], pose)
    share = ndimage.map_coordinates(both.astype(np.float32), at, order=1, cval=0.0)
    values = ndimage.map_coordinates(np.where(both, left, 0.0), at, order=1, cval=0.0)
    there = share > 0.5
    return np.where(there, values / np.maximum(share, 0.5), 0.0).astype(np.float32), there


def _into_model(side: int, pose: Pose, box: Box) -> Array:
    """2 x H x W: the model's cell of every cell of the frame's box."""
    middle = 0.5 * (side - 1)
    cells = np.arange(side, dtype=np.float64) - middle
    rows, columns = (cells[box[0]] - pose.down)[:, None], cells[box[1]] - pose.right
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    return np.stack([cosine * rows - sine * columns + middle, sine * rows + cosine * columns + middle])


def _inside(at: Array, side: int) -> BoolArray:
    return np.asarray(((at >= 0.0) & (at <= side - 1.0)).all(axis=0))


def _into_frame(side: int, pose: Pose) -> Array:
    """2 x S x S: the frame's cell of every cell of the model."""
    middle = 0.5 * (side - 1)
    rows, columns = np.indices((side, side), dtype=np.float64) - middle
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    return np.stack(
        [cosine * rows + sine * columns + middle + pose.down, -sine * rows + cosine * columns + middle + pose.right]
    )


def _without_plane(left: FloatArray, both: BoolArray) -> FloatArray:
    """Less the plane through most of it: a defect must not tilt the part."""
    flat = np.zeros(left.shape, np.float32)
    there = np.flatnonzero(both)
    if len(there) < 3:
        return flat
    rows, columns = np.divmod(there, left.shape[1])
    terms = np.stack([np.ones(len(there)), rows - rows.mean(), columns - columns.mean()])
    values = left.take(there).astype(np.float64)
    kept = np.ones(len(there))
    for _ in range(PLANE_ROUNDS):
        weighted = terms * kept
        plane = np.linalg.solve(weighted @ terms.T + 1e-9 * np.eye(3), weighted @ values)
        rest = values - plane @ terms
        off = np.abs(rest)
        kept = (off <= max(3.0 * 1.4826 * _median(off), 1e-9)).astype(np.float64)
        if kept.sum() < 3:
            break
    flat.flat[there] = rest
    return flat


def _median(values: Array) -> float:
    """As ``np.median`` of finite numbers, which sorts them twice to look for others."""
    middle = len(values) // 2
    halves = np.partition(values, middle)
    return float(halves[middle] if len(values) % 2 else 0.5 * (halves[:middle].max() + halves[middle]))


@lru_cache(maxsize=8)
def _coarse_model(model: HeightModel) -> tuple[float, Array]:
    """What the model's heights are divided by, and the model on the coarse grid."""
    scale = 3.0 * float(model.heights[model.known].std()) if model.known.any() else 0.0
    return scale, _coarse(model.heights, model.known, scale)


def _coarse(heights: FloatArray, present: BoolArray, scale: float) -> Array:
    """2 x COARSE x COARSE: share of the part, and its heights by ``scale``."""
    member = _members(heights.shape[0])
    pixels = np.maximum(np.outer(member.sum(axis=1), member.sum(axis=1)), 1.0)
    both = np.stack([present.astype(np.float32), np.where(present, heights, np.float32(0.0))])
    share, means = member @ both @ member.T / pixels
    return np.stack([share, means / scale if scale > 0 else np.zeros_like(means)]).astype(np.float64)


@lru_cache(maxsize=4)
def _members(side: int) -> FloatArray:
    """COARSE x side: which cells each coarse one holds."""
    return np.asarray(np.arange(side) * COARSE // side == np.arange(COARSE)[:, None], np.float32)


def _axis(share: Array) -> float:
    """Direction of the part's longer axis, from the rows' axis; 0 for a part without one."""
    total = share.sum()
    if total <= 0:
        return 0.0
    rows, columns = np.indices(share.shape)
    rows, columns = rows - (share * rows).sum() / total, columns - (share * columns).sum() / total
    rr, cc, rc = (share * rows * rows).sum(), (share * columns * columns).sum(), (share * rows * columns).sum()
    return 0.5 * math.atan2(2.0 * rc, rr - cc)


def _offset(ours: Array, theirs: Array, turn: float) -> tuple[float, float]:
    """The shift that brings both parts' middles together."""
    middle = 0.5 * (COARSE - 1)
    centres = []
    for share in (ours, theirs):
        total = max(float(share.sum()), 1e-9)
        rows, columns = np.indices(share.shape)
        centres.append(((share * rows).sum() / total - middle, (share * columns).sum() / total - middle))
    (row, column), (row0, column0) = centres
    sine, cosine = math.sin(turn), math.cos(turn)
    return row - (cosine * row0 + sine * column0), column - (-sine * row0 + cosine * column0)


def _blurred(both: Array, sigma: float) -> Array:
    blur = _blur(sigma)
    blurred: Array = blur @ both @ blur.T
    return blurred


@lru_cache(maxsize=4)
def _blur(sigma: float) -> Array:
    """COARSE x COARSE: a Gaussian blur along an axis as a product, on so few cells faster than a filter."""
    return np.asarray(ndimage.gaussian_filter1d(np.eye(COARSE), sigma, axis=0))


def _left(ours: Array, theirs: Array, pose: Pose) -> float:
    """Sum of squares between both in this pose."""
    at = _into_frame(COARSE, pose)
    moved = sampled(ours, at) * _inside(at, COARSE)
    return float(np.square(moved - theirs).sum())


def _matched(ours: Array, theirs: Array, start: Pose) -> Pose:
    """Gauss-Newton steps from a start; coarse cells."""
    pose = start
    middle = 0.5 * (COARSE - 1)
    rows, columns = np.indices((COARSE, COARSE), dtype=np.float64) - middle
    for blur in BLURS:
        near, far = _blurred(ours, blur), _blurred(theirs, blur)
        planes = np.concatenate([near, np.gradient(near, axis=1), np.gradient(near, axis=2)])
        for _ in range(STEPS):
            sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
            seen, down, right = sampled(planes, _into_frame(COARSE, pose)).reshape(3, 2, COARSE, COARSE)
            turning = down * (cosine * columns - sine * rows) - right * (cosine * rows + sine * columns)
            j = np.stack([turning, down, right]).reshape(3, -1)
            step = np.linalg.solve(j @ j.T + 1e-6 * np.eye(3), j @ (far - seen).ravel())
            pose = Pose(pose.turn + step[0], pose.down + step[1], pose.right + step[2])
            if np.abs(step * (COARSE, 1, 1)).max() < 1e-3:
                break
    return pose
