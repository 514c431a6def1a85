"""Placing, finite numbers and packing: exact, against numpy."""

from __future__ import annotations

import numpy as np

from asperity.runtime.cuda.answer import Packed, Piece, enqueue_check, enqueue_place
from asperity.runtime.cuda.checks.clouds import COUNT, NOT_FINITE, clear_fault, fault_problems
from asperity.runtime.cuda.kernels import Cost, KernelEntry, Shape
from asperity.runtime.cuda.launch import Device
from asperity.runtime.errors import EngineError


class CheckedPlace:
    """Distances of a part of the tokens, laid back."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        self.device, self.tokens = device, shape["tokens"]
        chosen = np.flatnonzero(rng.random(self.tokens) < 0.4).astype(np.int32)
        if kind == "all":
            chosen = np.arange(self.tokens, dtype=np.int32)
        self.most = self.tokens
        count = {"negative": -1, "surplus": self.most + 1, "none": 0}.get(kind, len(chosen))
        distance = rng.gamma(3.0, 1.0, self.most).astype(np.float32)
        if kind == "nan":
            distance[len(chosen) // 2] = np.nan
        self.expected = np.zeros(self.tokens, dtype=np.float32)
        if kind in ("negative", "surplus"):
            self.expected[:] = np.nan
        elif count:
            self.expected[chosen] = distance[: len(chosen)]
        self.expected_fault = COUNT if kind in ("negative", "surplus") else 0
        chosen = np.concatenate([chosen, np.full(self.most - len(chosen), -7, dtype=np.int32)])
        self.distance, self.chosen = device.upload(distance), device.upload(chosen)
        self.count = device.upload(np.array([count], dtype=np.int32))
        self.placed, self.fault = device.alloc(4 * self.tokens), clear_fault(device)
        self.work = Cost(bytes=8 * self.most + 4 * self.tokens)

    def enqueue(self) -> None:
        """Launches only."""
        inputs = (self.distance, self.chosen, self.count)
        enqueue_place(self.device, *inputs, self.most, self.tokens, self.placed, self.fault)

    def problems(self) -> list[str]:
        """Each token has its own distance, bit for bit."""
        told = fault_problems(self.device, self.fault, self.expected_fault)
        placed = self.device.download(self.placed, (self.tokens,), np.float32)
        if not np.array_equal(placed, self.expected, equal_nan=True):
            told.append(f"{int((placed != self.expected).sum())} tokens have another distance")
        return told

    def figures(self) -> dict[str, float]:
        """Nothing further."""
        return {}


class CheckedFinite:
    """Numbers of which at most one is none."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        self.device, self.count = device, shape["count"]
        values = rng.normal(scale=1e30, size=self.count + 3).astype(np.float32)
        values[self.count :] = np.nan  # behind the end: not looked at
        damage = {"nan": np.nan, "infinite": np.inf, "negative_infinite": -np.inf}
        if kind in damage:
            values[int(rng.integers(self.count))] = damage[kind]
        self.expected = NOT_FINITE if kind in damage else 0
        self.values, self.fault = device.upload(values), clear_fault(device)
        self.work = Cost(bytes=4 * self.count)

    def enqueue(self) -> None:
        """Launches only."""
        enqueue_check(self.device, self.values, self.count, self.fault)

    def problems(self) -> list[str]:
        """The fault word says it."""
        return fault_problems(self.device, self.fault, self.expected)

    def figures(self) -> dict[str, float]:
        """Nothing further."""
        return {}


class CheckedPack:
    """Pieces of odd sizes, the last from within its buffer."""

    def __init__(self, device: Device, shape: Shape, kind: str, rng: np.random.Generator) -> None:
        if kind != "random":
            raise EngineError(f"no pieces of kind {kind!r}")
        sizes = [1, 3, 4, 7, shape["nbytes"], 5]
        self.arrays = [rng.integers(0, 256, size).astype(np.uint8) for size in sizes]
        buffers = [device.upload(np.concatenate([np.zeros(8, np.uint8), array])) for array in self.arrays]
        parts = enumerate(zip(buffers, sizes, strict=True))
        self.packed = Packed(device, {str(n): Piece(buffer, (size,), np.uint8, 8) for n, (buffer, size) in parts})
        self.device = device
        self.work = Cost(bytes=2 * sum(sizes))

    def enqueue(self) -> None:
        """Launches only."""
        self.packed.enqueue()

    def problems(self) -> list[str]:
        """Every byte is where ``Packed.read`` looks for it."""
        found = self.packed.read(self.device.download(self.packed.out, (self.packed.nbytes,), np.uint8))
        return [f"piece {n} differs" for n, array in enumerate(self.arrays) if not np.array_equal(found[str(n)], array)]

    def figures(self) -> dict[str, float]:
        """Nothing further."""
        return {}


ENTRIES: tuple[KernelEntry, ...] = (
    KernelEntry(
        name="place_distances", source="answer", prepare=CheckedPlace,
        shapes=({"tokens": 3136}, {"tokens": 784}, {"tokens": 257}), small=({"tokens": 301}, {"tokens": 1}),
        kinds=("random", "all", "none", "nan", "negative", "surplus"),
    ),
    KernelEntry(
        name="check_finite", source="answer", prepare=CheckedFinite,
        shapes=({"count": 784 * 768}, {"count": 3136 * 1152}, {"count": 1001}), small=({"count": 1501}, {"count": 1}),
        kinds=("random", "nan", "infinite", "negative_infinite"),
    ),
    KernelEntry(
        name="pack_pieces", source="answer", prepare=CheckedPack,
        shapes=({"nbytes": 25_088}, {"nbytes": 26_881}), small=({"nbytes": 1027},),
    ),
)  # fmt: skip
