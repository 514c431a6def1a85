"""The part's surface as a picture for the colour backbone: normals, or slopes and the relief of small scale.

``normals``: the three components of the unit normal. ``relief``: the two slopes against what is usual here, and the
height above the surroundings, each by the good frames' own spread (docs/decisions/geometry-modality.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray
from asperity.runtime.manifest import SurfacePicture
from asperity.runtime.vision.surface_grid import Surface, SurfaceGrid

AROUND_SHARE = 0.125
"""Side of the surroundings that a height is measured against, as a share of the grid's side."""


def channels_of(grid: SurfaceGrid, surface: Surface, kind: str) -> FloatArray:
    """S x S x 3 before scaling; meaningless where the surface has no normal. Raises EngineError."""
    if kind == "normals":
        return surface.normals
    if kind != "relief":
        raise EngineError(f"network.picture.kind {kind!r} is not known; calibrate again with this version")
    heights = surface.points @ grid.up
    relief = local_heights(heights, surface.present, around_width(grid.valid.shape[0]))
    return np.concatenate([surface.normals[:, :, :2], relief[:, :, None]], axis=2)


def picture(grid: SurfaceGrid, surface: Surface, chosen: SurfacePicture, image_px: int) -> ByteArray:
    """image_px x image_px x 3, black off the part: 127.5 (1 + t), t of a normal clipped (x - centre) / scale, t of a
    relief (x - centre) / (|x - centre| + scale), which shows a flat part finely and does not end on a steep one."""
    centre, scale = np.asarray(chosen.centre, np.float32), np.asarray(chosen.scale, np.float32)
    channels = channels_of(grid, surface, chosen.kind) - centre
    if chosen.kind == "relief":
        channels /= np.abs(channels) + scale
    else:
        channels = np.clip(channels / scale, -1.0, 1.0)
    levels = np.round(np.float32(127.5) * (channels + np.float32(1.0))).astype(np.uint8)
    levels[~surface.sloped] = 0
    return np.asarray(Image.fromarray(levels).resize((image_px, image_px), Image.Resampling.BICUBIC))


def around_width(side: int) -> int:
    """Odd width of the surroundings, in cells."""
    return 2 * max(1, round(0.5 * AROUND_SHARE * side)) + 1


def local_heights(heights: FloatArray, present: BoolArray, width: int) -> FloatArray:
    """Each height above the plane that fits its surroundings best (box of odd ``width``), 0 where not present.

    At the part's rim the surroundings lie to one side, so a mean alone would show the part's tilt.
    """
    rows, columns = np.indices(heights.shape, dtype=np.float64)
    rows, columns = rows - rows.mean(), columns - columns.mean()
    weight = present.astype(np.float64)
    level = heights[present].mean(dtype=np.float64) if present.any() else 0.0
    z = np.where(present, heights - level, 0.0)
    n, r, c, rr, cc, rc, s, rs, cs = _wide_sums(
        np.stack([weight, weight * rows, weight * columns, weight * rows * rows, weight * columns * columns,
                  weight * rows * columns, z, z * rows, z * columns]), width,
    )  # fmt: skip
    n = np.maximum(n, 1.0)
    r, c, s = r / n, c / n, s / n
    rr, cc, rc, rs, cs = rr / n - r * r, cc / n - c * c, rc / n - r * c, rs / n - r * s, cs / n - c * s
    # A little ridge: along a line of cells no slope across it can be determined, and is taken for 0.
    rr, cc = rr + 1.0, cc + 1.0
    by = rr * cc - rc * rc
    down, across = (rs * cc - cs * rc) / by, (cs * rr - rs * rc) / by
    plane = s + down * (rows - r) + across * (columns - c)
    return np.where(present, z - plane, 0.0).astype(np.float32)


def _wide_sums(values: NDArray[np.float64], width: int) -> Any:
    """Sums over boxes of odd ``width`` of N x S x S, by running sums."""
    half, side = width // 2, values.shape[-1]
    for axis in (1, 2):
        running = np.cumsum(values, axis=axis)
        running = np.concatenate([np.zeros_like(np.take(running, [0], axis=axis)), running], axis=axis)
        high = np.minimum(np.arange(side) + half + 1, side)
        low = np.maximum(np.arange(side) - half, 0)
        values = np.take(running, high, axis=axis) - np.take(running, low, axis=axis)
    return values
