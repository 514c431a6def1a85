"""Point feature histograms on the organised grid: how the surface bends around each patch, in three radii.

After FPFH (Rusu 2009), but neighbours are pixels, so there is no tree; each pair of points is looked at once and
counted where it lies; bins are even in x / (|x| + usual), so that they are finest where good parts are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
AT_ONCE = 8000
"""Pairs looked at together: their figures fit into the processor's second cache."""
LEAST_USUAL = 1e-4
"""A perfect plane has no usual figure to measure others by."""

Usual = tuple[tuple[float, float, float], ...]


def pair_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns from one point to the other: four directions, each pair once."""
    slant = round(radius / np.sqrt(2.0))
    return (0, radius), (slant, slant), (radius, 0), (slant, -slant)


@dataclass(frozen=True, slots=True)
class Lattice:
    """Every cell of the surface's box, or every second one in a chequered pattern, in one long row.

    A step from any cell to another is one number, so that pairs are arrays, shifted. Room after each row of cells, and
    below the last, keeps a step beyond them from reaching another row's: what lies there is absent.
    """

    step: int
    """1: all cells. 2: the pattern's in even rows, then those in odd ones, then the first again, which steps by an odd
    number of rows lead to."""
    pitch: int
    block: int
    """Between a cell in an even row and the one below it to the right."""
    firsts: int
    """Cells that a pair may start from."""
    points: FloatArray  # 3 x N, mm
    normals: FloatArray  # 3 x N; 0 where absent
    absent: NDArray[np.int32]
    """N: 0, or more than all patches' codes where there is no normal."""
    patch: NDArray[np.int32]
    """N: the first code of the patch that the cell lies in."""

    def ahead(self, row: int, column: int) -> int:
        """How far a step leads."""
        odd = row % self.step
        return odd * self.block + (row - odd) // self.step * self.pitch + (column - odd) // self.step


def lattice_of(surface: Surface, grid: int, step: int) -> Lattice:
    """The surface's cells with the codes of a grid of patches."""
    height, width = (-(-cells // step) for cells in surface.sloped.shape)
    pitch, beyond = width + RADII[-1] // step, grid * grid * BINS
    block = (height + RADII[-1] // step + 2) * pitch
    starts = (0,) if step == 1 else (0, block, 2 * block - pitch - 1)
    cells = height * pitch
    vectors = np.zeros((6, starts[-1] + cells), np.float32)
    absent, patch = np.full((2, vectors.shape[1]), beyond, np.int32)
    for index, start in enumerate(starts):
        odd, place = index % 2, slice(start, start + cells)
        sloped = surface.sloped[odd::step, odd::step]
        own = np.s_[..., : sloped.shape[0], : sloped.shape[1]]
        vectors[:3, place].reshape(3, height, pitch)[own] = surface.points[:, odd::step, odd::step]
        vectors[3:, place].reshape(3, height, pitch)[own] = surface.normals[:, odd::step, odd::step]
        absent[place].reshape(height, pitch)[own] *= ~sloped
        rows, columns = (
            np.minimum((first + odd + step * np.arange(count)) * grid // surface.side, grid - 1).astype(np.int32)
            for first, count in ((surface.top, height), (surface.left, pitch))
        )
        np.add((rows * (grid * BINS))[:, None], columns * BINS, out=patch[place].reshape(height, pitch))
    return Lattice(step, pitch, block, starts[-1] or cells, vectors[:3], vectors[3:], absent, patch)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of points some cells apart, and what the surface does between them; absent ones too."""

    length: FloatArray
    """N, mm between the points."""
    figures: FloatArray
    """4 x N, times the length. Slope of the line between the points against the surface at the first and, looked at
    the other way, at the other; bend: how the normals open along the line, above 0 on a hill; twist: how they turn
    across it."""
    codes: NDArray[np.int32]
    """4 x N: what a figure's bin is added to, more than all patches' where the pair is absent."""


def pairs_of(lattice: Lattice, radius: int) -> Iterator[Pairs]:
    """All pairs of this radius, some at a time."""
    for row, column in pair_offsets(radius):
        ahead, half = lattice.ahead(row, column), lattice.ahead(row // 2, int(column / 2))
        end = min(lattice.firsts, lattice.patch.size - max(ahead, half))
        for start in range(max(0, -half), end, AT_ONCE):
            stop = min(start + AT_ONCE, end)
            here, there = slice(start, stop), slice(start + ahead, stop + ahead)
            length, figures = _figures(lattice, here, there)
            absent = np.maximum(lattice.absent[here], lattice.absent[there])
            codes = np.empty((4, stop - start), np.int32)
            np.maximum(absent, lattice.patch[here], out=codes[0])
            np.maximum(absent, lattice.patch[there], out=codes[1])
            np.maximum(absent, lattice.patch[start + half : stop + half], out=codes[2])
            codes[3] = codes[2]
            yield Pairs(length, figures, codes)


def _figures(lattice: Lattice, here: slice, there: slice) -> tuple[FloatArray, FloatArray]:
    line = lattice.points[:, there] - lattice.points[:, here]
    near, far = lattice.normals[:, here], lattice.normals[:, there]
    figures = np.empty((4, line.shape[1]), np.float32)
    slope, back, bend, twist = figures
    slope[...] = _sum(line * near)
    ahead = _sum(line * far)
    np.negative(ahead, out=back)
    np.subtract(ahead, slope, out=bend)
    twist[...] = line[0] * (near[1] * far[2] - near[2] * far[1])
    twist += line[1] * (near[2] * far[0] - near[0] * far[2])
    twist += line[2] * (near[0] * far[1] - near[1] * far[0])
    line *= line
    return np.maximum(np.sqrt(_sum(line)), np.float32(1e-12)), figures


def usual_figures(surfaces: Sequence[Surface]) -> Usual:
    """radii x figures: medians of the figures' magnitudes on good frames."""
    usual: Usual = ()
    for radius in RADII:
        found: tuple[list[FloatArray], ...] = ([], [], [])
        for surface in surfaces:
            for pairs in pairs_of(lattice_of(surface, 1, _step(radius)), radius):
                there = pairs.codes[0] == 0
                for into, figure in zip((0, 0, 1, 2), np.abs(pairs.figures / pairs.length), strict=True):
                    found[into].append(figure[there])
        slope, bend, twist = (max(float(np.median(np.concatenate(one))), LEAST_USUAL) for one in found)
        usual += ((slope, bend, twist),)
    return usual


def describe(surface: Surface, usual: Usual, grid: int) -> FloatArray:
    """(grid^2, DIMENSION): square roots of each patch's histograms, rows of zeros where there is no pair."""
    patches = (grid * grid + 1) * BINS  # the last one is for what is absent
    lattices = {step: lattice_of(surface, grid, step) for step in (1, 2)}
    tables = np.zeros((len(RADII), FIGURES * patches), np.int64)
    for index, (radius, (slope, bend, twist)) in enumerate(zip(RADII, usual, strict=True)):
        common = np.array([[slope], [slope], [bend], [twist]], np.float32)
        for pairs in pairs_of(lattices[_step(radius)], radius):
            shares, spread = pairs.figures, np.abs(pairs.figures)
            spread += common * pairs.length
            shares /= spread
            shares *= np.float32(0.4999 * BINS)
            shares += np.float32(0.5 * BINS)
            codes = shares.astype(np.int32)
            codes += pairs.codes
            codes[2] += patches
            codes[3] += 2 * patches
            tables[index] += np.bincount(codes.ravel(), minlength=FIGURES * patches)
    counts = tables.reshape(len(RADII) * FIGURES, -1, BINS)[:, :-1].transpose(1, 0, 2).astype(np.float32, order="C")
    counts /= np.maximum(counts @ np.ones((BINS, 1), np.float32), np.float32(1.0))
    return np.sqrt(counts, out=counts).reshape(grid * grid, DIMENSION)


def _step(radius: int) -> int:
    """Of the larger radii every second cell is taken, in a chequered pattern."""
    return 1 if radius == RADII[0] else 2


def _sum(products: FloatArray) -> FloatArray:
    """Of the three rows, in this order."""
    total: FloatArray = products[0] + products[1] + products[2]
    return total
