"""Point feature histograms on the organised grid: how the surface bends around each patch, in three radii.

After FPFH (Rusu 2009), but neighbours are pixels, so there is no tree; each pair of points is looked at once and
counted where it lies; bins are even in x / (|x| + usual), so that they are finest where good parts are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.surface_grid import Surface

RADII = (2, 4, 8)
"""Cells between the two points of a pair."""
BINS = 11
FIGURES = 3
"""Slope from a point's tangent plane to the other, bend of the normals along the pair, twist across it."""
DIMENSION = len(RADII) * FIGURES * BINS
LEAST_USUAL = 1e-4
"""A perfect plane has no usual figure to measure others by."""

Usual = tuple[tuple[float, float, float], ...]


def pair_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns from one point to the other: four directions, each pair once."""
    slant = round(radius / np.sqrt(2.0))
    return (0, radius), (slant, slant), (radius, 0), (slant, -slant)


def pair_figures(surface: Surface, offset: tuple[int, int]) -> tuple[NDArray[np.int64], list[FloatArray]]:
    """All pairs of this offset: flat index of the first point, and (slope there, slope at the other, bend, twist)."""
    side = surface.sloped.shape[0]
    row, column = offset
    first = (slice(0, side - row), slice(max(0, -column), side - max(0, column)))
    other = (slice(row, side), slice(max(0, column), side + min(0, column)))
    both = surface.sloped[first] & surface.sloped[other]
    rows, columns = np.nonzero(both)
    index = (rows * side + columns + max(0, -column)).astype(np.int64)
    step = row * side + column
    points, normals = surface.points.reshape(-1, 3), surface.normals.reshape(-1, 3)
    here, there = normals[index].T, normals[index + step].T
    line = (points[index + step] - points[index]).T
    length = np.sqrt(line[0] * line[0] + line[1] * line[1] + line[2] * line[2])
    line = line / np.maximum(length, np.float32(1e-12))
    slope = line[0] * here[0] + line[1] * here[1] + line[2] * here[2]
    back = line[0] * there[0] + line[1] * there[1] + line[2] * there[2]
    twist = (
        line[0] * (here[1] * there[2] - here[2] * there[1])
        + line[1] * (here[2] * there[0] - here[0] * there[2])
        + line[2] * (here[0] * there[1] - here[1] * there[0])
    )
    return index, [slope, -back, back - slope, twist]


def usual_figures(surfaces: Sequence[Surface]) -> Usual:
    """radii x figures: medians of the figures' magnitudes on good frames."""
    usual: Usual = ()
    for radius in RADII:
        seen: list[list[FloatArray]] = [[], [], []]
        for surface in surfaces:
            for offset in pair_offsets(radius):
                slope, back, bend, twist = pair_figures(surface, offset)[1]
                seen[0] += [np.abs(slope), np.abs(back)]
                seen[1].append(np.abs(bend))
                seen[2].append(np.abs(twist))
        medians = [max(float(np.median(np.concatenate(one))), LEAST_USUAL) for one in seen]
        usual += ((medians[0], medians[1], medians[2]),)
    return usual


def describe(surface: Surface, usual: Usual, grid: int) -> FloatArray:
    """(grid^2, DIMENSION): square roots of each patch's histograms, rows of zeros where there is no pair."""
    side = surface.sloped.shape[0]
    cells = np.arange(side) * grid // side
    patch = (cells[:, None] * grid + cells[None, :]).reshape(-1) * BINS
    size = grid * grid * BINS
    parts: list[Any] = []
    for at, radius in enumerate(RADII):
        counts = [np.zeros(size), np.zeros(size), np.zeros(size)]
        for offset in pair_offsets(radius):
            index, (slope, back, bend, twist) = pair_figures(surface, offset)
            step = offset[0] * side + offset[1]
            middle = patch[index + (offset[0] // 2) * side + int(offset[1] / 2)]
            scale = usual[at]
            counts[0] += np.bincount(patch[index] + _bins(slope, scale[0]), minlength=size)
            counts[0] += np.bincount(patch[index + step] + _bins(back, scale[0]), minlength=size)
            counts[1] += np.bincount(middle + _bins(bend, scale[1]), minlength=size)
            counts[2] += np.bincount(middle + _bins(twist, scale[2]), minlength=size)
        for one in counts:
            table = one.reshape(grid * grid, BINS)
            parts.append(table / np.maximum(table.sum(axis=1, keepdims=True), 1.0))
    described: FloatArray = np.sqrt(np.concatenate(parts, axis=1)).astype(np.float32)
    return described


def _bins(figure: FloatArray, usual: float) -> NDArray[np.int64]:
    squashed = figure / (np.abs(figure) + np.float32(usual))
    return np.asarray((squashed * np.float32(0.4999) + np.float32(0.5)) * np.float32(BINS)).astype(np.int64)
