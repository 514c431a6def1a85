"""The mean part and its spread, from good frames brought into one pose (``runtime.vision.height_residual``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.vision.height_residual import (
    SCALES,
    HeightModel,
    find_pose,
    heights_of,
    residuals,
    scaled,
    warped_back,
)
from asperity.runtime.vision.surface_grid import Surface, SurfaceGrid, box_sums

ROUNDS = 3
"""Times that the mean is taken again in the poses that the last one gave."""
KNOWN_SHARE = 0.8
"""A place is known where at least this share of the good frames shows it."""
SMOOTH = 7
"""Cells of the square that variances are averaged in: of some dozens of frames each place's own is uncertain."""
LEAST_SPREAD_SHARE = 0.5
"""No place counts as quieter than this share of the part's median spread."""
MOST_SPREAD_SHARE = 0.05
"""Where posed good frames differ by more than this share of their relief, they have no common shape..."""
MOST_SPREAD_NOISES = 4.0
"""... if it is more than this many standard deviations of a single point's noise."""


def fit_heights(grids: Sequence[SurfaceGrid], surfaces: Sequence[Surface], noise_mm: float) -> HeightModel:
    """Heights, where they are known, and their spread. Raises CalibrationError where parts are not one like another."""
    frames = [heights_of(surface, grid.up) for grid, surface in zip(grids, surfaces, strict=True)]
    first, present = frames[0]
    model = HeightModel(first, present, np.ones((len(SCALES), *first.shape), np.float32))
    for _ in range(ROUNDS):
        total, count, seen = _gathered(frames, model, 1, power=1)
        # Not where residuals are: those end a cell before the known places do, which would lose another cell a round.
        known = model.known & (seen >= KNOWN_SHARE * len(frames))
        moved = np.where(known, model.heights + total / np.maximum(count, 1), 0.0)
        model = HeightModel(moved.astype(np.float32), known, model.spread)
    if not model.known.any():
        raise CalibrationError(f"the good frames have no place in common; {REMEDY}")
    spread = np.stack([_spread(frames, model, scale) for scale in SCALES])
    typical, relief = float(np.median(spread[0][model.known])), float(model.heights[model.known].std())
    if typical > MOST_SPREAD_NOISES * noise_mm and typical > MOST_SPREAD_SHARE * relief:
        raise CalibrationError(
            f"brought into one pose the good parts still differ by {typical:.2g} mm at most places, as much as "
            f"{typical / max(relief, 1e-9):.0%} of their relief; {REMEDY}"
        )
    return HeightModel(model.heights, model.known, spread)


REMEDY = "heights are for parts that are one like another: calibrate without height among --modalities"


def _gathered(
    frames: Sequence[tuple[FloatArray, BoolArray]], model: HeightModel, scale: int, *, power: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """On the model's grid: the sum of the frames' residuals to a power, how many frames have one at each place, and
    how many show it."""
    total, count, seen = np.zeros((3, *model.heights.shape))
    for heights, present in frames:
        pose = find_pose(heights, present, model)
        left, both, _ = residuals(heights, present, model, pose)
        values, there = warped_back(scaled(left, both, scale), both, pose)
        total += np.where(there, values.astype(np.float64) ** power, 0.0)
        count += there
        seen += warped_back(heights, present, pose)[1]
    return total.astype(np.float32), count.astype(np.float32), seen.astype(np.float32)


def _spread(frames: Sequence[tuple[FloatArray, BoolArray]], model: HeightModel, scale: int) -> FloatArray:
    squares, count, _ = _gathered(frames, model, scale, power=2)
    known = (model.known & (count > 0)).astype(np.float32)
    variance = np.where(known > 0, squares / np.maximum(count, 1), 0.0).astype(np.float32)
    sums = box_sums(np.stack([variance, known]), SMOOTH)
    # At an edge, where parts differ in a line of one cell, the square's mean would be too small by far.
    smooth = np.maximum(sums[0] / np.maximum(sums[1], 1.0), variance)
    typical = float(np.median(np.sqrt(smooth[known > 0]))) if known.any() else 1.0
    least = max(LEAST_SPREAD_SHARE * typical, 1e-6)
    spread: FloatArray = np.sqrt(smooth + np.float32(least**2)).astype(np.float32)
    return spread
