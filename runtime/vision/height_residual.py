"""How far each place of a posed part lies from where good parts have it, in three scales.

The part is turned and shifted onto the good frames' mean (``find_pose``), the plane in which it lies otherwise is taken
out, and what is left is divided by what the good frames leave at that place. For parts that are one like another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.vision.surface_grid import Surface, box_sums

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


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a cell of the model lies in the frame: turned about the grid's middle, then shifted, cells."""

    turn: float = 0.0
    down: float = 0.0
    right: float = 0.0


@dataclass(frozen=True, slots=True)
class HeightModel:
    """What good frames show, in the pose of the first of them."""

    heights: FloatArray  # S x S, mm towards the sensor; 0 where not known
    known: BoolArray  # S x S
    spread: FloatArray  # scales x S x S, mm, above 0


def heights_of(surface: Surface, up: FloatArray) -> FloatArray:
    """S x S, mm above the surface's own mean; 0 where it is not present."""
    heights = surface.points @ up
    level = heights[surface.present].mean(dtype=np.float64) if surface.present.any() else 0.0
    return np.where(surface.present, heights - np.float32(level), np.float32(0.0)).astype(np.float32)


def find_pose(heights: FloatArray, present: BoolArray, model: HeightModel) -> Pose:
    """The turn and shift by which the frame's outline and heights agree best with the model's, from coarse to fine."""
    scale = 3.0 * float(model.heights[model.known].std()) if model.known.any() else 0.0
    theirs, ours = (_coarse(h, p, scale) for h, p in ((model.heights, model.known), (heights, present)))
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
    heights: FloatArray, present: BoolArray, model: HeightModel, pose: Pose
) -> tuple[FloatArray, BoolArray, Array]:
    """S x S mm above the model's heights in this pose, where both are known, and each cell's place in the model."""
    side = heights.shape[0]
    at = _into_model(side, pose)
    known = ndimage.map_coordinates(model.known.astype(np.float32), at, order=1, cval=0.0) > 0.99
    both = present & known
    left = heights - ndimage.map_coordinates(model.heights, at, order=1, cval=0.0)
    return _without_plane(left, both), both, at


def scaled(left: FloatArray, both: BoolArray, scale: int) -> FloatArray:
    """Box means of the residuals, where there are any."""
    if scale == 1:
        return left
    sums = box_sums(np.stack([np.where(both, left, 0.0), both.astype(np.float64)], axis=2), scale)
    return np.where(both, sums[:, :, 0] / np.maximum(sums[:, :, 1], 1.0), 0.0).astype(np.float32)


def describe_heights(heights: FloatArray, present: BoolArray, model: HeightModel, grid: int) -> FloatArray:
    """(grid^2, DIMENSION): each patch's highest and lowest residual, in spreads of the good frames.

    A patch of the part where good frames have none is as strange as can be, and so is a part in no pose of theirs.
    """
    side = heights.shape[0]
    pose = find_pose(heights, present, model)
    left, both, at = residuals(heights, present, model, pose)
    most = MOST_SHIFT_SHARE * side
    if not (abs(pose.turn) <= MOST_TURN and abs(pose.down) <= most and abs(pose.right) <= most):  # NaN is no pose
        both = np.zeros_like(both)
    cells = np.arange(side) * grid // side
    starts = np.searchsorted(cells, np.arange(grid))
    found = np.zeros((grid * grid, DIMENSION), np.float32)

    def of_patches(values: NDArray[Any], pick: np.ufunc) -> NDArray[Any]:
        return np.asarray(pick.reduceat(pick.reduceat(values, starts, axis=0), starts, axis=1).ravel())

    for index, scale in enumerate(SCALES):
        spread = ndimage.map_coordinates(model.spread[index], at, order=1, mode="nearest")
        ratio = np.where(both, np.clip(scaled(left, both, scale) / spread, -LARGEST, LARGEST), 0.0)
        for offset, pick in ((0, np.maximum), (1, np.minimum)):
            found[:, 2 * index + offset] = of_patches(ratio, pick)
    foreign = of_patches(present, np.logical_or) & ~of_patches(both, np.logical_or)
    found[foreign, 0::2], found[foreign, 1::2] = LARGEST, -LARGEST
    return found


def warped_back(left: FloatArray, both: BoolArray, pose: Pose) -> tuple[FloatArray, BoolArray]:
    """Residuals on the model's grid, and where there are any."""
    at = _into_frame(left.shape[0], pose)
    share = ndimage.map_coordinates(both.astype(np.float32), at, order=1, cval=0.0)
    values = ndimage.map_coordinates(np.where(both, left, 0.0), at, order=1, cval=0.0)
    there = share > 0.5
    return np.where(there, values / np.maximum(share, 0.5), 0.0).astype(np.float32), there


def _into_model(side: int, pose: Pose) -> Array:
    """2 x S x S: the model's cell of every cell of the frame."""
    middle = 0.5 * (side - 1)
    rows, columns = np.indices((side, side), dtype=np.float64)
    rows, columns = rows - middle - pose.down, columns - middle - pose.right
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    return np.stack([cosine * rows - sine * columns + middle, sine * rows + cosine * columns + middle])


def _into_frame(side: int, pose: Pose) -> Array:
    """2 x S x S: the frame's cell of every cell of the model."""
    middle = 0.5 * (side - 1)
    rows, columns = np.indices((side, side), dtype=np.float64) - middle
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    return np.stack(
        [cosine * rows + sine * columns + middle + pose.down, -sine * rows + cosine * columns + middle + pose.right]
    )


def _without_plane(left: Array, both: BoolArray) -> FloatArray:
    """Less the plane through most of it: a defect must not tilt the part."""
    rows, columns = np.nonzero(both)
    if len(rows) < 3:
        return np.zeros(left.shape, np.float32)
    terms = np.stack([np.ones(len(rows)), rows - rows.mean(), columns - columns.mean()], axis=1)
    values = left[both].astype(np.float64)
    kept = np.ones(len(rows), bool)
    plane = np.zeros(3)
    for _ in range(PLANE_ROUNDS):
        normal = terms[kept].T @ terms[kept] + 1e-9 * np.eye(3)
        plane = np.linalg.solve(normal, terms[kept].T @ values[kept])
        off = np.abs(values - terms @ plane)
        kept = off <= max(3.0 * 1.4826 * float(np.median(off)), 1e-9)
        if int(kept.sum()) < 3:
            break
    flat = np.zeros(left.shape, np.float32)
    flat[both] = values - terms @ plane
    return flat


def _coarse(heights: FloatArray, present: BoolArray, scale: float) -> Array:
    """2 x COARSE x COARSE: share of the part, and its heights by ``scale``."""
    side = heights.shape[0]
    cells = np.arange(side) * COARSE // side
    member = (cells == np.arange(COARSE)[:, None]).astype(np.float32)
    counts = member @ present.astype(np.float32) @ member.T
    pixels = np.outer(member.sum(axis=1), member.sum(axis=1))
    sums = member @ np.where(present, heights, np.float32(0.0)) @ member.T
    share = counts / np.maximum(pixels, 1.0)
    means = sums / np.maximum(pixels, 1.0)
    return np.stack([share, means / scale if scale > 0 else np.zeros_like(means)]).astype(np.float64)


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
    return np.stack([ndimage.gaussian_filter(one, sigma) for one in both])


def _left(ours: Array, theirs: Array, pose: Pose) -> float:
    """Sum of squares between both in this pose."""
    at = _into_frame(COARSE, pose)
    moved = np.stack([ndimage.map_coordinates(one, at, order=1) for one in ours])
    return float(np.square(moved - theirs).sum())


def _matched(ours: Array, theirs: Array, start: Pose) -> Pose:
    """Gauss-Newton steps from a start; coarse cells."""
    pose = start
    middle = 0.5 * (COARSE - 1)
    rows, columns = np.indices((COARSE, COARSE), dtype=np.float64) - middle
    for blur in BLURS:
        near, far = _blurred(ours, blur), _blurred(theirs, blur)
        slopes = [np.gradient(one) for one in near]
        for _ in range(STEPS):
            at = _into_frame(COARSE, pose)
            sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
            by_turn = np.stack([-sine * rows + cosine * columns, -cosine * rows - sine * columns])
            jacobian: list[Any] = []
            differences: list[Any] = []
            for one, wanted, slope in zip(near, far, slopes, strict=True):
                seen, down, right = (ndimage.map_coordinates(v, at, order=1, mode="nearest") for v in (one, *slope))
                jacobian.append(np.stack([down * by_turn[0] + right * by_turn[1], down, right], axis=-1).reshape(-1, 3))
                differences.append((wanted - seen).ravel())
            j, d = np.concatenate(jacobian), np.concatenate(differences)
            step = np.linalg.solve(j.T @ j + 1e-6 * np.eye(3), j.T @ d)
            pose = Pose(pose.turn + step[0], pose.down + step[1], pose.right + step[2])
            if np.abs(step * (COARSE, 1, 1)).max() < 1e-3:
                break
    return pose
