"""Regions on the organised grid: bridging gaps, the largest part, its outline and its silhouette figures."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from asperity.runtime.frame import BoolArray, FloatArray, Silhouette
from asperity.runtime.manifest import Plane

HEIGHT_PERCENTILE = 98.0
_EIGHT = np.ones((3, 3), dtype=bool)


def dilated(mask: BoolArray, radius: int) -> BoolArray:
    """The mask grown by a square of (2 radius + 1) pixels; nothing grows in from beyond the edge."""
    for axis in (0, 1):
        mask = _grown(mask, radius, axis)
    return mask


def closed(mask: BoolArray, radius: int) -> BoolArray:
    """Dilation, then erosion, by the same square: gaps up to 2 radius pixels are filled, the outer shape stays."""
    if radius == 0:
        return mask.copy()
    # Room around the image, so that the erosion does not eat what touches the edge.
    grown = dilated(_padded(_padded(mask, radius, 0), radius, 1), radius)
    return ~dilated(~grown, radius)[radius:-radius, radius:-radius]


def largest_part(foreground: BoolArray, gap_px: int) -> BoolArray:
    """The foreground pixels of the component with most of them; pixels up to ``gap_px`` apart belong together.

    Apart is the larger of row and column distance, and an even gap bridges one pixel more. All False when there is no
    foreground.
    """
    labels, count = ndimage.label(dilated(foreground, gap_px // 2), structure=_EIGHT)
    if count <= 1:
        return foreground
    sizes = np.bincount(labels[foreground], minlength=count + 1)
    sizes[0] = 0
    part: BoolArray = foreground & (labels == sizes.argmax())
    return part


def outline(part: BoolArray, valid: BoolArray, gap_px: int) -> BoolArray:
    """The part with its missing points: gaps closed and holes filled, except where a valid point shows background."""
    inside = closed(part, gap_px // 2)
    holes, count = ndimage.label(~inside)
    enclosed = np.ones(count + 1, dtype=bool)
    enclosed[np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])] = False
    enclosed[0] = False
    if enclosed.any():
        inside |= enclosed[holes]
    filled: BoolArray = part | (inside & ~valid)
    return filled


def box(mask: BoolArray) -> tuple[int, int, int, int]:
    """Smallest box around the True pixels: (row0, row1, column0, column1), ends exclusive. Needs one True pixel."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def measure_silhouette(
    points: FloatArray, part: BoolArray, filled: BoolArray, plane: Plane | None, mm_per_px: float
) -> Silhouette:
    """Figures of one part: points (H x W x 3 mm), its valid pixels (at least one), its outline with missing points.

    Lengths are measured in the background plane, or across the optical axis where there is none. Then nothing but the
    level tells a part from the table under it, where both look the same.
    """
    area_px = int(filled.sum())
    normal = np.array(plane.normal if plane else (0.0, 0.0, -1.0))
    ends = part & ~(_inner(part, 0) & _inner(part, 1))
    length, width = _smallest_rectangle(points[ends].astype(np.float64) @ plane_axes(normal).T)
    heights = (points @ normal.astype(np.float32))[part]
    top = np.percentile(heights, HEIGHT_PERCENTILE)
    base = -plane.offset_mm if plane else float(np.percentile(heights, 100.0 - HEIGHT_PERCENTILE))
    return Silhouette(
        area_mm2=area_px * mm_per_px**2,
        length_mm=length,
        width_mm=width,
        height_mm=float(top - base),
        missing_share=1.0 - int(part.sum()) / area_px,
        level_mm=math.nan if plane else -0.5 * float(top + base),
    )


def plane_axes(normal: NDArray[np.floating]) -> NDArray[np.float64]:
    """Two unit vectors (2 x 3) that span the plane of this normal."""
    helper = np.eye(3)[np.abs(normal).argmin()]
    first = np.cross(normal, helper)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(normal, first)])


def _padded(mask: BoolArray, radius: int, axis: int) -> BoolArray:
    shape = list(mask.shape)
    shape[axis] += 2 * radius
    padded = np.zeros(shape, dtype=bool)
    inner = slice(radius, radius + mask.shape[axis])
    padded[inner if axis == 0 else (slice(None), inner)] = mask
    return padded


def _grown(mask: BoolArray, radius: int, axis: int) -> BoolArray:
    grown = _padded(mask, radius, axis)
    # A window of 2 r + 1 by doubling: the or of two windows of n, shifted, is one of up to 2 n.
    length, span = 2 * radius + 1, 1
    while span < length:
        step = min(span, length - span)
        first = grown[:-step] if axis == 0 else grown[:, :-step]
        second = grown[step:] if axis == 0 else grown[:, step:]
        grown = first | second
        span += step
    return grown


def _inner(part: BoolArray, axis: int) -> BoolArray:
    """False at the first and last True pixel of every line along ``axis``: only those can be on the convex hull."""
    inner = np.ones_like(part)
    lines = np.flatnonzero(part.any(axis=axis))
    along = part if axis == 1 else part.T
    first = along[lines].argmax(axis=1)
    last = part.shape[axis] - 1 - along[lines, ::-1].argmax(axis=1)
    view = inner if axis == 1 else inner.T
    view[lines, first] = False
    view[lines, last] = False
    return inner


def _smallest_rectangle(flat: NDArray[np.float64]) -> tuple[float, float]:
    """Longer and shorter side of the smallest rectangle around 2D points: one side lies along a hull edge."""
    try:
        hull = flat[ConvexHull(flat).vertices]
    except (QhullError, ValueError):
        # Fewer than three points, or all on one line: no area, only a length.
        extent = flat - flat.mean(axis=0)
        return float(2 * np.sqrt((extent**2).sum(axis=1).max(initial=0.0))), 0.0
    edges = np.roll(hull, -1, axis=0) - hull
    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    spans = [np.ptp(hull @ directions.T, axis=0) for directions in (along, across)]
    best = (spans[0] * spans[1]).argmin()
    one, other = float(spans[0][best]), float(spans[1][best])
    return max(one, other), min(one, other)
