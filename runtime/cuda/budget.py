"""How much device memory an engine will need, before it allocates any: counted by the code that makes the buffers.

``Counting`` is a device that only adds up sizes. What is built on it is then built on the real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cuda.graph import DeviceGraphs
from asperity.runtime.cuda.launch import Buffer
from asperity.runtime.cuda.streams import Branch, Event, FrameDevice, HostBuffer
from asperity.runtime.errors import EngineError

GRANULARITY = 512
"""cuMemAlloc hands out no less."""
CONTEXT_BYTES = 64 * 2**20
"""Left to the driver for graphs, kernels' local memory and the libraries' own."""
MB = 1e6


@dataclass(frozen=True, slots=True)
class _Size:
    nbytes: int
    address: int = 0


class Counting:
    """So much of a ``FrameDevice`` as constructors use, of the same chip; ``device`` is it, for their eyes.

    Host memory, streams and events are not counted. Anything else is an AttributeError: a defect of the program.
    """

    def __init__(self, like: FrameDevice) -> None:
        self.name, self.capability = like.name, like.capability
        self.multiprocessors, self.most_shared_bytes = like.multiprocessors, like.most_shared_bytes
        self.most_cluster = like.most_cluster
        self.nbytes: dict[str, int] = {}
        """Bytes by purpose."""
        self.device = cast(FrameDevice, self)
        self._purpose = "buffers"

    @contextmanager
    def purpose(self, name: str) -> Iterator[None]:
        """What is allocated within is for this."""
        before, self._purpose = self._purpose, name
        try:
            yield
        finally:
            self._purpose = before

    def alloc(self, nbytes: int) -> Buffer:
        """Count it."""
        taken = -(max(nbytes, 1) // -GRANULARITY) * GRANULARITY
        self.nbytes[self._purpose] = self.nbytes.get(self._purpose, 0) + taken
        return _Size(nbytes)

    def upload(self, array: NDArray[Any]) -> Buffer:
        """Count it."""
        return self.alloc(array.nbytes)

    def host(self, nbytes: int) -> HostBuffer:
        """None."""
        return _Host(np.empty(0, dtype=np.uint8))

    def branch(self) -> Branch:
        """None."""
        return _Handle(0)

    def event(self) -> Event:
        """None."""
        return object()


@dataclass(frozen=True, slots=True)
class _Handle:
    handle: int


@dataclass(frozen=True, slots=True)
class _Host:
    data: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Budget:
    """Device memory of one recipe, by purpose."""

    weights: int
    """Taken already."""
    others: dict[str, int]

    @property
    def nbytes(self) -> int:
        """Of one recipe."""
        return self.weights + sum(self.others.values())

    def told(self) -> str:
        """By purpose, in MB."""
        parts = {"networks": self.weights, **self.others}
        return ", ".join(f"{name} {nbytes / MB:.0f}" for name, nbytes in parts.items())


def budget_of(counted: Counting, graphs: DeviceGraphs, names: frozenset[str], lanes: int) -> Budget:
    """What was counted, and the networks."""
    sizes = [graphs.nbytes(name) for name in sorted(names & graphs.names())]
    scratch = lanes * sum(size.scratch for size in sizes)
    return Budget(sum(size.weights for size in sizes), {**counted.nbytes, "networks' scratch": scratch})


def check_room(budget: Budget, device: FrameDevice, recipes: int, lanes: int) -> None:
    """Raises EngineError where the device has no room for ``recipes`` of them; the weights of one are there already."""
    free, total = device.memory()
    needed = recipes * budget.nbytes - budget.weights + CONTEXT_BYTES
    if needed > free:
        more = "recipe" if recipes == 1 else f"each of {recipes} recipes ([engine] recipes_in_memory)"
        raise EngineError(
            f"{device.name} has {free / MB:.0f} MB free of {total / MB:.0f} and {needed / MB:.0f} are needed: "
            f"{budget.nbytes / MB:.0f} for {more} ({budget.told()}); reduce [engine] lanes (now {lanes}), close other "
            "programs on the GPU (nvidia-smi lists them), or calibrate with smaller banks"
        )
