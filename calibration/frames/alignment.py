"""Small pictures of parts, laid upon each other: by how much each is turned and shifted against the usual one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from asperity.runtime.frame import BoolArray, FloatArray

UNMOVED_CELLS = 0.15
"""Positions that agree to this are the same: a frame is then compared as it is, not interpolated."""
TURNS = 72
"""First guesses of the turn; a part may lie at any angle."""


@dataclass(frozen=True, slots=True)
class Look:
    """A frame on a small grid: n x n."""

    colour: FloatArray
    height: FloatArray
    part: BoolArray


def laid_upon_each_other(looks: Sequence[Look]) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray]:
    """Colours, heights and parts, each n x grid x grid, moved to one position; by how many cells each was moved."""
    side = len(looks[0].colour)
    places = _turned(looks)
    usual, around = looks[0].colour, ndimage.binary_dilation(looks[0].part, iterations=3)
    for blurs in ((3.0, 1.2), (1.2,)):
        for blur in blurs:
            fit = _Fit(ndimage.gaussian_filter(usual, blur), around)
            places = [
                fit.place(ndimage.gaussian_filter(look.colour, blur), place)
                for look, place in zip(looks, places, strict=True)
            ]
        colours = np.stack([_moved(look.colour, place) for look, place in zip(looks, places, strict=True)])
        usual = np.median(colours, axis=0)
    heights = np.stack([_moved(look.height, place) for look, place in zip(looks, places, strict=True)])
    parts = np.stack(
        [_moved(look.part.astype(np.float32), place, order=1) > 0.9 for look, place in zip(looks, places, strict=True)]
    )
    return colours, heights, parts, np.array([_by_cells(place, side) for place in places], dtype=np.float32)


_Place = tuple[float, float, float]
"""Turn, and shift down and across: cell c of the usual frame is cell turn(c) + shift of this one."""


def _by_cells(place: _Place, side: int) -> float:
    return max(abs(place[0]) * side / 2, abs(place[1]), abs(place[2]))


def _moved(field: FloatArray, place: _Place, order: int = 3) -> FloatArray:
    """The field where the usual frame has it; untouched when it lies there already."""
    side = len(field)
    if _by_cells(place, side) <= UNMOVED_CELLS:
        return field
    turn, middle = _turn(place[0]), np.full(2, (side - 1) / 2)
    offset = middle - turn @ middle + place[1:]
    return np.asarray(ndimage.affine_transform(field, turn, offset=offset, order=order), dtype=np.float32)


def _turn(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


class _Fit:
    """Finds where a frame lies, by least squares against the usual one (Lucas-Kanade), brightness left free."""

    def __init__(self, usual: FloatArray, around: BoolArray) -> None:
        side = len(usual)
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        down, across = (np.asarray(one, dtype=np.float32) for one in np.gradient(usual))
        known = (down, across, across * y - down * x, usual, np.ones_like(usual))
        self.usual, self.around = usual, around
        self.inverse = np.linalg.pinv(np.stack([one[around] for one in known], axis=1))

    def place(self, field: FloatArray, start: _Place, steps: int = 5) -> _Place:
        """The better place; ``start`` when the steps lead away, or nothing is there to fit."""
        if not self.around.any():
            return start
        side = len(field)
        angle, down, across = start
        for _ in range(steps):
            step = self.inverse @ self._rest(field, (angle, down, across))
            shift = _turn(angle) @ step[:2]
            angle, down, across = angle - float(step[2]), down - float(shift[0]), across - float(shift[1])
            if _by_cells((float(step[2]), float(step[0]), float(step[1])), side) < 0.02:
                break
        found = (angle, down, across)
        lost = max(abs(down), abs(across)) > side / 4
        return start if lost or self._error(field, found) > self._error(field, start) else found

    def _rest(self, field: FloatArray, place: _Place) -> FloatArray:
        side = len(field)
        turn, middle = _turn(place[0]), np.full(2, (side - 1) / 2)
        moved = ndimage.affine_transform(field, turn, offset=middle - turn @ middle + place[1:], order=1)
        return np.asarray((moved - self.usual)[self.around], dtype=np.float32)

    def _error(self, field: FloatArray, place: _Place) -> float:
        return float(np.square(self._rest(field, place)).mean())


def _turned(looks: Sequence[Look]) -> list[_Place]:
    """A first turn of each frame against the first one, by comparison with all turns of it on a coarse grid."""
    small = [ndimage.zoom(ndimage.gaussian_filter(look.colour, 2.0), 0.25, order=1) for look in looks]
    angles = np.arange(TURNS) * (2 * np.pi / TURNS)
    angles = np.where(angles > np.pi, angles - 2 * np.pi, angles)
    turns = [_moved(small[0], (-float(angle), 0.0, 0.0), order=1).ravel() for angle in angles]
    likeness = _directed(np.stack([one.ravel() for one in small])) @ _directed(np.stack(turns)).T
    best = likeness.argmax(axis=1)
    # A round part looks the same at every turn: one that is not clearly better was not made.
    better = 1 - likeness[np.arange(len(looks)), best] < 0.5 * (1 - likeness[:, 0])
    return [(float(angles[turn]) if clear else 0.0, 0.0, 0.0) for turn, clear in zip(best, better, strict=True)]


def _directed(rows: FloatArray) -> FloatArray:
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), dtype=np.float32)
