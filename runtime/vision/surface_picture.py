"""The part's surface as a picture for the colour backbone: normals, or slopes and the relief of small scale.

``normals``: the three components of the unit normal. ``relief``: the two slopes against what is usual here, and the
height above the surroundings, each by the good frames' own spread (docs/decisions/geometry-modality.md).
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray
from asperity.runtime.manifest import SurfacePicture
from asperity.runtime.vision.surface_grid import Surface, SurfaceGrid, padded, run_sums

AROUND_SHARE = 0.125
"""Side of the surroundings that a height is measured against, as a share of the grid's side."""


def channels_of(grid: SurfaceGrid, surface: Surface, kind: str) -> FloatArray:
    """3 x H x W of the surface's box, before scaling; meaningless where there is no normal. Raises EngineError."""
    if kind == "normals":
        return surface.normals
    if kind != "relief":
        raise EngineError(f"network.picture.kind {kind!r} is not known; calibrate again with this version")
    relief = local_heights(surface.heights(grid.up), surface.present, around_width(surface.side))
    return np.stack([surface.normals[0], surface.normals[1], relief])


def picture(grid: SurfaceGrid, surface: Surface, chosen: SurfacePicture, image_px: int) -> ByteArray:
    """image_px x image_px x 3, black off the part: 127.5 (1 + t), t of a normal clipped (x - centre) / scale, t of a
    relief (x - centre) / (|x - centre| + scale), which shows a flat part finely and does not end on a steep one."""
    centre, scale = (np.asarray(one, np.float32)[:, None, None] for one in (chosen.centre, chosen.scale))
    channels = channels_of(grid, surface, chosen.kind) - centre
    if chosen.kind == "relief":
        channels /= np.abs(channels) + scale
    else:
        channels = np.clip(channels / scale, -1.0, 1.0)
    channels += np.float32(1.0)
    channels *= np.float32(127.5)
    levels = np.rint(channels, out=channels).astype(np.uint8)
    levels *= surface.sloped
    whole = Image.fromarray(surface.placed(levels.transpose(1, 2, 0)))
    return np.asarray(whole.resize((image_px, image_px), Image.Resampling.BICUBIC))


def around_width(side: int) -> int:
    """Odd width of the surroundings, in cells."""
    return 2 * max(1, round(0.5 * AROUND_SHARE * side)) + 1


def local_heights(heights: FloatArray, present: BoolArray, width: int) -> FloatArray:
    """Each height above the plane that fits its surroundings best (box of odd ``width``), 0 where not present.

    At the part's rim the surroundings lie to one side, so a mean alone would show the part's tilt.
    """
    height, across = heights.shape
    pitch = across + width - 1
    rows = (np.arange(height, dtype=np.float64) - 0.5 * (height - 1))[:, None]
    columns = np.arange(pitch, dtype=np.float64) - 0.5 * (across - 1)
    level = heights[present].mean(dtype=np.float64) if present.any() else 0.0
    z = np.where(present, heights - level, 0.0)
    # Along rows first, so that what has a column in it is made of those sums.
    by_rows = padded(np.stack([present, present * rows, present * (rows * rows), z, z * rows]), width)
    own, row, row2, up, up_row = (run_sums(one, width, pitch) for one in by_rows)
    shifted = np.resize(columns - 0.5 * (width - 1), own.shape)
    n, r, c, rr, cc, rc, s, rs, cs = (
        run_sums(one, width, 1).reshape(height, pitch)
        for one in (own, row, own * shifted, row2, own * shifted * shifted, row * shifted, up, up_row, up * shifted)
    )
    n = 1.0 / np.maximum(n, 1.0)
    r, c, s = r * n, c * n, s * n
    rr, cc, rc, rs, cs = rr * n - r * r, cc * n - c * c, rc * n - r * c, rs * n - r * s, cs * n - c * s
    # A little ridge: along a line of cells no slope across it can be determined, and is taken for 0.
    rr, cc = rr + 1.0, cc + 1.0
    by = 1.0 / (rr * cc - rc * rc)
    down, right = (rs * cc - cs * rc) * by, (cs * rr - rs * rc) * by
    plane = s + down * (rows - r) + right * (columns - c)
    return np.where(present, z - plane[:, :across], 0.0).astype(np.float32)
