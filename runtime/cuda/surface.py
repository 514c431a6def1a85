"""The part's surface on the device, and its picture: the modality ``geometry``, up to its network's input.

The CPU counterparts are ``vision.preprocess.surface_grid``, ``vision.surface_grid`` and ``vision.surface_picture``.
Kernels: ``surface.cu``, and of ``window.cu`` those that average points and resize pictures.
"""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.launch import Argument, Buffer, Launch
from asperity.runtime.cuda.preprocess import FIGURES, Preprocess
from asperity.runtime.cuda.tables import resize_table
from asperity.runtime.errors import EngineError
from asperity.runtime.manifest import SurfacePicture
from asperity.runtime.vision.surface_grid import LEAST_MEMBERS, LEVEL_CELLS, TANGENT_STEP, blocks
from asperity.runtime.vision.surface_picture import around_width

BLOCK = 256


class SurfacePoints:
    """The window's points on the surface's grid: ``cells`` S x S x 3 f4 mm, ``centre`` 4 f4, their mean."""

    def __init__(self, pre: Preprocess) -> None:
        """``pre`` has the frame. Raises EngineError where kernels cannot see this bundle's surfaces."""
        geometry = pre.geometry
        if geometry.plane is None:
            raise EngineError(
                "the cuda engine sees surfaces above a plane only, and this bundle has none; use the cpu engine, "
                "or calibrate with --geometry plane or --modalities rgb,points"
            )
        self.pre, (self.block, self.size) = pre, blocks(geometry.side_px)
        self.cell_mm = self.block * geometry.mm_per_px
        self.up = tuple(np.float32(axis) for axis in geometry.plane.normal)
        self.frame = (np.int32(pre.height), np.int32(pre.width), pre.figures, np.int32(geometry.side_px))
        self.cells, self.centre = pre.device.alloc(12 * self.size**2), pre.device.alloc(16)

    def enqueue(self) -> None:
        """Of whatever part and points ``pre`` holds."""
        pre, size = self.pre, np.int32(self.size)
        self.launch(
            "cloud_means", self.size**2, pre.points, pre.part, *self.frame, size, np.int32(self.size * self.block),
            np.float64(LEVEL_CELLS * self.cell_mm), self.cells, threads=128,
        )  # fmt: skip
        pre.device.launch(Launch("surface_centre", (1, 1, 1), (1024, 1, 1)), self.cells, size, self.centre)

    def launch(self, kernel: str, count: int, *arguments: Argument, threads: int = BLOCK) -> None:
        """``count`` threads, or more, of a kernel."""
        self.pre.device.launch(Launch(kernel, (-(count // -threads), 1, 1), (threads, 1, 1)), *arguments)


class Surface:
    """The grid's points averaged in boxes of ``width``, and their normals: ``means``, ``normals`` S x S x 4 f4, the
    last 1 where there is one; ``towards`` ``blocks`` f8, whose sum has the normals' sign."""

    def __init__(self, points: SurfacePoints, width: int) -> None:
        device, cells = points.pre.device, points.size**2
        self.grid, self.width, self.size, self.blocks = points, width, points.size, -(cells // -BLOCK)
        self._sums, self._ends = device.alloc(16 * cells), device.alloc(8 * cells)
        self.means, self.normals = device.alloc(16 * cells), device.alloc(16 * cells)
        self.towards = device.alloc(8 * self.blocks)

    def enqueue(self, fault: Buffer) -> None:
        """Of whatever ``SurfacePoints`` hold."""
        grid, size, cells, width = self.grid, np.int32(self.size), self.size**2, self.width
        box = (size, np.int32(width))
        grid.launch("surface_columns", cells, grid.cells, grid.centre, *box, self._sums, self._ends)
        grid.launch(
            "surface_means", cells, grid.cells, grid.centre, self._sums, self._ends, grid.pre.filled, *grid.frame,
            np.int32(grid.block), *box, np.float32(LEAST_MEMBERS * width * width),
            np.float32(LEVEL_CELLS * width * grid.cell_mm), self.means, fault,
        )  # fmt: skip
        limit_mm = np.float32(LEVEL_CELLS * TANGENT_STEP * grid.cell_mm)
        grid.launch("surface_normals", cells, self.means, size, limit_mm, *grid.up, self.normals, self.towards)


class SurfaceImage:
    """Buffers: ``levels`` S x S x 3 u1, ``image`` I x I x 3 u1 and ``network_image`` 3 x I x I f4."""

    def __init__(self, surface: Surface, chosen: SurfacePicture) -> None:
        """Raises EngineError for a picture that is not known."""
        if chosen.kind not in ("normals", "relief"):
            raise EngineError(f"network.picture.kind {chosen.kind!r} is not known; calibrate again with this version")
        self.surface, self._chosen, self._relief = surface, chosen, chosen.kind == "relief"
        pre, self.size = surface.grid.pre, surface.size
        device, cells, image_px = pre.device, self.size**2, pre.network.image_px
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
        """The picture of whatever the surface holds."""
        surface, grid, chosen, size = self.surface, self.surface.grid, self._chosen, np.int32(self.size)
        pre, cells = grid.pre, self.size**2
        around = (size, np.int32(around_width(self.size)))
        if self._relief:
            grid.launch("surface_moments", cells, surface.means, grid.centre, *around, *grid.up, self._moments)
        constants = (np.float32(value) for value in (*chosen.centre, *chosen.scale))
        grid.launch(
            "surface_levels", cells, surface.means, surface.normals, surface.towards, np.int32(surface.blocks),
            self._moments, grid.centre, *around, np.int32(self._relief), *grid.up, *constants, self.levels, fault,
        )  # fmt: skip
        image_px = pre.network.image_px
        grid.launch(
            "resize_rows", self.size * image_px, self.levels, self._everywhere, size, size, self._whole, size,
            *self._table, self._rows, self._corner, fault,
        )  # fmt: skip
        grid.launch(
            "resize_columns", image_px**2, self._rows, size, *self._table, *pre.normalisation, self.image,
            self.network_image,
        )  # fmt: skip
