"""Outlines as signed distances on the part's grid, and the walls between two surfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import FloatArray

Floats = NDArray[np.floating[Any]]

WALL_MM = 0.5
"""Horizontal run of a wall: walls of a height field cannot be quite vertical."""


def rounded_box(x: FloatArray, y: FloatArray, half_x: float, half_y: float, radius: float) -> FloatArray:
    """Signed distance to a rectangle with rounded corners, mm; negative inside."""
    dx, dy = np.abs(x) - (half_x - radius), np.abs(y) - (half_y - radius)
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0) - radius, dtype=np.float32)


def disc(x: FloatArray, y: FloatArray, radius: float) -> FloatArray:
    """Signed distance to a disc, mm; negative inside."""
    return np.asarray(np.hypot(x, y) - radius, dtype=np.float32)


def blend(outside: Floats, inside: Floats | float, distance: Floats) -> FloatArray:
    """``inside`` where the signed distance is negative, ``outside`` elsewhere, joined by a wall."""
    share = np.clip(0.5 - distance / WALL_MM, 0, 1)
    return np.asarray(outside + (inside - outside) * share, dtype=np.float32)
