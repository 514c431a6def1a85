"""Point feature histograms on the organised grid: how the surface bends around each patch, in three radii.

After FPFH (Rusu 2009), but neighbours are pixels, so there is no tree; each pair of points is looked at once and
counted where it lies; bins are even in x / (|x| + usual), so that they are finest where good parts are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of points some cells apart, and what the surface does between them."""

    first: NDArray[np.int64]
    """Flat cell of one point..."""
    step: NDArray[np.int64]
    """... and how far the other is from it..."""
    half: NDArray[np.int64]
    """... and the cell between them."""
    slope: FloatArray
    """Of the line between the points against the surface at the first point."""
    back: FloatArray
    """The same from the other point."""
    bend: FloatArray
    """How the normals open along the line: above 0 where the surface is a hill."""
    twist: FloatArray
    """How they turn across it."""


def pairs_of(surface: Surface, radius: int) -> Pairs:
    """All pairs of this radius; of the larger radii every second one, in a chequered pattern."""
    side = surface.sloped.shape[0]
    found = []
    for row, column in pair_offsets(radius):
        left, right = max(0, -column), side - max(0, column)
        first, other = surface.sloped[: side - row, left:right], surface.sloped[row:, left + column : right + column]
        cells = np.flatnonzero(np.pad(first & other, ((0, row), (left, side - right))).ravel())
        if radius > RADII[0]:
            cells = cells[(cells // side + cells % side) % 2 == 0]
        step = row * side + column
        found.append((cells, np.full_like(cells, step), np.full_like(cells, (row // 2) * side + int(column / 2))))
    index, step, half = (np.concatenate(one) for one in zip(*found, strict=True))
    points, normals = _flat(surface.points), _flat(surface.normals)
    there = index + step
    line = points.take(there, axis=1) - points.take(index, axis=1)
    line *= np.float32(1.0) / np.maximum(np.sqrt(_dot(line, line)), np.float32(1e-12))
    near, far = normals.take(index, axis=1), normals.take(there, axis=1)
    slope, ahead = _dot(line, near), _dot(line, far)
    twist = (
        line[0] * (near[1] * far[2] - near[2] * far[1])
        + line[1] * (near[2] * far[0] - near[0] * far[2])
        + line[2] * (near[0] * far[1] - near[1] * far[0])
    )
    return Pairs(index, step, half, slope, -ahead, ahead - slope, twist)


def usual_figures(surfaces: Sequence[Surface]) -> Usual:
    """radii x figures: medians of the figures' magnitudes on good frames."""
    usual: Usual = ()
    for radius in RADII:
        found = [pairs_of(surface, radius) for surface in surfaces]
        slope, bend, twist = (
            max(float(np.median(np.abs(np.concatenate(values)))), LEAST_USUAL)
            for values in (
                [side for one in found for side in (one.slope, one.back)],
                [one.bend for one in found],
                [one.twist for one in found],
            )
        )
        usual += ((slope, bend, twist),)
    return usual


def describe(surface: Surface, usual: Usual, grid: int) -> FloatArray:
    """(grid^2, DIMENSION): square roots of each patch's histograms, rows of zeros where there is no pair."""
    side = surface.sloped.shape[0]
    cells = np.arange(side) * grid // side
    patch = (cells[:, None] * grid + cells[None, :]).ravel() * BINS
    size = grid * grid * BINS
    parts: list[NDArray[np.float64]] = []
    for radius, (slope, bend, twist) in zip(RADII, usual, strict=True):
        pairs = pairs_of(surface, radius)
        first, other = patch.take(pairs.first), patch.take(pairs.first + pairs.step)
        between = patch.take(pairs.first + pairs.half)
        for members in (
            np.concatenate([first + _bins(pairs.slope, slope), other + _bins(pairs.back, slope)]),
            between + _bins(pairs.bend, bend),
            between + _bins(pairs.twist, twist),
        ):
            table = np.bincount(members, minlength=size).reshape(grid * grid, BINS)
            parts.append(table / np.maximum(table.sum(axis=1, keepdims=True), 1))
    described: FloatArray = np.sqrt(np.concatenate(parts, axis=1)).astype(np.float32)
    return described


def _flat(vectors: FloatArray) -> FloatArray:
    """S x S x 3 as 3 x S^2."""
    return np.ascontiguousarray(vectors.reshape(-1, 3).T)


def _dot(one: FloatArray, other: FloatArray) -> FloatArray:
    """Of vectors 3 x N, in this order, so that equal vectors give equal numbers."""
    product: FloatArray = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


def _bins(figure: FloatArray, usual: float) -> NDArray[np.int64]:
    squashed = figure / (np.abs(figure) + np.float32(usual))
    return np.asarray((squashed * np.float32(0.4999) + np.float32(0.5)) * np.float32(BINS)).astype(np.int64)
