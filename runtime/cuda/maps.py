"""Distances on the device to the fused map, its peaks, its worst spot and the image distances: buffers and launches.

The CPU counterparts are ``vision.distances``, ``vision.scoring.fused_map`` and ``vision.maps``; kernels ``maps.cu``.
No verdict comes from here: that is ``runtime.vision.scoring.decide``'s alone, and a set fault word makes it unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.launch import Buffer, Device, Launch
from asperity.runtime.cuda.tables import spread_table
from asperity.runtime.errors import EngineError
from asperity.runtime.frame import FloatArray, ModalityName, Region, Window
from asperity.runtime.manifest import Decision
from asperity.runtime.vision.maps import BLUR_SIGMA_PX, MAP_PX, own_blur_px, region_of
from asperity.runtime.vision.nearest import MemoryBank
from asperity.runtime.vision.scoring import TIE_SLOPE

BLOCK = 256
FUSED, SCORED, MODALITIES = range(3)
"""Planes of the maps: what is fused, what is scored, and from the third on one a modality, in the decision's order."""

LAID: dict[ModalityName, int] = {"rgb": 0, "geometry": 0, "points": 1, "height": 2, "descriptor": 2}
"""What a modality's distances are there for: tokens of the colour network's grid, slots, patches (``maps.cu``)."""
SOURCE = np.dtype(
    [("distances", "<u8"), ("laid", "<i4"), ("unused", "<i4"), ("weight", "<f8"), ("mean", "<f8"), ("std", "<f8")]
)


class Maps:
    """Buffers: ``planes`` P x grid^2 and ``pixels`` P x 224^2 f4, ``peaks`` P keys; ``scored`` grid^2 u1,
    ``token_scored`` rgb_grid^2 u1, ``slot_scored`` slots u1, ``spot`` 6 i4, ``levels`` 2 f8.
    """

    def __init__(
        self,
        device: Device,
        grid: int,
        rgb_grid: int,
        slots: int,
        decision: Decision,
        distances: Mapping[ModalityName, Buffer],
        blur_px: float = BLUR_SIGMA_PX,
    ) -> None:
        """``distances``: those of every modality, f4 (``LAID``); ``slots``: rows that the points' have room for.

        Raises EngineError on grids that do not fit, and where distances and decision are about different modalities.
        """
        if rgb_grid < 1 or grid % rgb_grid:
            raise EngineError(f"{rgb_grid} x {rgb_grid} RGB tokens do not lie evenly on a {grid} x {grid} grid")
        modalities = decision.modalities()
        rows_of = (rgb_grid**2, slots, grid**2)
        if modalities.keys() != distances.keys() or any(
            buffer.nbytes < 4 * rows_of[LAID[name]] for name, buffer in distances.items()
        ):
            raise EngineError(f"distances of {', '.join(distances)} do not fit a decision by {', '.join(modalities)}")
        self.device, self.grid, self.rgb_grid, self.slots = device, grid, rgb_grid, slots
        self.plane_of = {name: MODALITIES + at for at, name in enumerate(modalities)}
        self._spread, count = device.upload(spread_table(grid, blur_px)), MODALITIES + len(modalities)
        self.count = count
        self.planes, self._rows = device.alloc(4 * count * grid**2), device.alloc(4 * count * grid * MAP_PX)
        self.pixels, self.peaks = device.alloc(4 * count * MAP_PX**2), device.alloc(8 * count)
        self.scored, self.token_scored = device.alloc(grid**2), device.alloc(rgb_grid**2)
        self.slot_scored = device.upload(np.zeros(slots, dtype=np.uint8))
        self._parent, self.spot, self.levels = device.alloc(4 * MAP_PX**2), device.alloc(24), device.alloc(16)
        rows = [
            (distances[name].address, LAID[name], 0, one.weight, one.patch_mean, one.patch_std)
            for name, one in modalities.items()
        ]
        self._sources, self._squares = device.upload(np.array(rows, dtype=SOURCE)), decision.fusion == "squares"

    def enqueue(self, slot_of_patch: Buffer, inspect: Buffer, fault: Buffer) -> None:
        """Distances -> what is scored, ``planes``, ``pixels`` and ``peaks``."""
        self.enqueue_scored(slot_of_patch, inspect, fault)
        self.enqueue_planes(slot_of_patch, fault)
        self.enqueue_pixels(fault)

    def enqueue_scored(self, slot_of_patch: Buffer, inspect: Buffer, fault: Buffer) -> None:
        """What is scored alone. ``slot_scored`` keeps what it held of slots that have no patch now."""
        tokens = np.int32(self.rgb_grid**2)
        begin = Launch("begin_maps", (1, 1, 1), (BLOCK, 1, 1))
        self.device.launch(begin, tokens, self.token_scored, np.int32(self.count), self.peaks)
        self.device.launch(
            _over(self.grid**2, "mark_scored"), slot_of_patch, np.int32(self.slots), inspect, np.int32(self.grid),
            np.int32(self.rgb_grid), self.scored, self.token_scored, self.slot_scored, fault,
        )  # fmt: skip

    def enqueue_planes(self, slot_of_patch: Buffer, fault: Buffer) -> None:
        """``planes`` of what was found to be scored."""
        self.device.launch(
            _over(self.grid**2, "fuse_distances"), self._sources, np.int32(self.count - MODALITIES), self.scored,
            slot_of_patch, np.int32(self.slots), np.int32(self.grid), np.int32(self.rgb_grid),
            np.int32(self._squares), np.float64(TIE_SLOPE), self.planes, fault,
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
        spread = spread_table(grid, own_blur_px(grid))
        self._spread, self._rows = device.upload(spread), device.alloc(4 * grid * MAP_PX)
        self._pixels, self.peak = device.alloc(4 * MAP_PX**2), device.alloc(8)

    def enqueue(self, patch_map: Buffer, fault: Buffer) -> None:
        """Of a map grid^2 f4, as ``runtime.vision.maps.pixel_map`` spreads local distances."""
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
