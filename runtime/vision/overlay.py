"""Pictures for people: an anomaly map laid over the frame it belongs to. Nothing is decided from a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.frame import ByteArray, FloatArray, Region

HEAT_STOPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
HEAT_COLOURS = np.array([[20, 20, 120], [0, 140, 200], [240, 220, 60], [240, 110, 20], [200, 0, 30]], dtype=np.float64)
OPACITY = 0.75
REGION_COLOUR = (255, 255, 255)


def heat_overlay(
    rgb: ByteArray, pixels: FloatArray, low: float, high: float, region: Region | None = None
) -> ByteArray:
    """A map (H x W) over its frame (H x W x 3): clear at ``low``, full red at ``high``, the region framed in white."""
    level = np.clip((pixels - low) / max(high - low, 1e-9), 0.0, 1.0).astype(np.float64)
    heat = np.stack([np.interp(level, HEAT_STOPS, HEAT_COLOURS[:, channel]) for channel in range(3)], axis=-1)
    opacity = OPACITY * np.clip(2.0 * level, 0.0, 1.0)[..., None]
    mixed: NDArray[np.uint8] = np.round(rgb * (1.0 - opacity) + heat * opacity).astype(np.uint8)
    if region is not None:
        top, left = max(region.y - 1, 0), max(region.x - 1, 0)
        bottom, right = min(region.y + region.h, rgb.shape[0] - 1), min(region.x + region.w, rgb.shape[1] - 1)
        mixed[[top, bottom], left : right + 1] = REGION_COLOUR
        mixed[top : bottom + 1, [left, right]] = REGION_COLOUR
    return mixed
