"""A launch, and the device it runs on. Pure data and one protocol, implemented by a GPU and by the CPU stand-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Dim3: TypeAlias = tuple[int, int, int]
Enqueue: TypeAlias = Callable[[], None]
"""Something that puts work on a device's stream."""

MAX_THREADS = 1024
MAX_GRID_YZ = 65535


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel's name and shape. ``cluster`` blocks along x share their shared memory (compute capability >= 9.0)."""

    kernel: str
    grid: Dim3
    block: Dim3
    shared_bytes: int = 0
    """Dynamic shared memory a block."""
    cluster: int = 1

    def __post_init__(self) -> None:
        threads = self.block[0] * self.block[1] * self.block[2]
        if not 1 <= threads <= MAX_THREADS or min(self.block) < 1:
            raise ValueError(f"{self.kernel}: a block of {self.block} threads; 1 to {MAX_THREADS} are possible")
        if min(self.grid) < 1 or max(self.grid[1:]) > MAX_GRID_YZ:
            raise ValueError(f"{self.kernel}: a grid of {self.grid} blocks; 1 to {MAX_GRID_YZ} in y and z are possible")
        if self.cluster < 1 or self.grid[0] % self.cluster:
            raise ValueError(f"{self.kernel}: a grid of {self.grid[0]} blocks does not divide into {self.cluster}s")
        if self.shared_bytes < 0:
            raise ValueError(f"{self.kernel}: {self.shared_bytes} bytes of shared memory")


class Buffer(Protocol):
    """Device memory. ``address`` is what a kernel gets."""

    @property
    def address(self) -> int: ...

    @property
    def nbytes(self) -> int: ...


Argument: TypeAlias = "Buffer | np.generic"


class Device(Protocol):
    """Memory and launches, in order, on one stream. Raises EngineError on any failure of the device."""

    name: str
    multiprocessors: int
    most_shared_bytes: int
    """What one block may have, static and dynamic together."""
    most_cluster: int
    """Blocks of a cluster that every such chip can place; 1 where there are no clusters."""
    capability: tuple[int, int]
    """Compute capability."""

    def alloc(self, nbytes: int) -> Buffer:
        """New memory of undefined content. Never on the frame path."""

    def upload(self, array: NDArray[Any]) -> Buffer:
        """New memory with the array's bytes in C order. Never on the frame path."""

    def write(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """The array's bytes into the start of existing memory."""

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The start of a buffer as a new array, when everything launched before is done."""

    def launch(self, launch: Launch, *arguments: Argument) -> None:
        """Enqueue one kernel. Scalars are numpy scalars of exactly the parameter's type."""

    def at(self, buffer: Buffer, offset: int) -> Buffer:
        """The part of a buffer from ``offset`` bytes on; it lives as long as the buffer."""

    def half_product(
        self, left: Buffer, right: Buffer, out: Buffer, *, rows: int, columns: int, channels: int, first: int
    ) -> None:
        """Enqueue out (rows x columns float32) = left (rows x channels half) x right[first:first + columns] transposed.

        ``right`` has ``channels`` halfs a row; sums are kept in float32. The vendor's library on a GPU.
        """

    def synchronize(self) -> None:
        """Wait for everything enqueued; a failure of a kernel shows here at the latest."""
