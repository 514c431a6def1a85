"""Small parts on an organised grid, as a ray camera and as a profiler see them."""

from __future__ import annotations

import numpy as np

from asperity.runtime.vision.surface_grid import SurfaceGrid

SIDE, CELL_MM, DISTANCE_MM = 30, 0.4, 300.0


def part(seed: int, *, height_map: bool = False, step_mm: float = 0.0, noise_mm: float = 0.02) -> SurfaceGrid:
    """A tilted, bent plate with lost points and, where asked, a step far higher than a slope may be."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    x, y = (columns - SIDE / 2) * CELL_MM, (rows - SIDE / 2) * CELL_MM
    heights = 0.1 * x - 0.05 * y + 0.03 * x * x + np.where(columns > 17, step_mm, 0.0)
    heights += rng.normal(0.0, noise_mm, heights.shape)
    if height_map:
        points = np.stack([x, y, heights], axis=2)
    else:
        depth = DISTANCE_MM - heights
        points = np.stack([x / DISTANCE_MM * depth, y / DISTANCE_MM * depth, depth], axis=2)
    filled = np.hypot(rows - SIDE / 2, columns - SIDE / 2) < 0.45 * SIDE
    valid = filled & (rng.random(filled.shape) > 0.05)
    points[~valid] = 0.0
    up = np.array([0.0, 0.0, 1.0 if height_map else -1.0], np.float32)
    return SurfaceGrid(points.astype(np.float32), valid, filled, CELL_MM, up)
