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
ANGLES = (np.arange(TURNS) * (2 * np.pi / TURNS) + np.pi) % (2 * np.pi) - np.pi
"""First guesses of the turn; a part may lie at any angle."""
ROUND = 0.95
"""Correlation with itself, turned, from which a part is round: where it lay cannot be said."""
PEAKS = 3
"""So many of them are looked at closely, besides none."""


@dataclass(frozen=True, slots=True)
class Look:
    """A frame on a small grid: n x n."""

    colour: FloatArray
    height: FloatArray
    part: BoolArray
    """With its holes."""
    measured: BoolArray
    """Where there are points of it: what is between them in a hole is made up, and another in each frame."""


def laid_upon_each_other(looks: Sequence[Look]) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray]:
    """Colours, heights and where both were measured, each n x grid x grid, moved to one position; by how many cells
    each was moved."""
    side = len(looks[0].colour)
    usual, around = looks[0].colour, ndimage.binary_dilation(looks[0].part, iterations=3)
    starts = _turned(looks)
    for blurs in ((3.0, 1.2), (1.2,)):
        fits = [_Fit(usual, around, blur) for blur in blurs]
        places = [_best(fits, look.colour, start) for look, start in zip(looks, starts, strict=True)]
        colours = np.stack([_moved(look.colour, place) for look, place in zip(looks, places, strict=True)])
        usual, starts = np.median(colours, axis=0), [[place] for place in places]
    heights = np.stack([_moved(look.height, place) for look, place in zip(looks, places, strict=True)])
    there = [look.measured.astype(np.float32) for look in looks]
    shares = [_moved(one, place, order=1) for one, place in zip(there, places, strict=True)]
    measured = np.stack(shares) > 0.9
    return colours, heights, measured, np.array([_by_cells(place, side) for place in places], dtype=np.float32)


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

    def __init__(self, usual: FloatArray, around: BoolArray, blur: float) -> None:
        side, usual = len(usual), ndimage.gaussian_filter(usual, blur)
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        down, across = (np.asarray(one, dtype=np.float32) for one in np.gradient(usual))
        known = (down, across, across * y - down * x, usual, np.ones_like(usual))
        self.usual, self.around, self.blur = usual, around, blur
        self.inverse = np.linalg.pinv(np.stack([one[around] for one in known], axis=1))

    def place(self, field: FloatArray, start: _Place, steps: int = 5) -> tuple[_Place, float]:
        """The better place, and what is left there; ``start`` when the steps lead away, or nothing is there to fit."""
        if not self.around.any():
            return start, math.nan
        side = len(field)
        angle, down, across = start
        rest = self._rest(field, start)
        left_at_start = _mean_square(rest)
        for number in range(steps):
            step = self.inverse @ (rest if number == 0 else self._rest(field, (angle, down, across)))
            shift = _turn(angle) @ step[:2]
            angle, down, across = angle - float(step[2]), down - float(shift[0]), across - float(shift[1])
            if _by_cells((float(step[2]), float(step[0]), float(step[1])), side) < 0.02:
                break
        found = (angle, down, across)
        if max(abs(down), abs(across)) > side / 4:
            return start, left_at_start
        left = _mean_square(self._rest(field, found))
        return (start, left_at_start) if left > left_at_start else (found, left)

    def _rest(self, field: FloatArray, place: _Place) -> FloatArray:
        side = len(field)
        turn, middle = _turn(place[0]), np.full(2, (side - 1) / 2)
        moved = ndimage.affine_transform(field, turn, offset=middle - turn @ middle + place[1:], order=1)
        return np.asarray((moved - self.usual)[self.around], dtype=np.float32)


def _mean_square(rest: FloatArray) -> float:
    return float(np.square(rest).mean())


def _best(fits: Sequence[_Fit], colour: FloatArray, starts: Sequence[_Place]) -> _Place:
    """Where the frame lies by the last of these fits, from whichever start it fits best."""
    fields = [ndimage.gaussian_filter(colour, fit.blur) for fit in fits]

    def placed(place: _Place) -> tuple[_Place, float]:
        left = math.nan
        for fit, field in zip(fits, fields, strict=True):
            place, left = fit.place(field, place)
        return place, left

    return min((placed(start) for start in starts), key=lambda found: found[1])[0]


def round_part(look: Look) -> bool:
    """Whether this part looks nearly the same at every turn."""
    small, turns = _at_all_turns(look)
    return float(np.median(_directed(turns) @ _directed(small[None])[0])) >= ROUND


def _turned(looks: Sequence[Look]) -> list[list[_Place]]:
    """First turns of each frame against the first one: none, and those that are most like it on a coarse grid.

    A part that is nearly the same at several turns lies at any of them, which only a closer look can say.
    """
    _, turns = _at_all_turns(looks[0])
    # What is round tells no turn.
    rounded = turns.mean(axis=0)
    likeness = _directed(np.stack([_small(look) for look in looks]) - rounded) @ _directed(turns - rounded).T
    peaks = (likeness > np.roll(likeness, 1, axis=1)) & (likeness >= np.roll(likeness, -1, axis=1))
    peaks[:, 0] = False
    best = np.argsort(np.where(peaks, -likeness, np.inf), axis=1)[:, :PEAKS]
    return [
        [(0.0, 0.0, 0.0), *((float(ANGLES[turn]), 0.0, 0.0) for turn in chosen if there[turn])]
        for chosen, there in zip(best, peaks, strict=True)
    ]


def _at_all_turns(look: Look) -> tuple[FloatArray, FloatArray]:
    """The frame on a coarse grid, as a row, and so at each of ``ANGLES``."""
    small = _small(look)
    side = math.isqrt(len(small))
    moved = [_moved(small.reshape(side, side), (-float(angle), 0.0, 0.0), order=1).ravel() for angle in ANGLES]
    return small, np.stack(moved)


def _small(look: Look) -> FloatArray:
    zoomed = ndimage.zoom(ndimage.gaussian_filter(look.colour, 2.0), 0.25, order=1)
    return np.asarray(zoomed.ravel(), dtype=np.float32)


def _directed(rows: FloatArray) -> FloatArray:
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), dtype=np.float32)
