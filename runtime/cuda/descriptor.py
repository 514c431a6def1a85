"""Histograms of the part's surface on the device: the modality ``descriptor``, up to its search.

The CPU counterpart is ``vision.grid_descriptor``; kernel ``descriptor.cu``.
"""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.launch import Buffer, Launch
from asperity.runtime.cuda.surface import BLOCK, Surface
from asperity.runtime.errors import EngineError
from asperity.runtime.manifest import GridDescriptor
from asperity.runtime.vision.grid_descriptor import DIMENSION, FIGURES, RADII, pair_offsets


class SurfaceHistograms:
    """``features`` grid^2 x 99 f4."""

    def __init__(self, surface: Surface, chosen: GridDescriptor, grid: int) -> None:
        """Raises EngineError for constants that are none of histograms."""
        steps = np.array([pair_offsets(radius) for radius in RADII], dtype=np.int32)
        usual = np.array(chosen.usual, dtype=np.float32)
        if usual.shape != (len(RADII), FIGURES) or not (np.isfinite(usual) & (usual > 0)).all():
            raise EngineError(f"network.descriptor.usual {chosen.usual} is not 3 x 3 numbers above 0; calibrate again")
        device = surface.grid.pre.device
        self.surface, self.grid = surface, grid
        self._steps, self._usual = device.upload(steps), device.upload(usual)
        self.features = device.alloc(4 * DIMENSION * grid**2)

    def enqueue(self, fault: Buffer) -> None:
        """Of whatever the surface holds."""
        surface = self.surface
        surface.grid.pre.device.launch(
            Launch("surface_histograms", (self.grid**2, 1, 1), (BLOCK, 1, 1)),
            surface.means, surface.normals, surface.towards, np.int32(surface.blocks), np.int32(surface.size),
            np.int32(self.grid), self._steps, self._usual, self.features, fault,
        )  # fmt: skip
