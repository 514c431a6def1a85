"""The map from tokens to patches, and its use, against ``runtime.vision.points`` in float64."""

from __future__ import annotations

from typing import Literal

import numpy as np

from asperity.runtime.cuda.checks.clouds import (
    EMPTY,
    FAULT_OF,
    KINDS,
    NOT_FINITE,
    clear_fault,
    cloud_of,
    fault_problems,
)
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.cuda.points import FilledPatches, Interpolation
from asperity.runtime.vision.points import farthest_points, interpolation_weights, patch_map, valid_points

WEIGHT_ROUNDING = 1e-6
"""Of an entry of the map, relative: at most 147 float32 additions of numbers of one sign, and a quotient."""

POOL_ROUNDING = 2e-6
"""Of a pooled value, relative to the sum of magnitudes in it."""


class CheckedInterpolation:
    """One cloud, its map, and random tokens through it."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator, half: bool) -> None:
        self.size, self.grid, self.groups = shape["size"], shape["grid"], shape["groups"]
        self.channels, self.half, self.kind, self.device = shape["channels"], half, kind, device
        self.pooling: Literal["published", "valid_mean"] = "published" if shape["published"] else "valid_mean"
        cloud = cloud_of(kind, self.size, shape["points"], rng)
        self.points, self.pixels = valid_points(cloud)
        listed = np.zeros((self.groups, 4), dtype=np.float32)
        if len(self.points) and kind != "nan":
            listed[:, :3] = self.points[farthest_points(self.points, self.groups)]
        elif kind == "nan":
            listed[:, :3] = self.points[rng.integers(0, len(self.points), self.groups)]
        self.centres = listed[:, :3].astype(np.float64)
        dtype = np.float16 if half else np.float32
        self.tokens = rng.normal(size=(self.groups, self.channels)).astype(dtype)
        self.slots = shape.get("slots", self.grid**2)
        self.stage = Interpolation(device, self.size, self.grid, self.groups, self.pooling, self.slots)
        self.filled = FilledPatches(device, self.size, self.grid, self.pooling)
        self.cloud, self.device_centres = device.upload(cloud), device.upload(listed)
        self.device_tokens, self.fault = device.upload(self.tokens), clear_fault(device)
        self.dense = device.alloc(4 * self.grid**2 * self.groups)
        self.out = device.alloc(4 * self.grid**2 * self.channels)
        entries = 25 * self.grid**2
        self.work = Cost(
            flop=8 * len(self.points) * self.groups + 2 * entries * self.channels,
            bytes=12 * self.size**2 + self.tokens.nbytes + 4 * self.grid**2 * self.channels,
        )

    def enqueue(self) -> None:
        """Launches only."""
        self.stage.enqueue(self.cloud, self.device_centres, self.fault)
        self.filled.enqueue(self.cloud, self.fault)
        self.stage.enqueue_dense(self.dense)
        self.stage.enqueue_pool(self.device_tokens, self.channels, self.half, self.grid**2, self.out, self.fault)

    def problems(self) -> list[str]:
        """Against the CPU's map."""
        patches = self.grid**2
        nonempty = self.device.download(self.stage.nonempty, (patches,), np.uint8)
        if not np.array_equal(self.device.download(self.filled.numbers.nonempty, (patches,), np.uint8), nonempty):
            return ["patches hold points with the map and without it, and not the same ones"]
        if self.kind == "nan":
            # A patch whose points are not filled enough may hide the damage from the map, never from the fault word.
            found = int(self.device.download(self.fault, (1,), np.uint32)[0])
            return [] if found & NOT_FINITE else [f"the fault word is {found:#x} and lacks NOT_FINITE"]
        if self.kind == "empty":
            return fault_problems(self.device, self.fault, FAULT_OF["empty"]) + (
                ["a patch of nothing"] if nonempty.any() else []
            )
        to_patches, expected = patch_map(self.points, self.pixels, self.centres, self.size, self.grid, self.pooling)
        told = fault_problems(self.device, self.fault, 0 if expected.any() else EMPTY)
        if not np.array_equal(nonempty, expected.ravel()):
            told.append(f"{int((nonempty != expected.ravel()).sum())} patches are empty on one side only")
        told += self._nearest_problems()
        dense = self.device.download(self.dense, (patches, self.groups), np.float32)
        matrix = to_patches.toarray()
        if (np.abs(dense - matrix) > WEIGHT_ROUNDING * matrix).any():
            told.append(f"the map is off by {np.abs(dense - matrix).max()}")
        return told + self._slot_problems(expected.ravel(), matrix)

    def _nearest_problems(self) -> list[str]:
        nearest = self.device.download(self.stage.nearest, (self.size**2, 3), np.int32)
        weights = self.device.download(self.stage.weights, (self.size**2, 3), np.float32)
        index, shares = interpolation_weights(self.points, self.centres)
        known = index.shape[1]
        told = []
        if not np.array_equal(nearest[self.pixels][:, :known], index):
            told.append("a point's nearest centres are not float64's")
        elif not np.array_equal(weights[self.pixels][:, :known], shares.astype(np.float32)):
            told.append("a point's weights are not float64's rounded once")
        empty = np.setdiff1d(np.arange(self.size**2), self.pixels)
        if (nearest[empty] != -1).any() or weights[empty].any() or (nearest[:, known:] != -1).any():
            told.append("a pixel without a point, or a centre that is not there, has an index or a weight")
        return told

    def _slot_problems(self, expected: np.ndarray, matrix: np.ndarray) -> list[str]:
        told = []
        filled, patches = int(expected.sum()), self.grid**2
        of_slot = self.device.download(self.stage.patch_of_slot, (patches,), np.int32)
        of_patch = self.device.download(self.stage.slot_of_patch, (patches,), np.int32)
        numbers = np.where(expected, np.cumsum(expected) - 1, -1)
        ordered = np.concatenate([np.flatnonzero(expected), np.full(patches - filled, -1)])
        if not (np.array_equal(of_slot, ordered) and np.array_equal(of_patch, numbers)):
            told.append("the patches are numbered otherwise")
        multiplicity = self.device.download(self.stage.multiplicity, (self.slots,), np.float32)
        spare = np.float32((patches - filled) / max(self.slots - filled, 1))
        if not np.array_equal(multiplicity, np.where(np.arange(self.slots) < filled, np.float32(1), spare)):
            told.append("the slots' multiplicities are others")
        larger = filled > self.slots or (filled == self.slots) != (filled == patches)
        found = [int(self.device.download(b, (1,), np.int32)[0]) for b in (self.stage.count, self.stage.larger)]
        if found != [filled, int(larger)]:
            told.append(f"count and larger are {found} and must be {[filled, int(larger)]}")
        pooled = self.device.download(self.out, (patches, self.channels), np.float32)
        wanted = np.zeros((patches, self.channels))
        wanted[:filled] = matrix[expected] @ self.tokens.astype(np.float64)
        size = np.zeros_like(wanted)
        size[:filled] = matrix[expected] @ np.abs(self.tokens.astype(np.float64))
        if (np.abs(pooled - wanted) > POOL_ROUNDING * size).any():
            told.append(f"pooled tokens are off by {np.abs(pooled - wanted).max()}")
        return told

    def figures(self) -> dict[str, float]:
        """Nothing beside the timing."""
        return {}


def _entry(half: bool, shapes: tuple[Shape, ...], small: tuple[Shape, ...]) -> KernelEntry:
    return KernelEntry(
        name="interpolation_f16" if half else "interpolation_f32",
        source="interpolation",
        prepare=lambda device, shape, kind, rng: CheckedInterpolation(device, shape, kind, rng, half),
        shapes=shapes,
        small=small,
        kinds=KINDS,
        timed=shapes[:2],
    )


_LITE: Shape = {"size": 112, "grid": 28, "points": 5_000, "groups": 256, "channels": 384, "published": 0, "slots": 384}
_PAPER: Shape = {"size": 224, "grid": 56, "points": 20_000, "groups": 1024, "channels": 1152, "published": 1}
_FULL: Shape = {"size": 224, "grid": 56, "points": 50_176, "groups": 1024, "channels": 1152, "published": 1}
_ODD: Shape = {"size": 101, "grid": 23, "points": 4_000, "groups": 77, "channels": 131, "published": 0, "slots": 64}

ENTRIES: tuple[KernelEntry, ...] = (
    _entry(
        True,
        (_PAPER, _LITE, _FULL, _ODD),
        ({"size": 29, "grid": 7, "points": 400, "groups": 19, "channels": 33, "published": 1},),
    ),
    _entry(
        False,
        (_PAPER, _LITE, _FULL, _ODD),
        (
            {"size": 28, "grid": 7, "points": 400, "groups": 19, "channels": 40, "published": 0, "slots": 12},
            {"size": 30, "grid": 7, "points": 900, "groups": 2, "channels": 3, "published": 0, "slots": 49},
        ),
    ),
)
