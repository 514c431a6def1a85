"""Views of a normal frame: what light, exposure, pose, the grid's phase and depth noise might have made of it.

Made on the source frame's found part, so each view is prepared as a camera's frame would be. A view differs in all
five at once, in combinations of two levels (a fraction of 2^5): eight views show each level four times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, uniform_filter

from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Frame, Prepared, Window
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.border_plane import is_height_map
from asperity.runtime.vision.height_residual import HeightModel
from asperity.runtime.vision.missing_points import as_declared
from asperity.runtime.vision.preprocess import Foreground, Masks, find_part, part_window, prepare_part
from asperity.runtime.vision.tiles import of_window

VIEWS = 8
EXPOSURE = (0.92, 1.08)
TURN_DEG = 3.0
RELIT = 0.2
"""A facet that leans by an angle towards the new light is brighter by this share of the angle's sine."""
NORMAL_PX = 5
"""Points are averaged over so many pixels each way before normals are taken: depth noise must not light the picture."""


def make_views(
    frame: Frame, geometry: Geometry, network: Network, masks: Masks | None, seed: int, count: int = VIEWS,
    heights: HeightModel | None = None,
) -> Iterator[Prepared]:  # fmt: skip
    """The first ``count`` views of a normal frame, a function of the arguments alone. Raises FrameRefused."""
    found = find_part(as_declared(frame, geometry), geometry)
    slopes = _slopes(found)
    rng = np.random.default_rng([seed, frame.seq])
    start = rng.uniform(0, 2 * math.pi)
    half_patch_px = geometry.side_px / of_window(network).grid / 2
    for view in range(count):
        a, b, c = view & 1, view >> 1 & 1, view >> 2 & 1
        azimuth = start + 2 * math.pi * view / VIEWS
        lean = slopes @ np.array([math.cos(azimuth), math.sin(azimuth)], np.float32)
        light = EXPOSURE[a] * (1 + RELIT * lean)
        rgb = np.clip(np.round(frame.rgb * light[:, :, None]), 0, 255).astype(np.uint8)
        noise_mm = geometry.plane_noise_mm * ((a ^ c) > 0)
        noisy = replace(found, points=_noisy(found, noise_mm, rng))
        turned_rgb, turned = _turned(rgb, noisy, TURN_DEG if b else -TURN_DEG)
        centred = part_window(turned.part, geometry)
        window = Window(
            centred.x_px + round(half_patch_px * c), centred.y_px + round(half_patch_px * (a ^ b)), centred.side_px
        )
        yield prepare_part(turned_rgb, turned, window, geometry, network, masks, heights)


def _slopes(found: Foreground) -> FloatArray:
    """Sine of the surface's lean to the right and downwards, H x W x 2; 0 off the part."""
    weight = uniform_filter(found.part.astype(np.float32), NORMAL_PX)
    points = np.where(found.part[:, :, None], found.points, np.float32(0.0))
    smooth = uniform_filter(points, (NORMAL_PX, NORMAL_PX, 1)) / np.maximum(weight, 1e-6)[:, :, None]
    across, down = np.gradient(smooth, axis=1), np.gradient(smooth, axis=0)
    slopes = np.zeros((*found.part.shape, 2), np.float32)
    inside = uniform_filter(found.part.astype(np.float32), NORMAL_PX + 2) > 0.999
    for axis, step in enumerate((across, down)):
        length = np.linalg.norm(step, axis=2)
        slopes[:, :, axis] = np.where(inside & (length > 0), step[:, :, 2] / np.maximum(length, 1e-6), 0.0)
    return slopes - slopes[inside].mean(axis=0) * inside[:, :, None] if inside.any() else slopes


def _noisy(found: Foreground, noise_mm: float, rng: np.random.Generator) -> FloatArray:
    """Points moved along their rays by noise."""
    moved = (noise_mm * rng.standard_normal(found.part.shape, dtype=np.float32))[:, :, None]
    if is_height_map(found.points, found.part):
        return np.asarray(found.points + moved * np.array([0, 0, 1], np.float32), dtype=np.float32)
    depth = np.maximum(np.abs(found.points[:, :, 2:]), 1e-6)
    return np.asarray(found.points * (1 + moved / depth), dtype=np.float32)


def _turned(rgb: ByteArray, found: Foreground, degrees: float) -> tuple[ByteArray, Foreground]:
    """Picture and points turned about the part's middle."""
    rows, columns = np.nonzero(found.part)
    middle = np.array([rows.mean(), columns.mean()])
    angle = math.radians(degrees)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])  # (row, column)
    offset = middle - matrix @ middle
    channels = np.moveaxis(rgb.astype(np.float32), 2, 0)
    turned = np.stack([affine_transform(one, matrix, offset, order=1, mode="nearest") for one in channels], -1)
    height, width = found.part.shape
    source = np.einsum("ij,jhw->ihw", matrix, np.mgrid[:height, :width]) + offset[:, None, None]
    nearest = np.round(source).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < np.array([height, width])[:, None, None])).all(axis=0)
    at = (np.clip(nearest[0], 0, height - 1), np.clip(nearest[1], 0, width - 1))

    def taken(mask: BoolArray) -> BoolArray:
        return np.asarray(mask[at] & inside)

    points = found.points[at].copy()
    points[:, :, :2] = _turned_points(points[:, :, :2], found, columns, rows, -angle)
    kept = Foreground(points, taken(found.valid), taken(found.part), taken(found.filled))
    return np.clip(np.round(turned), 0, 255).astype(np.uint8), kept


def _turned_points(
    flat: FloatArray, found: Foreground, columns: NDArray[np.int64], rows: NDArray[np.int64], angle: float
) -> FloatArray:
    """x and y turned about the part's middle, the way the picture's columns and rows are."""
    seen = found.points[rows, columns][:, :2].astype(np.float64)
    middle = seen.mean(axis=0)
    pixels = np.stack([columns - columns.mean(), rows - rows.mean()])
    hand = np.sign(np.linalg.det(pixels @ (seen - middle)))
    # A pixel's content moves the other way than the place it is taken from: (x, y) turns by -angle of (row, column).
    cosine, sine = math.cos(angle), math.sin(angle) * hand
    turn = np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray((flat - middle) @ turn.T + middle, dtype=np.float32)
