"""One physical part for the virtual camera: a height field with colour on a square grid.

Seen from above, everything but undercuts is a height field; where there is no material it dips below the background
plane at z = 0, so that outlines and through holes keep their exact place between grid points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from asperity.runtime.frame import BoolArray, FloatArray

SPACING_MM = 0.35
"""Distance of grid points: finer than a pixel at 256 x 256, coarse enough to build a scene for each frame."""
BELOW_MM = -2.0
"""Height where there is no material."""
ROWS, COLUMNS = 172, 248
"""The grid spans 60 x 87 mm; every product fits into it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Millimetres; the part lies on z = 0 around the origin, x along the columns, y along the rows."""

    height_mm: FloatArray  # ROWS x COLUMNS
    albedo: FloatArray  # ROWS x COLUMNS x 3, 0..1
    gloss: float
    """Strength of the specular highlight, 0..1."""

    @property
    def material(self) -> BoolArray:
        """ROWS x COLUMNS: grid points above the background plane."""
        return self.height_mm > 0


@cache
def grid_mm() -> tuple[FloatArray, FloatArray]:
    """x and y of the grid points, ROWS x COLUMNS each."""
    x = (np.arange(COLUMNS, dtype=np.float32) - (COLUMNS - 1) / 2) * SPACING_MM
    y = (np.arange(ROWS, dtype=np.float32) - (ROWS - 1) / 2) * SPACING_MM
    xs, ys = np.meshgrid(x, y)
    return xs.astype(np.float32), ys.astype(np.float32)


def triangles(height_mm: FloatArray) -> NDArray[np.uint32]:
    """The triangles that reach above the background plane, (T, 3), facing up: hidden ones only cost time."""
    above = height_mm > 0
    cells = (above[:-1, :-1] | above[:-1, 1:] | above[1:, :-1] | above[1:, 1:]).ravel()
    return np.ascontiguousarray(_grid_triangles()[np.concatenate([cells, cells])])


@cache
def _grid_triangles() -> NDArray[np.uint32]:
    index = np.arange(ROWS * COLUMNS, dtype=np.uint32).reshape(ROWS, COLUMNS)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    both = [np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)]
    return np.ascontiguousarray(np.concatenate(both))


def vertices(height_mm: FloatArray) -> FloatArray:
    """Grid points as (ROWS * COLUMNS, 3) f4 mm."""
    xs, ys = grid_mm()
    return np.ascontiguousarray(np.stack([xs, ys, height_mm], -1).reshape(-1, 3), dtype=np.float32)


def normals(height_mm: FloatArray) -> FloatArray:
    """Unit surface normals at the grid points, ROWS x COLUMNS x 3."""
    by, bx = np.gradient(height_mm, SPACING_MM)
    length = np.sqrt(bx * bx + by * by + 1)
    return np.stack([-bx / length, -by / length, 1 / length], -1).astype(np.float32)


def sample(field: FloatArray, x_mm: FloatArray, y_mm: FloatArray) -> FloatArray:
    """Bilinear values of a grid field (ROWS x COLUMNS x C) at points (N,): (N, C); outside, the edge's values."""
    column = np.clip(x_mm / SPACING_MM + (COLUMNS - 1) / 2, 0, COLUMNS - 1.001)
    row = np.clip(y_mm / SPACING_MM + (ROWS - 1) / 2, 0, ROWS - 1.001)
    left, top = column.astype(np.int32), row.astype(np.int32)
    right, down = (column - left)[:, None].astype(np.float32), (row - top)[:, None].astype(np.float32)
    flat = field.reshape(ROWS * COLUMNS, -1)
    at = top * COLUMNS + left
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    lower = flat[at + COLUMNS] * (1 - right) + flat[at + COLUMNS + 1] * right
    return np.asarray(upper * (1 - down) + lower * down, dtype=np.float32)


def noise(rng: np.random.Generator, *bands: tuple[float, float], stretch: float = 1.0) -> FloatArray:
    """Smooth random field on the grid: a sum of bands (standard deviation, wavelength mm), stretched along x."""
    white = fft.rfft2(rng.standard_normal((ROWS, COLUMNS), dtype=np.float32))
    fx, fy = _frequencies()
    frequency = np.hypot(fx * stretch, fy)
    spectrum = np.zeros_like(frequency)
    for deviation, wavelength_mm in bands:
        # An octave-wide ring around the wavelength, scaled to the deviation asked for.
        ring = np.exp(-0.5 * (np.log2(np.maximum(frequency, 1e-6) * wavelength_mm) / 0.5) ** 2)
        power = float(np.sqrt((ring**2).sum() * 2) / np.sqrt(ROWS * COLUMNS))
        spectrum += deviation * ring / power
    spectrum[0, 0] = 0
    return np.asarray(fft.irfft2(white * spectrum, s=(ROWS, COLUMNS)), dtype=np.float32)


@cache
def _frequencies() -> tuple[FloatArray, FloatArray]:
    fy, fx = np.meshgrid(np.fft.fftfreq(ROWS, SPACING_MM), np.fft.rfftfreq(COLUMNS, SPACING_MM), indexing="ij")
    return fx.astype(np.float32), fy.astype(np.float32)
