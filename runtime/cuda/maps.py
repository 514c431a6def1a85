"""Distances on the device to the fused map, its peaks, its worst spot and the image distances: buffers and launches.

The CPU counterparts are ``vision.distances``, ``vision.scoring.fused_map`` and ``vision.maps``; kernels ``maps.cu``.
No verdict comes from here: that is ``runtime.vision.scoring.decide``'s alone, and a set fault word makes it unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.launch import Argument, Buffer, Device, Launch
from asperity.runtime.cuda.tables import spread_table
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray, Region, Window
from asperity.runtime.manifest import Decision
from asperity.runtime.vision.maps import MAP_PX, region_of
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.scoring import TIE_SLOPE

BLOCK = 256
PLANES = 4
FUSED, SCORED, RGB, POINTS, SURFACE = range(PLANES + 1)
"""Planes of the maps, in this order; the last where the surface's picture is a modality."""


class Maps:
    """Buffers: ``planes`` 4 or 5 x grid^2 and ``pixels`` as many x 224^2 f4, ``peaks`` as many keys,
    ``scored`` grid^2 u1, ``token_scored`` rgb_grid^2 u1, ``slot_scored`` slots u1, ``spot`` 6 i4, ``levels`` 2 f8.
    """

    def __init__(self, device: Device, grid: int, rgb_grid: int, slots: int, decision: Decision) -> None:
        """``slots``: rows that the points' distances have room for. Raises EngineError on grids that do not fit."""
        if rgb_grid < 1 or grid % rgb_grid:
            raise EngineError(f"{rgb_grid} x {rgb_grid} RGB tokens do not lie evenly on a {grid} x {grid} grid")
        self.device, self.grid, self.rgb_grid, self.slots = device, grid, rgb_grid, slots
        self._spread, modalities = device.upload(spread_table(grid)), decision.modalities()
        self.surface = "geometry" in modalities
        count = self.count = PLANES + self.surface
        self.planes, self._rows = device.alloc(4 * count * grid**2), device.alloc(4 * count * grid * MAP_PX)
        self.pixels, self.peaks = device.alloc(4 * count * MAP_PX**2), device.alloc(8 * count)
        self.scored, self.token_scored = device.alloc(grid**2), device.alloc(rgb_grid**2)
        self.slot_scored = device.upload(np.zeros(slots, dtype=np.uint8))
        self._parent, self.spot, self.levels = device.alloc(4 * MAP_PX**2), device.alloc(24), device.alloc(16)
        self._constants: list[Argument] = [
            np.float64(value)
            for modality in modalities.values()
            for value in (modality.weight, modality.patch_mean, modality.patch_std)
        ]
        if not self.surface:
            self._constants += [np.float64(0.0), np.float64(0.0), np.float64(1.0)]
        self._constants += [np.int32(decision.fusion == "squares"), np.float64(TIE_SLOPE)]

    def enqueue(
        self,
        points_distance: Buffer,
        slot_of_patch: Buffer,
        rgb_distance: Buffer,
        inspect: Buffer,
        fault: Buffer,
        surface_distance: Buffer | None = None,
    ) -> None:
        """Distances of slots and tokens (f4) -> ``planes``, ``pixels``, ``peaks`` and what was scored."""
        self.enqueue_planes(points_distance, slot_of_patch, rgb_distance, inspect, fault, surface_distance)
        self.enqueue_pixels(fault)

    def enqueue_planes(
        self,
        points_distance: Buffer,
        slot_of_patch: Buffer,
        rgb_distance: Buffer,
        inspect: Buffer,
        fault: Buffer,
        surface_distance: Buffer | None = None,
    ) -> None:
        """``planes`` and what was scored alone. ``slot_scored`` keeps what it held of slots that have no patch now."""
        if (surface_distance is not None) != self.surface:
            raise EngineError("the surface's distances are wanted where the decision is about them, and only there")
        surface: Argument = np.uint64(0) if surface_distance is None else surface_distance
        tokens = np.int32(self.rgb_grid**2)
        begin = Launch("begin_maps", (1, 1, 1), (BLOCK, 1, 1))
        self.device.launch(begin, tokens, self.token_scored, np.int32(self.count), self.peaks)
        self.device.launch(
            _over(self.grid**2, "fuse_distances"), points_distance, slot_of_patch, np.int32(self.slots), rgb_distance,
            surface, np.int32(self.rgb_grid), inspect, np.int32(self.grid), *self._constants, self.scored,
            self.token_scored, self.slot_scored, self.planes, fault,
        )  # fmt: skip

    def enqueue_pixels(self, fault: Buffer) -> None:
        """``pixels`` and ``peaks`` of whatever ``planes`` holds."""
        sizes = (np.int32(self.grid), np.int32(MAP_PX))
        rows = _over(MAP_PX * self.grid, "spread_rows", self.count)
        self.device.launch(rows, self._spread, self.planes, *sizes, self._rows)
        columns = _over(MAP_PX**2, "spread_columns", self.count)
        self.device.launch(columns, self._spread, self._rows, *sizes, self.pixels, self.peaks, fault)

    def enqueue_region(self, fault: Buffer, threads: int = 1024) -> None:
        """``spot`` and ``levels``: only a rejected frame needs them."""
        self.device.launch(
            Launch("worst_region", (1, 1, 1), (threads, 1, 1)),
            self.pixels, np.int32(MAP_PX), self.peaks, self._parent, self.spot, self.levels, fault,
        )  # fmt: skip

    def download_peaks(self) -> FloatArray:
        """Largest pixel of each plane: with local distances the image distances of the modalities."""
        return peak_values(self.device.download(self.peaks, (self.count,), np.uint64))

    def download_region(self, window: Window, height_px: int, width_px: int) -> Region | None:
        """The worst spot in source pixels, as ``runtime.vision.maps.worst_region`` tells it."""
        found, top, bottom, left, right, area = self.device.download(self.spot, (6,), np.int32).tolist()
        if not found:
            return None
        return region_of((top, bottom), (left, right), area, MAP_PX, window, height_px, width_px)


class Peak:
    """The largest pixel of one map on its own grid: ``peak``, a key as ``peak_values`` reads it."""

    def __init__(self, device: Device, grid: int) -> None:
        self.device, self.grid = device, grid
        self._spread, self._rows = device.upload(spread_table(grid)), device.alloc(4 * grid * MAP_PX)
        self._pixels, self.peak = device.alloc(4 * MAP_PX**2), device.alloc(8)

    def enqueue(self, patch_map: Buffer, fault: Buffer) -> None:
        """Of a map grid^2 f4, as ``runtime.vision.maps.pixel_map`` spreads it."""
        sizes = (np.int32(self.grid), np.int32(MAP_PX))
        begin = Launch("begin_maps", (1, 1, 1), (BLOCK, 1, 1))
        self.device.launch(begin, np.int32(0), np.uint64(0), np.int32(1), self.peak)
        self.device.launch(_over(MAP_PX * self.grid, "spread_rows"), self._spread, patch_map, *sizes, self._rows)
        columns = _over(MAP_PX**2, "spread_columns")
        self.device.launch(columns, self._spread, self._rows, *sizes, self._pixels, self.peak, fault)


class ImageDistance:
    """One modality's re-weighted image distance (lsfa 7.3): ``out`` f8 and ``worst`` i4."""

    def __init__(self, device: Device, bank: Buffer, neighbours: NDArray[np.int32], dimension: int, half: bool) -> None:
        """``bank`` N x dimension, f2 with ``half``, else f4; ``neighbours`` as ``neighbour_table`` makes them."""
        self.device, self._bank, self._rows, self._dimension = device, bank, len(neighbours), dimension
        self._neighbours = device.upload(neighbours)
        self._kernel = "image_distance_f16" if half else "image_distance_f32"
        self.out, self.worst = device.alloc(8), device.alloc(4)

    def enqueue(
        self,
        distances: Buffer,
        nearest: Buffer,
        scored: Buffer,
        count: Buffer,
        most: int,
        queries: Buffer,
        fault: Buffer,
    ) -> None:
        """``distances`` f4, ``nearest`` i4, ``scored`` u1 and ``queries`` of ``most`` rows, *count of them there."""
        self.device.launch(
            Launch(self._kernel, (1, 1, 1), (512, 1, 1)),
            distances, nearest, scored, count, np.int32(most), queries, self._bank, self._neighbours,
            np.int32(self._rows), np.int32(self._dimension), self.out, self.worst, fault,
        )  # fmt: skip


class LocalDistances:
    """Distances counted by how unusual they are for their row (``runtime.vision.distances.Usual``), in place."""

    def __init__(self, device: Device, mean: FloatArray, std: FloatArray, usual: float) -> None:
        """``mean`` and ``std``: one a bank row."""
        self.device, self._rows, self._usual = device, len(mean), usual
        self._mean, self._std = device.upload(mean.astype(np.float32)), device.upload(std.astype(np.float32))

    def enqueue(self, distances: Buffer, nearest: Buffer, count: Buffer, most: int, fault: Buffer) -> None:
        """The first *count of ``most`` distances."""
        self.device.launch(
            _over(most, "local_distances"), distances, nearest, count, np.int32(most), self._mean, self._std,
            np.int32(self._rows), np.float64(self._usual), fault,
        )  # fmt: skip


def peak_values(keys: NDArray[np.uint64]) -> FloatArray:
    """The numbers of keys that order by number first (``keys.cuh``)."""
    bits = (keys >> np.uint64(32)).astype(np.uint32)
    negative = bits < 0x80000000
    return np.where(negative, ~bits, bits & np.uint32(0x7FFFFFFF)).astype(np.uint32).view(np.float32)


def neighbour_table(memory: MemoryBank) -> NDArray[np.int32]:
    """For each bank row the two rows nearest to it, itself (the first of three) dropped: N x 2. Once a bank."""
    if len(memory) < 3:
        raise EngineError(f"a memory bank of {len(memory)} rows is too small to re-weight; it needs 3")
    return np.array([memory.nearest_rows(row, 3)[1][1:] for row in memory.rows], dtype=np.int32)


def _over(count: int, kernel: str, planes: int = 1) -> Launch:
    return Launch(kernel, (-(count // -BLOCK), planes, 1), (BLOCK, 1, 1))
