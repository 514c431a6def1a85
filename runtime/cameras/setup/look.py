"""What one frame shows, without a bundle: valid points, background plane, part, and how well it is exposed.

Judges no part: it says whether a camera is set up so that parts can be judged (`asperity camera check`), and whether a
recorded frame is worth keeping (`asperity camera live --write`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, Silhouette, Unit
from asperity.runtime.manifest import Plane
from asperity.runtime.vision.border_plane import (
    CUT_SIGMAS,
    CUT_SPACINGS,
    LEAST_ON_PLANE,
    LEAST_REGION_SHARE,
    MOST_NOISE_SHARE,
    SEED,
    PlaneFit,
    fit_border_plane,
    is_height_map,
    neighbour_spacing,
)
from asperity.runtime.vision.preprocess import FEWEST_BORDER_POINTS, plane_heights
from asperity.runtime.vision.ransac_dbscan import border_strips
from asperity.runtime.vision.regions import box, largest_part, measure_silhouette, outline
from asperity.runtime.vision.units import infer_unit, median_depth, points_mm

BORDER_POINTS = 5000
AGREES = 0.1
"""A border agrees with a plane while at most this much less of it lies there."""
GAP_SHARE = 0.02
"""Pixels this share of the longer side apart belong to one part, as calibration has it."""
EMPTY_BORDER = "the border of the picture holds no points"
WHITE, DARK = 255, 16
"""A colour pixel is saturated with a channel at white, dark with none above the second."""


@dataclass(frozen=True, slots=True)
class Part:
    """The largest region above the background plane, or of all points where the background is empty."""

    filled: BoolArray  # H x W, with its missing points
    silhouette: Silhouette
    cut: bool
    """It touches the picture's edge."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a frame shows."""

    points: FloatArray  # H x W x 3, mm
    valid: BoolArray  # H x W
    plane: PlaneFit | None
    no_plane: str
    """Why there is none."""
    part: Part | None
    spacing_mm: float
    """Median distance of neighbouring points; nan without any."""

    @property
    def valid_share(self) -> float:
        """Valid points per pixel."""
        return float(self.valid.mean())

    @property
    def empty_border(self) -> bool:
        """There is no plane because there is nothing behind the part."""
        return self.no_plane == EMPTY_BORDER


def unit_of(frame: Frame) -> Unit:
    """The frame's unit, or the one in which its depths are a working distance. Raises FrameRefused."""
    return frame.unit or infer_unit(median_depth(frame))


def look_at(frame: Frame, unit: Unit, plane: PlaneFit | None = None) -> Look:
    """Find valid points, plane and part. Raises FrameRefused for a frame that cannot be used.

    ``plane``: of a frame before, which is kept while the border agrees with it: to find one takes a tenth of a second.
    """
    points, valid = points_mm(frame, unit)
    points = np.where(valid[..., None], points, np.float32(0))
    fit, why, heights = _background(points, valid, plane)
    spacing = neighbour_spacing(points, valid, np.array(fit.plane.normal if fit else (0.0, 0.0, -1.0)))[0]
    if fit is not None and fit.noise_mm > MOST_NOISE_SHARE * spacing * math.sqrt(valid.size):
        why = f"the border's points scatter by {fit.noise_mm:.3g} mm about a plane"
        fit = None
    above = valid & (heights > max(CUT_SIGMAS * fit.noise_mm, CUT_SPACINGS * spacing)) if fit is not None else valid
    gap_px = max(2, round(GAP_SHARE * max(valid.shape)))
    part = largest_part(above, gap_px)
    if part.mean() < LEAST_REGION_SHARE:
        return Look(points, valid, fit, why, None, spacing)
    filled = outline(part, valid, gap_px)
    row0, row1, column0, column1 = box(filled)
    figures = measure_silhouette(points, part, filled, fit.plane if fit else None, spacing)
    cut = row0 == 0 or column0 == 0 or row1 == valid.shape[0] or column1 == valid.shape[1]
    return Look(points, valid, fit, why, Part(filled, figures, cut), spacing)


def _background(
    points: FloatArray, valid: BoolArray, before: PlaneFit | None
) -> tuple[PlaneFit | None, str, FloatArray]:
    """The plane at the border with its normal towards the camera, or why there is none; heights above it."""
    edge = np.concatenate([points[strip][valid[strip]] for strip in border_strips()]).astype(np.float64)
    none = np.zeros(valid.shape, dtype=np.float32)
    if len(edge) < FEWEST_BORDER_POINTS:
        return None, EMPTY_BORDER, none
    if before is not None:
        off_mm = np.abs(edge @ np.asarray(before.plane.normal) + before.plane.offset_mm)
        if (off_mm <= CUT_SIGMAS * before.noise_mm).mean() >= before.on_plane_share - AGREES:
            return before, "", plane_heights(points, before.plane)
    chosen = np.random.default_rng(SEED).permutation(len(edge))[:BORDER_POINTS]
    fit = fit_border_plane(edge[chosen])
    if fit.on_plane_share < LEAST_ON_PLANE:
        return None, f"only {fit.on_plane_share:.0%} of the border's points lie on one plane", none
    if is_height_map(points, valid) and fit.plane.normal[2] < 0:
        x, y, z = fit.plane.normal
        fit = PlaneFit(Plane((-x, -y, -z), -fit.plane.offset_mm), fit.noise_mm, fit.on_plane_share)
    return fit, "", plane_heights(points, fit.plane)


def saturated(rgb: ByteArray) -> BoolArray:
    """Pixels (H x W) with a channel at white."""
    return np.asarray((rgb == WHITE).any(axis=2))


def dark(rgb: ByteArray) -> BoolArray:
    """Pixels (H x W) with no channel above black and its noise."""
    return np.asarray((rgb < DARK).all(axis=2))
