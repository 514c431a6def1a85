"""From a cloud on the device to the point encoder's inputs, and from tokens to patches: buffers, launches, their order.

The CPU counterpart is ``runtime.vision.points``; kernels: ``sampling.cu``, ``grouping.cu``, ``interpolation.cu``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from asperity.runtime.cuda.launch import Buffer, Device, Launch
from asperity.runtime.cuda.tables import filled_min, pool_table
from asperity.runtime.errors import EngineError
from asperity.runtime.vision.points import NEIGHBOURS

Form: TypeAlias = Literal["block", "cluster", "large"]
"""One block with its distances in shared memory, a cluster of blocks, or one block with them in device memory."""

CHUNK = 128
MOST_ROUNDS = 32
MOST_BLOCKS = 8
MOST_MEMBERS = 128
STATIC_SHARED_BYTES = 14 * 1024
"""What the cluster's kernel has beside its distances, and what the driver keeps for itself; rounded up."""

_KERNELS: dict[Form, str] = {
    "block": "farthest_points", "cluster": "farthest_points_cluster", "large": "farthest_points_large",
}  # fmt: skip


def _ceil(a: int, b: int) -> int:
    return -(a // -b)


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """How farthest point sampling is spread over the chip. Raises EngineError where it cannot hold the cloud."""

    capacity: int
    form: Form = "block"
    blocks: int = 1
    warps: int = 32

    def __post_init__(self) -> None:
        most = MOST_BLOCKS if self.form == "cluster" else 1
        if self.form not in _KERNELS or not 1 <= self.blocks <= most or self.rounds > MOST_ROUNDS:
            raise EngineError(f"farthest point sampling cannot be planned as {self}; take more warps or blocks")

    @classmethod
    def fitting(cls, device: Device, capacity: int) -> SamplingPlan:
        """One block where its distances fit into shared memory, else a cluster, else one block over device memory."""
        block = cls(capacity)
        room = device.most_shared_bytes - STATIC_SHARED_BYTES
        if block.distance_bytes <= room:
            return block
        for blocks in (2, 4, 8):
            plan = cls(capacity, "cluster", blocks)
            if blocks <= device.most_cluster and plan.distance_bytes <= room:
                return plan
        return cls(capacity, "large")

    @property
    def rounds(self) -> int:
        """Chunks of 128 points that a warp owns at most."""
        return _ceil(self.capacity, CHUNK * self.warps * self.blocks)

    @property
    def distance_bytes(self) -> int:
        """Of one block: shared memory, or device memory with ``large``."""
        return self.rounds * self.warps * CHUNK * 4

    def launch(self) -> Launch:
        """The launch; pass the arguments of ``farthest_points``."""
        shared = 0 if self.form == "large" else self.distance_bytes
        grid, block = (self.blocks, 1, 1), (32 * self.warps, 1, 1)
        return Launch(_KERNELS[self.form], grid, block, shared, self.blocks)


class Sampling:
    """The cloud's points in a list, and the farthest ones of them.

    ``points`` cloud_px^2 x f4x4 (x, y, z mm, pixel), ``count`` i4, ``centroid`` 3 f8; ``chosen`` G i4 into points,
    ``centres`` G x f4x4.
    """

    def __init__(self, device: Device, cloud_px: int, groups: int, plan: SamplingPlan, threads: int = 1024) -> None:
        pixels = cloud_px * cloud_px
        self.device, self.pixels, self.groups, self.plan = device, pixels, groups, plan
        self._blocks, self._threads = _ceil(pixels, threads), threads
        self._counts, self._sums = device.alloc(4 * self._blocks), device.alloc(24 * self._blocks)
        self.points, self.count, self.centroid = device.alloc(16 * pixels), device.alloc(4), device.alloc(24)
        self.chosen, self.centres = device.alloc(4 * groups), device.alloc(16 * groups)
        self._scratch = device.alloc(plan.distance_bytes if plan.form == "large" else 4)

    def enqueue(self, cloud: Buffer, fault: Buffer) -> None:
        """``cloud`` cloud_px^2 x 3 f4 mm, (0, 0, 0) where empty."""
        self.enqueue_list(cloud, fault)
        self.enqueue_farthest(fault)

    def enqueue_list(self, cloud: Buffer, fault: Buffer) -> None:
        """The first half: ``points``, ``count`` and ``centroid``."""
        grid, block = (self._blocks, 1, 1), (self._threads, 1, 1)
        pixels = np.int32(self.pixels)
        self.device.launch(Launch("count_points", grid, block), cloud, pixels, self._counts, self._sums, fault)
        self.device.launch(
            Launch("list_points", grid, block),
            cloud, pixels, self._counts, self._sums, self.points, self.count, self.centroid,
        )  # fmt: skip

    def enqueue_farthest(self, fault: Buffer) -> None:
        """The second half, of whatever ``points`` and ``count`` hold."""
        self.device.launch(
            self.plan.launch(), self.points, self.count, np.int32(self.plan.capacity), np.int32(self.groups),
            self.chosen, self.centres, self._scratch, fault,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class GroupScale:
    """Units of the encoder's inputs, as in ``runtime.manifest.Network``."""

    group_mm: float
    position_mm: float
    centre_positions: bool


class Grouping:
    """Each centre's nearest points: ``members`` G x K i4 pixels, ``relative`` G x K x 3 f4, ``positions`` G x 3 f4."""

    def __init__(self, device: Device, cloud_px: int, groups: int, group_size: int, scale: GroupScale) -> None:
        if not 1 <= group_size <= MOST_MEMBERS:
            raise EngineError(f"groups of {group_size} points; the kernel makes them of 1 to {MOST_MEMBERS}")
        self.device, self.cloud_px, self.groups, self.group_size, self.scale = (
            device,
            cloud_px,
            groups,
            group_size,
            scale,
        )
        # About 200 tiles whatever the cloud's size: few enough to test each, small enough to leave most out.
        self.tile = max(4, _ceil(cloud_px, 14))
        self.tiles = _ceil(cloud_px, self.tile) ** 2
        self.boxes = device.alloc(24 * self.tiles)
        self.members = device.alloc(4 * groups * group_size)
        self.relative, self.positions = device.alloc(12 * groups * group_size), device.alloc(12 * groups)
        self._origin = device.upload(np.zeros(3))

    def enqueue(self, cloud: Buffer, centres: Buffer, centroid: Buffer, fault: Buffer) -> None:
        """Buffers as ``Sampling`` leaves them."""
        size, tile = np.int32(self.cloud_px), np.int32(self.tile)
        boxes = Launch("tile_boxes", (_ceil(self.tiles, 8), 1, 1), (256, 1, 1))
        self.device.launch(boxes, cloud, size, tile, self.boxes, fault)
        self.device.launch(
            Launch("group_points", (_ceil(self.groups, 4), 1, 1), (128, 1, 1), 4 * 2 * MOST_MEMBERS * 8),
            cloud, size, tile, self.boxes, centres, np.int32(self.groups), np.int32(self.group_size),
            np.float32(self.scale.group_mm), np.float64(self.scale.position_mm),
            centroid if self.scale.centre_positions else self._origin,
            self.members, self.relative, self.positions, fault,
        )  # fmt: skip


class PatchNumbers:
    """Which patches hold points, and which slots they have: ``nonempty`` patches u1; ``slot_of_patch``,
    ``patch_of_slot`` patches i4; ``count`` and ``larger`` i4; ``multiplicity`` slots f4."""

    def __init__(self, device: Device, patches: int, slots: int) -> None:
        self.device, self.patches, self.slots = device, patches, slots
        self.nonempty = device.alloc(patches)
        self.slot_of_patch, self.patch_of_slot = device.alloc(4 * patches), device.alloc(4 * patches)
        self.count, self.larger, self.multiplicity = device.alloc(4), device.alloc(4), device.alloc(4 * slots)

    def enqueue(self, fault: Buffer) -> None:
        """Of whatever ``nonempty`` holds."""
        self.device.launch(
            Launch("number_patches", (1, 1, 1), (min(1024, 32 * _ceil(self.patches, 32)), 1, 1)),
            self.nonempty, np.int32(self.patches), np.int32(self.slots), self.slot_of_patch, self.patch_of_slot,
            self.count, self.multiplicity, self.larger, fault,
        )  # fmt: skip


class FilledPatches:
    """Which patches hold points, of a cloud that no point network sees: ``numbers``."""

    def __init__(self, device: Device, cloud_px: int, grid: int, pooling: Literal["published", "valid_mean"]) -> None:
        first, axis = pool_table(cloud_px, grid, pooling)
        self.device, self.numbers = device, PatchNumbers(device, grid**2, grid**2)
        self._sizes = np.int32(cloud_px), np.int32(grid)
        self._table = device.upload(first), device.upload(axis), np.int32(axis.shape[1])
        self._rule = np.int32(pooling == "valid_mean"), np.float64(filled_min(pooling))

    def enqueue(self, cloud: Buffer, fault: Buffer) -> None:
        """``cloud`` cloud_px^2 x 3 f4 mm."""
        self.device.launch(
            Launch("filled_patches", (_ceil(32 * self.numbers.patches, 256), 1, 1), (256, 1, 1)),
            cloud, *self._sizes, *self._table, *self._rule, self.numbers.nonempty, fault,
        )  # fmt: skip
        self.numbers.enqueue(fault)


class Interpolation:
    """The map from tokens to patches, and what the points adaptor needs to know of it.

    ``nearest`` and ``weights``: pixels x 3 i4 and f4. ``row_count``, ``columns``, ``values``: the map, rows at a fixed
    ``stride``. ``nonempty`` grid^2 u1; ``slot_of_patch``, ``patch_of_slot`` grid^2 i4; ``count`` and ``larger`` i4.
    """

    def __init__(
        self,
        device: Device,
        cloud_px: int,
        grid: int,
        groups: int,
        pooling: Literal["published", "valid_mean"],
        slots: int,
    ) -> None:
        first, axis = pool_table(cloud_px, grid, pooling)
        self.device, self.cloud_px, self.grid, self.groups, self.slots = device, cloud_px, grid, groups, slots
        self.span, self.mean, self.filled_min = axis.shape[1], int(pooling == "valid_mean"), filled_min(pooling)
        self.pixels, self.patches = cloud_px * cloud_px, grid * grid
        self.stride = min(NEIGHBOURS * self.span**2, groups)
        self._first, self._axis = device.upload(first), device.upload(axis)
        self.nearest, self.weights = device.alloc(12 * self.pixels), device.alloc(12 * self.pixels)
        self.row_count = device.alloc(4 * self.patches)
        self.columns = device.alloc(4 * self.patches * self.stride)
        self.values = device.alloc(4 * self.patches * self.stride)
        self.numbers = numbers = PatchNumbers(device, self.patches, slots)
        self.nonempty, self.slot_of_patch, self.patch_of_slot = (
            numbers.nonempty, numbers.slot_of_patch, numbers.patch_of_slot,
        )  # fmt: skip
        self.count, self.larger, self.multiplicity = numbers.count, numbers.larger, numbers.multiplicity

    def enqueue(self, cloud: Buffer, centres: Buffer, fault: Buffer) -> None:
        """Build the map. ``centres`` as ``Sampling`` leaves them."""
        self.enqueue_nearest(cloud, centres, fault)
        self.enqueue_rows(fault)
        self.numbers.enqueue(fault)

    def enqueue_nearest(self, cloud: Buffer, centres: Buffer, fault: Buffer) -> None:
        """``nearest`` and ``weights`` alone."""
        self.device.launch(
            Launch("nearest_centres", (_ceil(self.pixels, 256), 1, 1), (256, 1, 1), 16 * self.groups),
            cloud, np.int32(self.pixels), centres, np.int32(self.groups), self.nearest, self.weights, fault,
        )  # fmt: skip

    def enqueue_rows(self, fault: Buffer) -> None:
        """The map's rows and ``nonempty``, of whatever ``nearest`` and ``weights`` hold."""
        entries = NEIGHBOURS * self.span**2
        self.device.launch(
            Launch("patch_rows", (self.patches, 1, 1), (64 if entries <= 64 else 160, 1, 1), 12 * entries),
            self.nearest, self.weights, np.int32(self.groups), np.int32(self.cloud_px), np.int32(self.grid),
            self._first, self._axis, np.int32(self.span), np.int32(self.mean), np.float64(self.filled_min),
            self.row_count, self.columns, self.values, np.int32(self.stride), self.nonempty, fault,
        )  # fmt: skip

    def enqueue_dense(self, dense: Buffer) -> None:
        """The map as a grid^2 x G f4 matrix, for a graph that multiplies with it."""
        self.device.launch(
            Launch("dense_rows", (self.patches, 1, 1), (128, 1, 1)),
            self.row_count, self.columns, self.values, np.int32(self.stride), np.int32(self.groups), dense,
        )  # fmt: skip

    def enqueue_pool(self, tokens: Buffer, channels: int, half: bool, slots: int, out: Buffer, fault: Buffer) -> None:
        """Tokens G x channels (f2 with ``half``, else f4) -> out slots x channels f4, non-empty patches first."""
        threads = min(256, 32 * _ceil(channels, 32))
        self.device.launch(
            Launch("pool_tokens_f16" if half else "pool_tokens_f32", (slots, 1, 1), (threads, 1, 1)),
            tokens, np.int32(self.groups), np.int32(channels), self.row_count, self.columns, self.values,
            np.int32(self.stride), self.patch_of_slot, self.count, np.int32(slots), out, fault,
        )  # fmt: skip
