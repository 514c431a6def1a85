"""The part's surface as a picture on the device: the modality ``geometry``, up to its network's input.

The CPU counterparts are ``vision.preprocess.surface_grid``, ``vision.surface_grid`` and ``vision.surface_picture``.
Kernels: ``surface.cu``, and of ``window.cu`` those that average points and resize pictures.
"""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.launch import Argument, Buffer, Launch
from asperity.runtime.cuda.preprocess import FIGURES, Preprocess
from asperity.runtime.cuda.tables import resize_table
from asperity.runtime.errors import EngineError
from asperity.runtime.vision.surface_grid import LEAST_MEMBERS, LEVEL_CELLS, TANGENT_STEP, blocks
from asperity.runtime.vision.surface_picture import around_width

BLOCK = 256


class SurfaceImage:
    """Buffers: ``levels`` S x S x 3 u1, ``image`` I x I x 3 u1 and ``network_image`` 3 x I x I f4."""

    def __init__(self, pre: Preprocess) -> None:
        """``pre`` has the frame. Raises EngineError where kernels cannot make this bundle's picture."""
        geometry, network, device = pre.geometry, pre.network, pre.device
        chosen = network.picture
        if chosen is None or chosen.kind not in ("normals", "relief"):
            raise EngineError("the bundle does not say how its surface is pictured; calibrate again with this version")
        if geometry.plane is None:
            raise EngineError(
                "the cuda engine pictures surfaces above a plane only, and this bundle has none; use the cpu engine, "
                "or calibrate with --geometry plane or --modalities rgb,points"
            )
        self.pre, self._chosen, self._relief = pre, chosen, chosen.kind == "relief"
        self.block, self.size = blocks(geometry.side_px)
        self._cell_mm = self.block * geometry.mm_per_px
        cells, image_px = self.size**2, network.image_px
        self._blocks = -(cells // -BLOCK)
        self._cells, self._centre = device.alloc(12 * cells), device.alloc(16)
        self._sums, self._ends = device.alloc(16 * cells), device.alloc(8 * cells)
        self.means, self.normals = device.alloc(16 * cells), device.alloc(16 * cells)
        self._towards = device.alloc(8 * self._blocks)
        self._moments: Argument = device.alloc(40 * cells) if self._relief else np.uint64(0)
        self.levels, self._rows = device.alloc(3 * cells), device.alloc(3 * self.size * image_px)
        self.image, self.network_image = device.alloc(3 * image_px**2), device.alloc(12 * image_px**2)
        first, weights = resize_table(self.size, image_px)
        self._table = (np.int32(image_px), device.upload(first), device.upload(weights), np.int32(weights.shape[1]))
        # The levels are resized as a frame that the window covers.
        whole = np.zeros(FIGURES, dtype=np.int32)
        whole[[0, 3, 5]] = 1, self.size - 1, self.size - 1
        self._whole, self._everywhere = device.upload(whole), device.upload(np.ones(cells, dtype=np.uint8))
        self._corner = device.alloc(8)

    def enqueue(self, fault: Buffer) -> None:
        """The picture of whatever part and points ``pre`` holds."""
        pre, geometry, chosen, size = self.pre, self.pre.geometry, self._chosen, np.int32(self.size)
        cells, width, cell_mm = self.size**2, chosen.width, self._cell_mm
        plane = geometry.plane
        assert plane is not None
        up = tuple(np.float32(axis) for axis in plane.normal)
        frame = (np.int32(pre.height), np.int32(pre.width), pre.figures, np.int32(geometry.side_px))
        self._launch(
            "cloud_means", cells, pre.points, pre.part, *frame, size, np.int32(self.size * self.block),
            np.float64(LEVEL_CELLS * cell_mm), self._cells, threads=128,
        )  # fmt: skip
        pre.device.launch(Launch("surface_centre", (1, 1, 1), (1024, 1, 1)), self._cells, size, self._centre)
        box = (size, np.int32(width))
        self._launch("surface_columns", cells, self._cells, self._centre, *box, self._sums, self._ends)
        self._launch(
            "surface_means", cells, self._cells, self._centre, self._sums, self._ends, pre.filled, *frame,
            np.int32(self.block), *box, np.float32(LEAST_MEMBERS * width * width),
            np.float32(LEVEL_CELLS * width * cell_mm), self.means, fault,
        )  # fmt: skip
        limit_mm = np.float32(LEVEL_CELLS * TANGENT_STEP * cell_mm)
        self._launch("surface_normals", cells, self.means, size, limit_mm, *up, self.normals, self._towards)
        around = (size, np.int32(around_width(self.size)))
        if self._relief:
            self._launch("surface_moments", cells, self.means, self._centre, *around, *up, self._moments)
        constants = (np.float32(value) for value in (*chosen.centre, *chosen.scale))
        self._launch(
            "surface_levels", cells, self.means, self.normals, self._towards, np.int32(self._blocks), self._moments,
            self._centre, *around, np.int32(self._relief), *up, *constants, self.levels, fault,
        )  # fmt: skip
        image_px = pre.network.image_px
        self._launch(
            "resize_rows", self.size * image_px, self.levels, self._everywhere, size, size, self._whole, size,
            *self._table, self._rows, self._corner, fault,
        )  # fmt: skip
        self._launch(
            "resize_columns", image_px**2, self._rows, size, *self._table, *pre.normalisation, self.image,
            self.network_image,
        )  # fmt: skip

    def _launch(self, kernel: str, count: int, *arguments: Argument, threads: int = BLOCK) -> None:
        self.pre.device.launch(Launch(kernel, (-(count // -threads), 1, 1), (threads, 1, 1)), *arguments)
