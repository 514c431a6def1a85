"""Whether the plane at the frames' border is the background: only where most frames show a part above it.

A sheet, a board or a pavement that fills the view has its own surface at the border. What a few points, a crease or a
few frames show above it is not a part. Where the frames do not show which it is, an error names the choices
(docs/method.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Geometry, Plane
from asperity.runtime.vision.border_plane import (
    CUT_SIGMAS,
    CUT_SPACINGS,
    LEAST_ON_PLANE,
    LEAST_REGION_SHARE,
    MOST_NOISE_SHARE,
    SEED,
    fit_border_plane,
    neighbour_spacing,
)
from asperity.runtime.vision.preprocess import FEWEST_BORDER_POINTS, off_plane_share, plane_heights
from asperity.runtime.vision.ransac_dbscan import border_strips
from asperity.runtime.vision.regions import dilated

BORDER_POINTS = 20_000
"""Border points taken from all sample frames together."""
BORDER_OFF_MOST, BORDER_OFF_FEW = 0.75, 0.25
"""With a larger share of its border off the plane, a frame shows another surface, not a part on this one; with more
than the second, what lies behind the plane is the rest of a curved surface."""
LEAST_PART_SHARE = 0.01
"""Only a part of at least this share shows by itself that the plane is the background."""
PART_OF_REGIONS, ALONE = 0.5, 0.9
"""A part is at least this share of all regions together, or they are what a board carries; with more it is alone."""
MOST_FRAMES, FEW_FRAMES = 0.5, 0.1
"""A part in more than half of the frames makes the plane the background; in no more than a tenth, it is an accident."""
LEAST_FACING = 0.5
"""A camera sees the background tilted by less than 60 degrees."""

ASK = "use --geometry plane if the plane is the background, --geometry none if it is the part's own surface"

Clouds = Sequence[tuple[FloatArray, BoolArray]]
"""Each frame's points (H x W x 3 mm) and where they are valid."""


@dataclass(frozen=True, slots=True)
class _Region:
    """The largest region of a frame, as shares: of the frame, and of all regions together.

    Gaps are bridged as the runtime does. ``of_touching``: they are not, since that makes one of a board's components.
    """

    share: float
    of_all: float
    of_touching: float


@dataclass(slots=True)
class _Seen:
    """What the sample frames show off the border's plane."""

    frames: int
    points_below: int = 0
    """More points below the plane than above it, in all frames together."""
    above: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)
    """The share of each frame that the one large region above or behind the plane covers, where there is one."""
    several: int = 0
    """Frames with several regions above, none of them most of all."""
    beside: int = 0
    """Of ``above``: frames in which the largest region is not alone."""


def plane_of(clouds: Clouds, bare: Geometry, heights: bool, asked: bool) -> tuple[Geometry | None, str]:
    """The geometry with the station's plane, or None and what speaks against one.

    ``heights``: z grows towards the camera. ``asked``: the plane is the background, by option.
    Raises CalibrationError where the frames do not show which it is.
    """
    edges = [np.concatenate([points[strip][valid[strip]] for strip in border_strips()]) for points, valid in clouds]
    if float(np.median([len(edge) for edge in edges])) < FEWEST_BORDER_POINTS:
        return None, "the border of the frames holds no points, so the background is empty already"
    pooled = np.concatenate(edges).astype(np.float64)
    chosen = np.random.default_rng(SEED).permutation(len(pooled))[:BORDER_POINTS]
    fit = fit_border_plane(pooled[chosen])
    if fit.on_plane_share < LEAST_ON_PLANE:
        return (
            None,
            f"only {fit.on_plane_share:.0%} of the border's points lie on one plane, so the part fills the view",
        )
    plane = _facing(fit.plane, heights)
    spacing = float(np.nanmedian([neighbour_spacing(p, valid, np.asarray(plane.normal))[0] for p, valid in clouds]))
    view_mm = spacing * math.sqrt(bare.height_px * bare.width_px)
    if fit.noise_mm > MOST_NOISE_SHARE * view_mm:
        return None, f"the border's points scatter by {fit.noise_mm:.3g} mm about a plane, so the part fills the view"
    cut = max(CUT_SIGMAS * fit.noise_mm, CUT_SPACINGS * spacing)
    if not asked and (against := _own_surface(_look(clouds, plane, cut, bare.cluster_gap_px), cut, heights)):
        return None, against
    why = (
        f"{fit.on_plane_share:.0%} of the border's points lie on one plane, with noise of {fit.noise_mm:.3g} mm; "
        f"{cut:.3g} mm above it the part begins"
    )
    return msgspec.structs.replace(
        bare, method="plane", why=why, plane=plane, plane_cut_mm=cut, plane_noise_mm=fit.noise_mm, moved_mm=cut
    ), ""  # fmt: skip


def _facing(plane: Plane, heights: bool) -> Plane:
    """The plane with its normal towards the camera: ``fit_plane`` turns it to the origin, heights have it at +z."""
    if abs(plane.normal[2]) < LEAST_FACING:
        raise CalibrationError(
            f"the border's plane has the normal {', '.join(f'{axis:.2f}' for axis in plane.normal)}, so it is seen "
            "from the side: let the camera look at the part from above. z must be the axis along which it looks; "
            "if it is not, reorder the axes of the points, as xyz[..., [0, 2, 1]] where y is the height"
        )
    if not heights or plane.normal[2] > 0:
        return plane
    x, y, z = plane.normal
    return Plane((-x, -y, -z), -plane.offset_mm)


def _look(clouds: Clouds, plane: Plane, cut: float, gap_px: int) -> _Seen:
    seen = _Seen(len(clouds))
    for points, valid in clouds:
        heights = plane_heights(points, plane)
        over, under = valid & (heights > cut), valid & (heights < -cut)
        seen.points_below += int(under.sum()) - int(over.sum())
        off = off_plane_share(heights, valid, cut) or 0.0
        if off <= BORDER_OFF_MOST and (region := _largest(over, gap_px)):
            if region.of_touching < PART_OF_REGIONS:
                seen.several += 1
            else:
                seen.above.append(region.share)
                seen.beside += region.of_all < ALONE
        if off <= BORDER_OFF_FEW and (region := _largest(under, gap_px)) and region.of_touching >= PART_OF_REGIONS:
            seen.behind.append(region.share)
    return seen


def _own_surface(seen: _Seen, cut: float, heights: bool) -> str:
    """Why the plane is the part's own surface; empty where it is the background. Raises CalibrationError: not clear."""
    most, above, behind = MOST_FRAMES * seen.frames, len(seen.above), len(seen.behind)
    unclear = ""
    seen_as = (
        "with z as a height; use --z distance if z is the distance from the camera"
        if heights
        else "seen from the origin of the points; use --z height if z grows towards the camera (heights above a table)"
    )
    if above > most:
        if seen.points_below > 0:
            unclear = (
                f"a region rises above the border's plane in {above} of {seen.frames} sample frames, and more points "
                f"lie below the plane than above: a fixture above a lower table, or the part's own rim; {ASK}"
            )
        elif seen.beside > most:
            unclear = (
                f"the largest region above the border's plane has others beside it in {seen.beside} of {seen.frames} "
                f"sample frames: several parts on a table, or a board with components; {ASK}"
            )
        elif (usual := float(np.median(seen.above))) < LEAST_PART_SHARE:
            unclear = (
                f"the largest region above the border's plane covers {usual:.2%} of the frame, too little to tell a "
                f"part on a table from the relief of a flat part; {ASK}"
            )
        else:
            return ""
    elif behind > most and seen.points_below > 0:
        unclear = (
            f"a region of {np.median(seen.behind):.1%} of the frame lies behind the border's plane in {behind} of "
            f"{seen.frames} sample frames, {seen_as}, --geometry none if it is a hole or a pocket of a part that fills "
            "the view"
        )
    elif above > FEW_FRAMES * seen.frames:
        unclear = (
            f"{above} of {seen.frames} sample frames show a part above the border's plane and the others none; leave "
            f"out the frames without a part (--exclude), or {ASK}"
        )
    if unclear:
        raise CalibrationError(unclear)
    if seen.several > most:
        return "several regions of one size rise from the border's plane, so it is the surface that carries them"
    if seen.points_below > 0:
        return "most points off the border's plane lie below it, so it is the part's own surface"
    return f"no part is seen more than {cut:.3g} mm above the border's plane, so it is the part's own surface"


def _largest(mask: BoolArray, gap_px: int) -> _Region | None:
    """The largest region of the frame; None where there is none of a part's size."""
    if mask.mean() < LEAST_REGION_SHARE:
        return None
    found = [_sizes(mask, gap) for gap in (gap_px // 2, 1)]
    if not all(map(len, found)):
        return None
    bridged, touching = found
    return _Region(
        float(bridged.max() / mask.size),
        float(bridged.max() / bridged.sum()),
        float(touching.max() / touching.sum()),
    )


def _sizes(mask: BoolArray, reach_px: int) -> NDArray[np.intp]:
    """Pixels of each region that may be a part."""
    labels, _ = ndimage.label(dilated(mask, reach_px), structure=np.ones((3, 3)))
    sizes = np.bincount(labels[mask])[1:]
    return sizes[sizes >= LEAST_REGION_SHARE * mask.size]
