"""The trivial control: heights above the frame's own plane, against their mean and spread over the normal frames.

No network and no bank. A method that finds only what this finds has shown nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import uniform_filter

from asperity.benchmarks.accuracy.rival import Seen
from asperity.runtime.frame import FloatArray
from asperity.runtime.manifest import Network
from asperity.runtime.vision.maps import pixel_map

TOP = 0.01
SMOOTH_CELLS = 3


class HeightResidual:
    """See above."""

    def __init__(self, network: Network, mm_per_px: float, seed: int) -> None:
        self.network = network

    def fit(self, frames: Sequence[Seen], unseen: Sequence[Seen]) -> None:
        """Mean and spread of each cell; a cell that is rarely seen has the spread of all."""
        heights = np.stack([self._heights(frame) for frame in frames])
        seen = np.isfinite(heights)
        count = np.maximum(seen.sum(axis=0), 1)
        self.mean = np.where(seen, heights, 0).sum(axis=0) / count
        off = np.where(seen, heights - self.mean, 0)
        usual = float(np.sqrt((off**2).sum() / seen.sum()))
        self.spread = np.sqrt(((off**2).sum(axis=0) + 3 * usual**2) / (seen.sum(axis=0) + 3))

    def judge(self, frame: Seen) -> tuple[float, FloatArray]:
        """Score and map (224 x 224, of the window)."""
        off = np.nan_to_num(np.abs(self._heights(frame) - self.mean) / self.spread)
        size = off.shape[0] // self.network.grid
        patches = off.reshape(self.network.grid, size, self.network.grid, size).mean(axis=(1, 3))
        pixels = pixel_map(patches.astype(np.float32))
        inside = np.sort(pixels[pixel_map(frame.cells.astype(np.float32)) > 0.5])
        return float(inside[-max(1, round(TOP * inside.size)) :].mean()), pixels

    def _heights(self, frame: Seen) -> FloatArray:
        """Of the cells above a plane through them, refitted without the farthest tenth; NaN where empty."""
        cloud = frame.prepared.cloud.astype(np.float64)
        there = (cloud != 0).any(axis=-1)
        x, y, z = cloud[there].T
        table = np.stack([x, y, np.ones_like(x)], axis=1)
        keep = np.ones(len(z), bool)
        for _ in range(3):
            plane = np.linalg.lstsq(table[keep], z[keep], rcond=None)[0]
            off = np.abs(z - table @ plane)
            keep = off <= np.quantile(off, 0.9)
        heights = np.zeros(there.shape)
        heights[there] = z - table @ plane
        share = uniform_filter(there.astype(np.float64), SMOOTH_CELLS)
        smooth = uniform_filter(heights, SMOOTH_CELLS) / np.maximum(share, 1e-9)
        return np.asarray(np.where(there, smooth, np.nan))
