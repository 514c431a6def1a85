"""Fit a station's geometry from its normal frames: unit, background plane, thresholds, window (lsfa 1.2, 1.3).

Everything is measured: the plane and its noise on the frames' borders, the spacing of points on the part, the window on
the largest part. Where the border shows no plane, or none that the part rises from (``background``), nothing is
removed, and the geometry says why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from asperity.calibration.frames.background import plane_of
from asperity.calibration.options import Meaning
from asperity.runtime.bundle.sizes import PUBLISHED_STEP_PX, WINDOW_HEADROOM, recipe_frame_fault
from asperity.runtime.errors import CalibrationError, FrameRefused
from asperity.runtime.frame import BoolArray, FloatArray, Frame, Unit
from asperity.runtime.manifest import Geometry
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.border_plane import is_height_map, neighbour_spacing
from asperity.runtime.vision.preprocess import (
    FEWEST_BORDER_POINTS,
    Foreground,
    find_part,
    off_plane_share,
    plane_heights,
)
from asperity.runtime.vision.ransac_dbscan import border_strips
from asperity.runtime.vision.regions import box
from asperity.runtime.vision.units import infer_unit, median_depth, points_mm

LOG = logging.getLogger(__name__)

Method = Literal["plane", "published", "none"]

SAMPLE_FRAMES = 24
"""Frames, evenly spread, on which unit, plane and spacing are measured. The window is measured on all."""
SAMPLE_PX = SAMPLE_FRAMES * 2448 * 2048
"""Pixels of these frames together: they are held in memory, with some 30 bytes a pixel. Larger frames are fewer."""
MOVED_HEADROOM = 0.25
MOVED_SHARE_MOST = 0.75
GAP_SHARE = 0.02
"""Bridged gap over the frame's longer side: the published 6 mm on the published data."""
MIN_POINTS_SHARE = 0.1
MIN_POINTS = 64
MOST_WITHOUT_PART = 0.1
LEVEL_STEP_PX = 0.5
"""Frames whose surface lies this many pixels' size farther off than any other's show something else."""
LEVEL_SPANS = 2.0
"""And this many times as far off as the other frames lie apart."""
SMALL_PART_SHARE = 0.1
"""A part that covers less of the view may be the relief of one that fills it: then calibration asks."""
NAMED = 5


@dataclass(frozen=True, slots=True)
class PartFigures:
    """What one normal frame's part measures."""

    points: int
    side_px: int
    border_share: float
    level_mm: float
    """How much farther along z than in the first frame the same pixels lie, median; nan where the border is empty, so
    that nothing but the part is seen anyway."""


def fit_geometry(
    frames: Sequence[Frame],
    *,
    unit: Unit | None = None,
    method: Method | None = None,
    z: Meaning = "auto",
    inspect_mask: str | None = None,
    ignore_mask: str | None = None,
    names: Sequence[str] = (),
) -> Geometry:
    """The geometry of a station from its normal frames (all of one size); frames may load lazily, twice at most.

    ``unit`` is used where frames name none; without both it is derived from the median depth and logged. ``method``
    None chooses plane or none. ``z``: what the points' z means. Masks are the names that the bundle will give the
    files, ``names`` what errors call the frames.
    Raises CalibrationError when frames differ in size, show no part, or no plane where one was asked for, and where
    they do not show what the background is; FrameRefused REFUSED_UNIT when the unit cannot be determined.
    """
    if not frames:
        raise CalibrationError("there is no normal frame to fit a geometry from; give a folder with normal frames")
    sample = [frames[0]]
    height_px, width_px = sample[0].shape_px
    if fault := recipe_frame_fault(height_px, width_px):
        raise CalibrationError(f"the normal frames have {fault}; record them with a camera set to such a size")
    held = min(SAMPLE_FRAMES, SAMPLE_PX // (height_px * width_px))
    sample += [frames[index] for index in np.unique(np.linspace(0, len(frames) - 1, held).astype(int))[1:]]
    heights = z == "height" or (z == "auto" and float(np.mean([_is_height_map(frame) for frame in sample])) > 0.5)
    unit = _unit(sample, unit, heights)
    bare = Geometry(
        method="none", why="", unit=unit, height_px=height_px, width_px=width_px, plane=None, plane_cut_mm=0.0,
        point_spacing_mm=0.0, plane_noise_mm=0.0, cluster_gap_px=max(2, round(GAP_SHARE * max(height_px, width_px))),
        side_px=0, mm_per_px=0.0, min_points=MIN_POINTS, moved_share=1.0, moved_mm=0.0,
        inspect_mask=inspect_mask, ignore_mask=ignore_mask,
    )  # fmt: skip
    geometry = _with_background(sample, bare, method, heights)
    geometry = _with_spacing(sample, geometry)
    geometry = _with_window(frames, geometry, names, asked=method is not None)
    LOG.info(
        "background: %s (%s); window %d px of %.3g mm",
        geometry.method,
        geometry.why,
        geometry.side_px,
        geometry.mm_per_px,
    )
    return geometry


def _is_height_map(frame: Frame) -> bool:
    """By the stored points: the unit is not known yet."""
    if frame.xyz is None:
        return False
    points = frame.xyz.astype(np.float64) * frame.scale + frame.offset
    valid = np.isfinite(points).all(axis=2) & (frame.xyz != 0).any(axis=2)
    return is_height_map(points, valid if frame.invalid is None else valid & (frame.xyz[:, :, 2] != frame.invalid))


def _unit(sample: Sequence[Frame], asked: Unit | None, heights: bool) -> Unit:
    named = sample[0].unit
    if named is not None:
        LOG.info("unit %s, as the frames say", named)
        return named
    depths = [depth for depth in map(median_depth, sample) if math.isfinite(depth)]
    if asked is not None:
        LOG.info("unit %s, as asked for", asked)
        _doubt_unit(asked, float(np.median(depths)) if depths and not heights else math.nan)
        return asked
    if not depths:
        raise CalibrationError("no sample frame holds a valid point, so nothing can be measured; check the 3D files")
    depth = float(np.median(depths))
    if heights:
        raise FrameRefused(
            Reason.REFUSED_UNIT,
            f"the points' z is a height above a table, not a distance from a camera (its median is {depth:.4g}), so "
            "the unit cannot be derived from it; state it with --unit m, mm or um",
        )
    unit = infer_unit(depth)
    LOG.info("unit %s, derived from the median depth of %.4g", unit, depth)
    return unit


def _doubt_unit(asked: Unit, depth: float) -> None:
    """Warns where another unit alone makes the distance a working distance: all lengths would be wrong by 1000."""
    try:
        likely = infer_unit(depth)
    except FrameRefused:
        return
    if likely != asked:
        LOG.warning(
            "the points are %.4g %s from the camera by --unit %s, and only %s would make that 20 to 5000 mm: if the "
            "unit is wrong, so are all lengths", depth, asked, asked, likely
        )  # fmt: skip


def _with_background(sample: Sequence[Frame], bare: Geometry, method: Method | None, heights: bool) -> Geometry:
    if method == "none":
        return msgspec.structs.replace(bare, why="none was asked for")
    if method == "published":
        side = PUBLISHED_STEP_PX * math.ceil(max(bare.height_px, bare.width_px) / PUBLISHED_STEP_PX)
        return msgspec.structs.replace(bare, method="published", why="published was asked for", side_px=side)
    clouds = [_points(frame, bare) for frame in sample]
    candidate, against = plane_of(clouds, bare, heights, asked=method == "plane")
    if candidate is not None:
        return candidate
    if method == "plane":
        raise CalibrationError(f"no background plane can be used: {against}; calibrate without asking for plane")
    LOG.info("the whole view is judged, the background is not removed: %s", against)
    return msgspec.structs.replace(bare, why=against)


def _with_spacing(sample: Sequence[Frame], geometry: Geometry) -> Geometry:
    normal = np.asarray(geometry.plane.normal if geometry.plane else (0.0, 0.0, -1.0))
    found = [figures for figures in (_spacing_on_part(frame, geometry, normal) for frame in sample) if figures]
    if not found:
        raise CalibrationError(
            f"no sample frame shows a part of at least {MIN_POINTS} points (background: {geometry.why}); "
            "check the frames and their unit"
            + ("" if geometry.method == "none" else ", or use --geometry none if the part fills the view")
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


def _with_window(frames: Sequence[Frame], geometry: Geometry, names: Sequence[str], asked: bool) -> Geometry:
    """Window side, fewest points and limits of the border check, from the parts of all frames."""
    parts: list[tuple[str, PartFigures]] = []
    without: list[tuple[str, FrameRefused]] = []
    first: Foreground | None = None
    for position, frame in enumerate(frames):
        name = names[position] if names else frame.part_id or str(position)
        try:
            found = find_part(frame, geometry)
            first = first or found
            part = _part_figures(found, geometry, first)
            # ``prepare`` will refuse it, so it must not widen the window and the limit for all others.
            if geometry.plane is not None and part.border_share > MOVED_SHARE_MOST:
                raise FrameRefused(
                    Reason.CAMERA_MOVED, f"{part.border_share:.0%} of the border lie off the plane of the other frames"
                )
            parts.append((name, part))
        except FrameRefused as error:
            without.append((name, error))
    if not parts or len(without) > MOST_WITHOUT_PART * len(frames):
        raise CalibrationError(
            f"{len(without)} of {len(frames)} normal frames cannot be used ({_named(name for name, _ in without)}): "
            f"{without[0][1]}; fix this, or leave these frames out with --exclude"
        )
    for name, refused in without:
        LOG.warning("normal frame %s is left out of the geometry: %s", name, refused)
    if geometry.method == "none":
        _check_levels(parts, geometry, asked)
    side = geometry.side_px or math.ceil(WINDOW_HEADROOM * max(part.side_px for _, part in parts))
    usual = float(np.median([part.points for _, part in parts]))
    border = max(part.border_share for _, part in parts)
    share = usual / (geometry.height_px * geometry.width_px)
    if geometry.plane and not asked and share < SMALL_PART_SHARE:
        raise CalibrationError(
            f"only {share:.1%} of the view would be judged, a region above the plane of the border, and a defect "
            "anywhere else would get ok: use --geometry plane if this region is the whole part, --geometry none if the "
            "part is larger, as a sheet with this relief"
        )
    return msgspec.structs.replace(
        geometry,
        side_px=side,
        min_points=max(MIN_POINTS, round(MIN_POINTS_SHARE * usual)),
        moved_share=min(MOVED_SHARE_MOST, border + MOVED_HEADROOM) if geometry.plane else 1.0,
    )


def _check_levels(parts: Sequence[tuple[str, PartFigures]], geometry: Geometry, asked: bool) -> None:
    """Where nothing is removed an empty view would be learnt as a good part: its surface lies elsewhere.

    Raises CalibrationError; only warns where the method was asked for.
    """
    levels = sorted((part.level_mm, name) for name, part in parts if math.isfinite(part.level_mm))
    if len(levels) < 2:
        return
    z = np.array([level for level, _ in levels])
    step = LEVEL_STEP_PX * geometry.mm_per_px
    groups = np.split(np.arange(len(z)), np.flatnonzero(np.diff(z) > step) + 1)
    usual = max(groups, key=len)
    low, high = z[usual[0]], z[usual[-1]]
    off = np.maximum(low - z, z - high)
    strange = np.flatnonzero(off > max(step, LEVEL_SPANS * (high - low)))
    if 2 * len(usual) < len(z) or not len(strange):
        return
    told = (
        f"the surface of {len(strange)} of {len(parts)} normal frames ({_named(levels[i][1] for i in strange)}) lies "
        f"{off[strange].min():.3g} mm or more from that of the others, as in a view without a part"
    )
    if not asked:
        raise CalibrationError(
            f"{told}; leave out the frames without a part (--exclude), or use --geometry none if all show good parts"
        )
    LOG.warning("%s; they are learnt as good parts because the geometry was asked for", told)


def _named(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:NAMED]) + (f" and {len(every) - NAMED} more" if len(every) > NAMED else "")


def _part_figures(found: Foreground, geometry: Geometry, first: Foreground) -> PartFigures:
    row0, row1, column0, column1 = box(found.part)
    share = None
    if geometry.plane is not None:
        share = off_plane_share(plane_heights(found.points, geometry.plane), found.valid, geometry.moved_mm)
    level, both = math.nan, found.valid & first.valid
    if sum(int(both[strip].sum()) for strip in border_strips()) >= FEWEST_BORDER_POINTS:
        level = float(np.median((found.points[..., 2] - first.points[..., 2])[both]))
    return PartFigures(int(found.part.sum()), max(row1 - row0, column1 - column0), share or 0.0, level)


def _points(frame: Frame, geometry: Geometry) -> tuple[FloatArray, BoolArray]:
    if frame.shape_px != (geometry.height_px, geometry.width_px):
        raise CalibrationError(
            f"normal frame {frame.part_id or frame.seq} is {frame.shape_px[1]} x {frame.shape_px[0]} pixels and the "
            f"first one {geometry.width_px} x {geometry.height_px}; one recipe needs frames of one size"
        )
    return points_mm(frame, geometry.unit)
