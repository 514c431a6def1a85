"""Which sizes a recipe may have. The same rule when it is calibrated and whenever its bundle is opened.

The largest sizes are those of a frame message (``frame_size_fault``). The smallest are those at which each step of
preprocessing still means what it says; a recipe beyond them would refuse every frame, or leave patches unjudged.
"""

from __future__ import annotations

import math

from asperity.runtime.frame import MAX_PIXELS, frame_size_fault
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.vision.tiles import of_window

MIN_SIDE_PX = 20
"""Of a recipe's frames: twice the border that shows the background, so that its strips do not overlap."""
WINDOW_HEADROOM = 1.1
"""Of the window over the largest part."""
MAX_WINDOW_PX = math.ceil(WINDOW_HEADROOM * math.isqrt(MAX_PIXELS))
"""The window is a square and is held in memory as one: of a frame of 1024 x 16384 it could have 20 times the pixels."""
PUBLISHED_STEP_PX = 100
"""The published form's window is a multiple of this."""


def recipe_frame_fault(height_px: int, width_px: int) -> str:
    """Why no recipe can have frames of this size, with the size; empty: it can."""
    if fault := frame_size_fault(height_px, width_px):
        return fault
    if min(height_px, width_px) < MIN_SIDE_PX:
        return f"{height_px} x {width_px} pixels (height x width); a recipe needs at least {MIN_SIDE_PX} per side"
    return ""


def largest_window_px(height_px: int, width_px: int) -> int:
    """The largest side of a window that calibration gives on frames of this size."""
    longest = max(height_px, width_px)
    return max(math.ceil(WINDOW_HEADROOM * longest), PUBLISHED_STEP_PX * math.ceil(longest / PUBLISHED_STEP_PX))


def fewest_window_px(network: Network) -> int:
    """The smallest side of a window in which every patch of a part is judged.

    A cell that no pixel falls in stays empty where cells are means of their pixels, and a patch with empty cells is not
    scored (docs/decisions/filled-patches.md): of a window of 88 pixels and 112 cells a row, 9 patches in 676 were.
    """
    network = of_window(network)
    of_means = network.cloud_resize == "mean" and network.pooling == "valid_mean"
    return max(network.grid, network.cloud_px) if of_means else network.grid


def geometry_fault(geometry: Geometry, network: Network) -> str:
    """Why no recipe can have these sizes with this network, naming field and value; empty: it can."""
    height_px, width_px, side_px = geometry.height_px, geometry.width_px, geometry.side_px
    if fault := recipe_frame_fault(height_px, width_px):
        return f"geometry.height_px and width_px of {fault}"
    fewest = fewest_window_px(network)
    of = "patches" if fewest == of_window(network).grid else "cells"
    if side_px < fewest:
        return (
            f"geometry.side_px {side_px}: the window around the part has fewer pixels than the {fewest} "
            f"{of} of each row, so that some would never be judged"
        )
    if side_px > (most := min(MAX_WINDOW_PX, max(largest_window_px(height_px, width_px), fewest))):
        return f"geometry.side_px {side_px}, above {most}, the largest window on {height_px} x {width_px} pixels"
    if geometry.min_points > height_px * width_px:
        return f"geometry.min_points {geometry.min_points}, more than the pixels of a frame, {height_px} x {width_px}"
    if not 0 <= geometry.cluster_gap_px <= max(height_px, width_px):
        return f"geometry.cluster_gap_px {geometry.cluster_gap_px}, not between 0 and the frame's longer side"
    return ""
