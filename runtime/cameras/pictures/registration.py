"""A colour picture of another size or lens, brought onto the pixels of the 3D data. Pure.

By the pixel grid where both come from one lens (a sensor that is binned for depth): every pixel becomes the mean of the
colour over its own area, so that nothing is left out and nothing aliases. By the two lenses elsewhere. A pixel whose
colour is not known (no depth there, outside the colour picture, or hidden from the colour camera) stays black: the
colour of what is in front of it would be a made-up one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import CameraError
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, Intrinsics
from asperity.runtime.vision.units import BROWN_CONRADY_MODELS, PINHOLE_MODELS

SENSOR_CHARACTERS = 64
"""Longest ``sensor`` of a frame (docs/wire.md)."""
HIDDEN_SHARE = 0.01
"""A point this share of its distance behind what is seen there is hidden from the colour camera. With a baseline of a
tenth of the distance that is a shift of a thousandth of it: about one pixel."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Where the colour camera stands: ``rotation @ point + translation_mm`` is a point of the 3D camera in its view."""

    rotation: tuple[float, ...]  # 9, by rows
    translation_mm: tuple[float, float, float]


def said_in_sensor(sensor: str, colour_px: tuple[int, int], px: tuple[int, int], how: str = "") -> str:
    """``PhoXi 123, colour 2064x1544 -> 1032x772``: what was done to a frame's colour; sizes are (rows, columns)."""
    done = f", colour {colour_px[1]}x{colour_px[0]} -> {px[1]}x{px[0]}{' ' if how else ''}{how}"
    return sensor[: SENSOR_CHARACTERS - len(done)] + done


def by_grid(rgb: ByteArray, rows: int, columns: int) -> ByteArray:
    """Colour of the same view (H x W x 3) as rows x columns x 3: each pixel the mean over its area.

    Raises CameraError where rows and columns are scaled differently, by more than a pixel: then it is another view.
    """
    height, width = rgb.shape[:2]
    if (height, width) == (rows, columns):
        return rgb
    if abs(width * rows - columns * height) > max(height, width, rows, columns):
        raise CameraError(
            f"the colour picture of {width} x {height} pixels and the 3D data of {columns} x {rows} do not show the "
            "same view; set the camera to sizes of the same shape, or to colour in the 3D camera's coordinates"
        )
    if height % rows == 0 and width % columns == 0:
        return _binned(rgb, height // rows, width // columns)
    across = _mean_along(np.moveaxis(rgb, 1, 0), columns)
    return np.rint(_mean_along(np.moveaxis(across, 1, 0), rows)).astype(np.uint8)


def by_lenses(
    rgb: ByteArray, colour_lens: Intrinsics, points_mm: FloatArray, valid: BoolArray, relation: Relation
) -> ByteArray:
    """Colour (H x W x 3) at each valid point (h x w x 3, mm, of the 3D camera) -> h x w x 3; black where not known.

    Raises CameraError for a lens whose distortion is not pinhole or Brown-Conrady.
    """
    rotation = np.asarray(relation.rotation, dtype=np.float64).reshape(3, 3)
    seen = points_mm[valid].astype(np.float64) @ rotation.T + np.asarray(relation.translation_mm)
    rgb, lens = _to_density(rgb, colour_lens, points_mm, valid)
    x, y, inside = _projected(seen, lens, rgb.shape[:2])
    inside[inside] &= ~_hidden(x[inside], y[inside], seen[inside, 2], rgb.shape[:2])
    found = np.zeros((*valid.shape, 3), dtype=np.uint8)
    rows, columns = (axis[inside] for axis in np.nonzero(valid))
    found[rows, columns] = _bilinear(rgb, x[inside], y[inside])
    return found


def _binned(rgb: ByteArray, down: int, across: int) -> ByteArray:
    total = np.zeros((rgb.shape[0] // down, rgb.shape[1] // across, 3), dtype=np.uint32)
    for row in range(down):
        for column in range(across):
            total += rgb[row::down, column::across]
    count = down * across
    return ((2 * total + count) // (2 * count)).astype(np.uint8)


def _mean_along(picture: NDArray[Any], size: int) -> FloatArray:
    """Means over ``size`` equal pieces of the first axis; a pixel that two pieces share counts in both by its share."""
    length = picture.shape[0]
    edges = np.arange(size + 1, dtype=np.float64) * length / size
    first = np.minimum(np.floor(edges[:-1] + 1e-9), length - 1).astype(np.int64)
    total = np.zeros((size, *picture.shape[1:]), dtype=np.float32)
    for step in range(int(np.ceil(length / size)) + 1):
        at = first + step
        share = np.clip(np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], at), 0.0, None) * size / length
        if share.any():
            total += picture[np.minimum(at, length - 1)] * share.astype(np.float32)[:, None, None]
    return total


def _to_density(
    rgb: ByteArray, lens: Intrinsics, points_mm: FloatArray, valid: BoolArray
) -> tuple[ByteArray, Intrinsics]:
    """Colour of a finer grid, binned to about one pixel per point: one sample of many would alias."""
    pairs = valid[:, 1:] & valid[:, :-1]
    if not pairs.any():
        return rgb, lens
    steps = np.linalg.norm(points_mm[:, 1:][pairs] - points_mm[:, :-1][pairs], axis=1)
    apart_px = float(np.median(steps * lens.fx / np.maximum(np.abs(points_mm[:, 1:][pairs][:, 2]), 1e-6)))
    factor = int(max(1.0, min(apart_px + 0.25, *rgb.shape[:2], 16.0))) if np.isfinite(apart_px) else 1
    if factor == 1:
        return rgb, lens
    rows, columns = rgb.shape[0] // factor * factor, rgb.shape[1] // factor * factor
    binned = replace(
        lens, fx=lens.fx / factor, fy=lens.fy / factor,
        cx=(lens.cx + 0.5) / factor - 0.5, cy=(lens.cy + 0.5) / factor - 0.5,
    )  # fmt: skip
    return _binned(rgb[:rows, :columns], factor, factor), binned


def _projected(
    points: NDArray[np.float64], lens: Intrinsics, shape_px: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], BoolArray]:
    """Pixel coordinates of points in front of a lens, and which lie within its picture."""
    straight = not any(lens.dist)
    if not (lens.model in BROWN_CONRADY_MODELS and len(lens.dist) in (4, 5)) and not (
        straight and lens.model in PINHOLE_MODELS | BROWN_CONRADY_MODELS
    ):
        raise CameraError(
            f"the colour lens has the distortion model {lens.model!r} with {len(lens.dist)} coefficients, which is not "
            "supported; let the camera undistort, or give colour in the 3D camera's coordinates"
        )
    front = points[:, 2] > 0
    x, y = (np.divide(points[:, axis], points[:, 2], out=np.zeros(len(points)), where=front) for axis in (0, 1))
    if not straight:
        k1, k2, p1, p2, k3 = (*lens.dist, 0.0)[:5]
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        x, y = (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        )
    x, y = x * lens.fx + lens.cx, y * lens.fy + lens.cy
    inside = front & (x >= -0.5) & (y >= -0.5) & (x <= shape_px[1] - 0.5) & (y <= shape_px[0] - 0.5)
    return x, y, inside


def _hidden(
    x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64], shape_px: tuple[int, ...]
) -> BoolArray:
    """Which points lie behind others in the colour camera's view."""
    rows, columns = np.clip(np.rint(y), 0, shape_px[0] - 1).astype(np.int64), np.clip(
        np.rint(x), 0, shape_px[1] - 1
    ).astype(np.int64)  # fmt: skip
    nearest = np.full(shape_px[:2], np.inf)
    np.minimum.at(nearest, (rows, columns), z)
    # The points of a surface do not hit every pixel of the colour picture: what lies behind shows through the gaps.
    padded = np.pad(nearest, 1, constant_values=np.inf)
    lines = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    around = np.minimum(np.minimum(lines[:, :-2], lines[:, 1:-1]), lines[:, 2:])
    hidden: BoolArray = z > around[rows, columns] * (1 + HIDDEN_SHARE)
    return hidden


def _bilinear(rgb: ByteArray, x: NDArray[np.float64], y: NDArray[np.float64]) -> ByteArray:
    x, y = np.clip(x, 0, rgb.shape[1] - 1), np.clip(y, 0, rgb.shape[0] - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, rgb.shape[1] - 1), np.minimum(top + 1, rgb.shape[0] - 1)
    along, down = (x - left)[:, None], (y - top)[:, None]
    upper = rgb[top, left] * (1 - along) + rgb[top, right] * along
    lower = rgb[bottom, left] * (1 - along) + rgb[bottom, right] * along
    mixed: ByteArray = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return mixed
