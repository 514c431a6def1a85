"""A frame's 3D data as points in millimetres: units, scale, missing points, depth with intrinsics."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import FrameRefused
from asperity.runtime.frame import MM_PER_UNIT, BoolArray, FloatArray, Frame, Intrinsics, Unit
from asperity.runtime.reasons import Reason

FARTHEST_MM = 1e5
"""A coordinate beyond 100 m is not a measurement of a part: the point counts as missing."""

PLAUSIBLE_DEPTH_MM = (20.0, 5000.0)
"""Working distances of cameras that inspect parts; a unit is derived from which reading of the median falls in here."""

PINHOLE_MODELS = frozenset({"", "none", "pinhole"})
BROWN_CONRADY_MODELS = frozenset({"brown_conrady", "brown-conrady", "plumb_bob", "opencv"})
_UNDISTORT_STEPS = 20
UNDISTORT_LEFT = 1e-4
"""Where the steps end farther from the pixel than this, in focal lengths, the distortion has no inverse there. Those of
real lenses end below 1e-6."""


def points_mm(frame: Frame, unit: Unit) -> tuple[FloatArray, BoolArray]:
    """The frame's points (H x W x 3 float32, mm, finite) and where they are valid (H x W).

    ``unit`` is used where the frame names none. Missing: any coordinate not finite or beyond 100 m, all stored values
    0, or the stored depth equal to ``invalid``. Values at missing points are finite and mean nothing.
    Raises FrameRefused REFUSED_DATA on shapes, types, scale or intrinsics that cannot be used.
    """
    check_measured(frame)
    to_mm = MM_PER_UNIT[frame.unit or unit]
    scale, offset = frame.scale * to_mm, frame.offset * to_mm
    if frame.xyz is not None:
        return _from_xyz(frame.xyz, scale, offset, frame.invalid)
    assert frame.depth is not None
    assert frame.intrinsics is not None  # ``check_measured`` was asked
    depth, valid = depth_mm(frame.depth, scale, offset, frame.invalid)
    height, width = depth.shape
    return pixel_rays(frame.intrinsics, height, width) * depth[:, :, None], valid


def points_in(frame: Frame, unit: Unit) -> FloatArray:
    """The frame's points (H x W x 3) in ``unit``, (0, 0, 0) where missing; as stored where that is what they are.

    Raises as ``points_mm``.
    """
    plain = (frame.scale, frame.offset, frame.invalid) == (1.0, 0.0, None) and frame.unit in (None, unit)
    if frame.xyz is not None and plain:
        return frame.xyz
    points, valid = points_mm(frame, unit)
    return np.where(valid[:, :, None], points / np.float32(MM_PER_UNIT[unit]), np.float32(0))


def infer_unit(median_depth: float) -> Unit:
    """The unit in which a median depth (stored value x scale) is a plausible working distance.

    Raises FrameRefused REFUSED_UNIT when none or more than one unit is plausible.
    """
    low, high = PLAUSIBLE_DEPTH_MM
    units: list[Unit] = ["m", "mm", "um"]
    plausible = [unit for unit in units if low <= median_depth * MM_PER_UNIT[unit] <= high]
    if len(plausible) != 1:
        told = " and ".join(plausible) if plausible else "no unit"
        raise FrameRefused(
            Reason.REFUSED_UNIT,
            f"the median depth is {median_depth:.4g} and {told} would make it {low:g} to {high:g} mm; "
            "state the unit with --unit m, mm or um",
        )
    return plausible[0]


def median_depth(frame: Frame) -> float:
    """Median distance of the valid points along the optical axis, in stored units x scale; nan without valid points."""
    check_arrays(frame)
    if frame.xyz is not None:
        # Units are unknown here, so nothing can be too far: only the pattern of missing points counts.
        points, valid = _from_xyz(frame.xyz, frame.scale, frame.offset, frame.invalid, farthest=math.inf)
        depths = points[:, :, 2][valid]
    else:
        assert frame.depth is not None
        depth, valid = depth_mm(frame.depth, frame.scale, frame.offset, frame.invalid, farthest=math.inf)
        depths = depth[valid]
    return float(np.median(np.abs(depths))) if depths.size else math.nan


def check_arrays(frame: Frame) -> None:
    """Raises FrameRefused REFUSED_DATA unless shapes, types, scale and offset can be used."""
    if frame.rgb.ndim != 3 or frame.rgb.shape[2] != 3 or frame.rgb.dtype != np.uint8:
        raise FrameRefused(
            Reason.REFUSED_DATA, f"rgb is {_said(frame.rgb)}; it must be height x width x 3 unsigned bytes"
        )
    height, width = frame.shape_px
    if (frame.xyz is None) == (frame.depth is None):
        raise FrameRefused(Reason.REFUSED_DATA, "a frame needs xyz or depth, exactly one of the two")
    if frame.xyz is not None and (frame.xyz.shape != (height, width, 3) or frame.xyz.dtype.kind != "f"):
        raise FrameRefused(
            Reason.REFUSED_DATA, f"xyz is {_said(frame.xyz)}; it must be {height} x {width} x 3 floats like rgb"
        )
    if frame.depth is not None and (frame.depth.shape != (height, width) or frame.depth.dtype.kind not in "fu"):
        raise FrameRefused(
            Reason.REFUSED_DATA, f"depth is {_said(frame.depth)}; it must be {height} x {width} floats or u2 like rgb"
        )
    if not (math.isfinite(frame.scale) and frame.scale > 0 and math.isfinite(frame.offset)):
        raise FrameRefused(
            Reason.REFUSED_DATA, f"scale {frame.scale} and offset {frame.offset} must be finite and the scale above 0"
        )
    if frame.unit is not None and frame.unit not in MM_PER_UNIT:
        raise FrameRefused(Reason.REFUSED_DATA, f"unit {frame.unit!r} is not known; send m, mm or um")


def check_measured(frame: Frame) -> None:
    """As ``check_arrays``, and depth must come with intrinsics."""
    check_arrays(frame)
    if frame.xyz is None and frame.intrinsics is None:
        raise FrameRefused(Reason.REFUSED_DATA, "the frame has depth but no intrinsics; send fx, fy, cx and cy")


@lru_cache(maxsize=4)
def pixel_rays(intrinsics: Intrinsics, height_px: int, width_px: int) -> FloatArray:
    """Directions with z = 1 of every pixel (H x W x 3 float32), distortion removed.

    Pinhole, and Brown-Conrady with k1, k2, p1, p2[, k3] (solved by fixed-point steps as OpenCV does).
    Raises FrameRefused REFUSED_DATA on any other model with coefficients, and on numbers that cannot be.
    """
    numbers = (intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy, *intrinsics.dist)
    if not all(math.isfinite(number) for number in numbers) or intrinsics.fx <= 0 or intrinsics.fy <= 0:
        raise FrameRefused(Reason.REFUSED_DATA, f"intrinsics {intrinsics} must be finite with fx and fy above 0")
    x = np.broadcast_to((np.arange(width_px) - intrinsics.cx) / intrinsics.fx, (height_px, width_px))
    y = np.broadcast_to(((np.arange(height_px) - intrinsics.cy) / intrinsics.fy)[:, None], (height_px, width_px))
    if any(coefficient != 0 for coefficient in intrinsics.dist):
        if intrinsics.model.lower() not in BROWN_CONRADY_MODELS or len(intrinsics.dist) not in (4, 5):
            raise FrameRefused(
                Reason.REFUSED_DATA,
                f"distortion model {intrinsics.model!r} with {len(intrinsics.dist)} coefficients is not supported; "
                "send brown_conrady with k1, k2, p1, p2[, k3], or undistorted frames",
            )
        x, y = _undistorted(x, y, intrinsics.dist)
    elif intrinsics.model.lower() not in PINHOLE_MODELS | BROWN_CONRADY_MODELS:
        raise FrameRefused(
            Reason.REFUSED_DATA, f"camera model {intrinsics.model!r} is not supported; send pinhole intrinsics"
        )
    rays = np.stack([x, y, np.ones_like(x)], axis=2).astype(np.float32)
    rays.setflags(write=False)
    return rays


def _from_xyz(
    xyz: FloatArray, scale: float, offset: float, invalid: float | None, farthest: float = FARTHEST_MM
) -> tuple[FloatArray, BoolArray]:
    # Sum of magnitudes: 0 only where all are 0, not finite where any is not, and bounded where all are.
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(xyz[:, :, 0]) + np.abs(xyz[:, :, 1]) + np.abs(xyz[:, :, 2])
    usable = size < farthest / scale
    valid = (size > 0) & usable
    if invalid is not None:
        valid &= xyz[:, :, 2] != invalid
    points = xyz if usable.all() else np.where(usable[:, :, None], xyz, 0)
    points = points.astype(np.float32, copy=False)
    if scale != 1.0:
        points = points * np.float32(scale)
    if offset != 0.0:
        points = points + np.float32(offset)
    return points, valid


def depth_mm(
    depth: NDArray[Any], scale: float, offset: float, invalid: float | None, farthest: float = FARTHEST_MM
) -> tuple[FloatArray, BoolArray]:
    """Stored depth as lengths (mm) and where they are valid; ``scale`` and ``offset`` in mm."""
    stored = depth.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = stored * np.float32(scale) + np.float32(offset)
    usable = lengths < farthest
    valid = (stored != 0) & (lengths > 0) & usable
    if invalid is not None:
        valid &= depth != invalid
    return np.where(usable & (lengths > -farthest), lengths, np.float32(0.0)), valid


def _undistorted(
    x: NDArray[np.float64], y: NDArray[np.float64], dist: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    straight_x, straight_y = x, y
    with np.errstate(all="ignore"):
        for _ in range(_UNDISTORT_STEPS):
            radial, dx, dy = _distortion(straight_x, straight_y, dist)
            straight_x, straight_y = (x - dx) / radial, (y - dy) / radial
        radial, dx, dy = _distortion(straight_x, straight_y, dist)
        left = max(np.abs(straight_x * radial + dx - x).max(), np.abs(straight_y * radial + dy - y).max())
    if not left <= UNDISTORT_LEFT:  # nan too
        raise FrameRefused(
            Reason.REFUSED_DATA, f"distortion {dist} cannot be corrected on this image; check the intrinsics"
        )
    return straight_x, straight_y


def _distortion(
    x: NDArray[np.float64], y: NDArray[np.float64], dist: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Brown-Conrady: the radial factor, and what is added to x and y."""
    k1, k2, p1, p2, k3 = (*dist, 0.0)[:5]
    r2 = x**2 + y**2
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return radial, 2 * p1 * x * y + p2 * (r2 + 2 * x**2), p1 * (r2 + 2 * y**2) + 2 * p2 * x * y


def _said(array: NDArray[Any]) -> str:
    return f"{' x '.join(str(side) for side in array.shape)} {array.dtype}"
