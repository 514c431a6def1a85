"""The plane at a frame's border, without a bundle: what calibration learns it from, and what a camera's check shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Plane
from asperity.runtime.vision.ransac_dbscan import fit_plane
from asperity.runtime.vision.regions import plane_axes

SEARCH_POINTS = 2_000
"""Of the border points, the ones among which the plane is searched; it is then refined on all of them."""
PLANE_ROUNDS = 500
PLANE_QUANTILE = 0.3
"""The best plane has the lowest 30 % quantile of distances: up to two thirds of the border may be something else."""
QUANTILE_SIGMAS = 0.3853
"""30 % of normally distributed noise lies within this many standard deviations."""
CUT_SIGMAS = 6.0
CUT_SPACINGS = 1.0
"""The part begins this many standard deviations, and this many point spacings, above the plane."""
LEAST_REGION_SHARE = 0.002
"""A connected region of at least this share of the frame may be a part; less is noise left over."""
NEAREST_CAMERA = 0.25
"""A camera is farther from the view's middle than this share of the view's width: less is a lens of 127 degrees."""
SEED = 0
MOST_NOISE_SHARE = 0.01
"""A background plane's noise stays below this share of the view's width; more is the curvature of something else."""
LEAST_ON_PLANE = 0.5
"""Share of border points that must lie on the plane for it to be the background."""

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlaneFit:
    """The background plane and how well the borders agree with it."""

    plane: Plane
    noise_mm: float
    on_plane_share: float


def is_height_map(points: NDArray[np.floating], valid: BoolArray) -> bool:
    """Whether z is a height above a table: a camera at the origin would be too near to see a view so wide.

    ``points`` H x W x 3 in any unit. A height measured from far below the table looks like a distance.
    """
    seen = points[valid]
    if not len(seen):
        return False
    wide = np.ptp(np.percentile(seen[:, :2], (5, 95), axis=0), axis=0).max()
    return bool(np.median(np.abs(seen[:, 2])) < NEAREST_CAMERA * wide)


def fit_border_plane(points: Points) -> PlaneFit:
    """Robust plane of border points (N, 3) mm of many frames: least quantile of distances, then least squares.

    Deterministic. N >= 3.
    """
    random = np.random.default_rng(SEED)
    few = points[random.permutation(len(points))[:SEARCH_POINTS]]
    best, best_spread = fit_plane(few), math.inf
    for _ in range(PLANE_ROUNDS):
        plane = fit_plane(few[random.integers(0, len(few), 3)])
        spread = float(np.quantile(np.abs(_distances(few, plane)), PLANE_QUANTILE))
        if spread < best_spread:
            best, best_spread = plane, spread
    noise = best_spread / QUANTILE_SIGMAS
    for _ in range(5):
        near = np.abs(_distances(points, best)) <= max(3.0 * noise, 1e-6)
        if int(near.sum()) < 3:
            break
        best = fit_plane(points[near])
        noise = float(1.4826 * np.median(np.abs(_distances(points[near], best))))
    on_plane = np.abs(_distances(points, best)) <= max(CUT_SIGMAS * noise, 1e-6)
    return PlaneFit(best, noise, float(on_plane.mean()))


def neighbour_spacing(points: FloatArray, where: BoolArray, normal: NDArray[np.floating]) -> tuple[float, float]:
    """Median distance of neighbouring pixels' points inside ``where``: in space, and across ``normal``; mm.

    ``points`` H x W x 3 mm. (nan, nan) where no two neighbours are inside.
    """
    steps = np.concatenate(
        [
            (points[:, 1:] - points[:, :-1])[where[:, 1:] & where[:, :-1]],
            (points[1:] - points[:-1])[where[1:] & where[:-1]],
        ]
    ).astype(np.float64)
    if not len(steps):
        return math.nan, math.nan
    across = steps @ plane_axes(normal).T
    return float(np.median(np.linalg.norm(steps, axis=1))), float(np.median(np.linalg.norm(across, axis=1)))


def _distances(points: Points, plane: Plane) -> Points:
    distances: Points = points @ np.asarray(plane.normal) + plane.offset_mm
    return distances
