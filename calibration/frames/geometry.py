"""Fit a station's geometry from its normal frames: unit, background plane, thresholds, window (lsfa 1.2, 1.3).

Everything is measured: the plane and its noise on the frames' borders, the spacing of points on the part, the window on
the largest part. Where the border shows no plane, or none that the part rises from, nothing is removed, and the
geometry says why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.runtime.bundle.sizes import PUBLISHED_STEP_PX, WINDOW_HEADROOM, recipe_frame_fault
from asperity.runtime.errors import CalibrationError, FrameRefused
from asperity.runtime.frame import BoolArray, FloatArray, Frame, Unit
from asperity.runtime.manifest import Geometry, Plane
from asperity.runtime.vision.preprocess import FEWEST_BORDER_POINTS, find_part, off_plane_share, plane_heights
from asperity.runtime.vision.ransac_dbscan import border_strips, fit_plane
from asperity.runtime.vision.regions import box, plane_axes
from asperity.runtime.vision.units import infer_unit, median_depth, points_mm

LOG = logging.getLogger(__name__)

Method = Literal["plane", "published", "none"]

SAMPLE_FRAMES = 24
"""Frames, evenly spread, on which unit, plane and spacing are measured. The window is measured on all."""
BORDER_POINTS = 20_000
"""Border points taken from all sample frames together."""
SEARCH_POINTS = 2_000
"""Of these, the ones among which the plane is searched; it is then refined on all of them."""
PLANE_ROUNDS = 500
PLANE_QUANTILE = 0.3
"""The best plane has the lowest 30 % quantile of distances: up to two thirds of the border may be something else."""
QUANTILE_SIGMAS = 0.3853
"""30 % of normally distributed noise lies within this many standard deviations."""
MOST_NOISE_SHARE = 0.01
"""A background plane's noise stays below this share of the view's width; more is the curvature of something else."""
LEAST_ON_PLANE = 0.5
"""Share of border points that must lie on the plane for it to be the background."""
CUT_SIGMAS = 6.0
CUT_SPACINGS = 1.0
"""The part begins this many standard deviations, and this many point spacings, above the plane."""
MOVED_HEADROOM = 0.25
MOVED_SHARE_MOST = 0.75
LEAST_PART_SHARE = 0.002
"""A part covers at least this share of the frame: less is noise left over, or a part thinner than the plane's noise."""
GAP_SHARE = 0.02
"""Bridged gap over the frame's longer side: the published 6 mm on the published data."""
MIN_POINTS_SHARE = 0.1
MIN_POINTS = 64
MOST_WITHOUT_PART = 0.1

_SEED = 0

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlaneFit:
    """The background plane and how well the borders agree with it."""

    plane: Plane
    noise_mm: float
    on_plane_share: float


@dataclass(frozen=True, slots=True)
class PartFigures:
    """What one normal frame's part measures."""

    points: int
    side_px: int
    border_share: float


def fit_geometry(
    frames: Sequence[Frame],
    *,
    unit: Unit | None = None,
    method: Method | None = None,
    inspect_mask: str | None = None,
    ignore_mask: str | None = None,
) -> Geometry:
    """The geometry of a station from its normal frames (all of one size); frames may load lazily, twice at most.

    ``unit`` is used where frames name none; without both it is derived from the median depth and logged. ``method``
    None None chooses plane or none. Masks are the names that the bundle will give the files.
    Raises CalibrationError when frames differ in size, show no part, or no plane where one was asked for;
    FrameRefused REFUSED_UNIT when the unit cannot be determined.
    """
    if not frames:
        raise CalibrationError("there is no normal frame to fit a geometry from; give a folder with normal frames")
    first, *others = np.unique(np.linspace(0, len(frames) - 1, SAMPLE_FRAMES).astype(int))
    sample = [frames[first]]
    height_px, width_px = sample[0].shape_px
    if fault := recipe_frame_fault(height_px, width_px):
        raise CalibrationError(f"the normal frames have {fault}; record them with a camera set to such a size")
    sample += [frames[index] for index in others]
    unit = _unit(sample, unit)
    bare = Geometry(
        method="none", why="", unit=unit, height_px=height_px, width_px=width_px, plane=None, plane_cut_mm=0.0,
        point_spacing_mm=0.0, plane_noise_mm=0.0, cluster_gap_px=max(2, round(GAP_SHARE * max(height_px, width_px))),
        side_px=0, mm_per_px=0.0, min_points=MIN_POINTS, moved_share=1.0, moved_mm=0.0,
        inspect_mask=inspect_mask, ignore_mask=ignore_mask,
    )  # fmt: skip
    geometry = _with_background(sample, bare, method)
    geometry = _with_spacing(sample, geometry)
    geometry = _with_window(frames, geometry)
    LOG.info(
        "background: %s (%s); window %d px of %.3g mm",
        geometry.method,
        geometry.why,
        geometry.side_px,
        geometry.mm_per_px,
    )
    return geometry


def fit_border_plane(points: Points) -> PlaneFit:
    """Robust plane of border points (N, 3) mm of many frames: least quantile of distances, then least squares.

    Deterministic. N >= 3.
    """
    random = np.random.default_rng(_SEED)
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


def _unit(sample: Sequence[Frame], asked: Unit | None) -> Unit:
    named = sample[0].unit
    if named is not None:
        LOG.info("unit %s, as the frames say", named)
        return named
    if asked is not None:
        LOG.info("unit %s, as asked for", asked)
        return asked
    depths = [depth for depth in map(median_depth, sample) if math.isfinite(depth)]
    if not depths:
        raise CalibrationError("no sample frame holds a valid point, so nothing can be measured; check the 3D files")
    depth = float(np.median(depths))
    unit = infer_unit(depth)
    LOG.info("unit %s, derived from the median depth of %.4g", unit, depth)
    return unit


def _with_background(sample: Sequence[Frame], bare: Geometry, method: Method | None) -> Geometry:
    if method == "none":
        return msgspec.structs.replace(bare, why="none was asked for")
    if method == "published":
        side = PUBLISHED_STEP_PX * math.ceil(max(bare.height_px, bare.width_px) / PUBLISHED_STEP_PX)
        return msgspec.structs.replace(bare, method="published", why="published was asked for", side_px=side)
    clouds = [_points(frame, bare) for frame in sample]
    candidate, against = _plane_candidate(clouds, bare)
    if candidate is not None:
        return candidate
    if method == "plane":
        raise CalibrationError(f"no background plane can be used: {against}; calibrate without asking for plane")
    LOG.info("background is not removed: %s", against)
    return msgspec.structs.replace(bare, why=against)


def _plane_candidate(clouds: Sequence[tuple[FloatArray, BoolArray]], bare: Geometry) -> tuple[Geometry | None, str]:
    """The geometry with the station's plane, or None and what speaks against one."""
    edges = [np.concatenate([points[strip][valid[strip]] for strip in border_strips()]) for points, valid in clouds]
    if float(np.median([len(edge) for edge in edges])) < FEWEST_BORDER_POINTS:
        return None, "the border of the frames holds no points, so the background is empty already"
    pooled = np.concatenate(edges).astype(np.float64)
    chosen = np.random.default_rng(_SEED).permutation(len(pooled))[:BORDER_POINTS]
    fit = fit_border_plane(pooled[chosen])
    if fit.on_plane_share < LEAST_ON_PLANE:
        return (
            None,
            f"only {fit.on_plane_share:.0%} of the border's points lie on one plane, so the part fills the view",
        )
    normal = np.asarray(fit.plane.normal)
    spacing = float(np.nanmedian([neighbour_spacing(points, valid, normal)[0] for points, valid in clouds]))
    view_mm = spacing * math.sqrt(bare.height_px * bare.width_px)
    if fit.noise_mm > MOST_NOISE_SHARE * view_mm:
        return None, f"the border's points scatter by {fit.noise_mm:.3g} mm about a plane, so the part fills the view"
    cut = max(CUT_SIGMAS * fit.noise_mm, CUT_SPACINGS * spacing)
    above = below = 0
    for points, valid in clouds:
        heights = plane_heights(points, fit.plane)[valid]
        above, below = above + int((heights > cut).sum()), below + int((heights < -cut).sum())
    if below > above:
        return None, "most points off the border's plane lie below it, so it is the part's own surface"
    if above < LEAST_PART_SHARE * len(clouds) * bare.height_px * bare.width_px:
        return None, f"nothing rises more than {cut:.3g} mm from the border's plane, so it is the part's own surface"
    why = (
        f"{fit.on_plane_share:.0%} of the border's points lie on one plane, with noise of {fit.noise_mm:.3g} mm; "
        f"{cut:.3g} mm above it the part begins"
    )
    return msgspec.structs.replace(
        bare, method="plane", why=why, plane=fit.plane, plane_cut_mm=cut, plane_noise_mm=fit.noise_mm,
        moved_mm=cut,
    ), ""  # fmt: skip


def _with_spacing(sample: Sequence[Frame], geometry: Geometry) -> Geometry:
    normal = np.asarray(geometry.plane.normal if geometry.plane else (0.0, 0.0, -1.0))
    found = [figures for figures in (_spacing_on_part(frame, geometry, normal) for frame in sample) if figures]
    if not found:
        raise CalibrationError(
            f"no sample frame shows a part of at least {MIN_POINTS} points (background: {geometry.why}); "
            "check the frames and their unit"
        )
    spacing, across = np.median(np.array(found), axis=0)
    return msgspec.structs.replace(geometry, point_spacing_mm=float(spacing), mm_per_px=float(across))


def _spacing_on_part(frame: Frame, geometry: Geometry, normal: NDArray[np.float64]) -> tuple[float, float] | None:
    try:
        found = find_part(frame, geometry)
    except FrameRefused:
        return None
    spacing = neighbour_spacing(found.points, found.part, normal)
    return spacing if math.isfinite(spacing[0]) else None


def _with_window(frames: Sequence[Frame], geometry: Geometry) -> Geometry:
    """Window side, fewest points and limits of the border check, from the parts of all frames."""
    parts: list[PartFigures] = []
    without: list[str] = []
    reason = ""
    for position, frame in enumerate(frames):
        try:
            parts.append(_part_figures(frame, geometry))
        except FrameRefused as refused:
            without.append(frame.part_id or str(position))
            reason = str(refused)
            LOG.warning("normal frame %s is left out of the geometry: %s", without[-1], refused)
    if not parts or len(without) > MOST_WITHOUT_PART * len(frames):
        raise CalibrationError(
            f"{len(without)} of {len(frames)} normal frames cannot be used ({', '.join(without[:5])}): {reason}"
        )
    side = geometry.side_px or math.ceil(WINDOW_HEADROOM * max(part.side_px for part in parts))
    usual = float(np.median([part.points for part in parts]))
    border = max(part.border_share for part in parts)
    return msgspec.structs.replace(
        geometry,
        side_px=side,
        min_points=max(MIN_POINTS, round(MIN_POINTS_SHARE * usual)),
        moved_share=min(MOVED_SHARE_MOST, border + MOVED_HEADROOM) if geometry.plane else 1.0,
    )


def _part_figures(frame: Frame, geometry: Geometry) -> PartFigures:
    found = find_part(frame, geometry)
    row0, row1, column0, column1 = box(found.part)
    share = None
    if geometry.plane is not None:
        share = off_plane_share(plane_heights(found.points, geometry.plane), found.valid, geometry.moved_mm)
    return PartFigures(int(found.part.sum()), max(row1 - row0, column1 - column0), share or 0.0)


def _points(frame: Frame, geometry: Geometry) -> tuple[FloatArray, BoolArray]:
    if frame.shape_px != (geometry.height_px, geometry.width_px):
        raise CalibrationError(
            f"normal frame {frame.part_id or frame.seq} is {frame.shape_px[1]} x {frame.shape_px[0]} pixels and the "
            f"first one {geometry.width_px} x {geometry.height_px}; one recipe needs frames of one size"
        )
    return points_mm(frame, geometry.unit)


def _distances(points: Points, plane: Plane) -> Points:
    distances: Points = points @ np.asarray(plane.normal) + plane.offset_mm
    return distances
