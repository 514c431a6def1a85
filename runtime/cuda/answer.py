"""Kernels between the stages of a frame and at its end: distances to tokens, finite numbers, one packed answer.

Kernels: ``answer.cu``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from asperity.runtime.cuda.launch import Buffer, Device, Launch
from asperity.runtime.errors import EngineError

BLOCK = 256
CHECK_BLOCKS = 128
ALIGN = 16
PIECE = np.dtype([("from", "<u8"), ("nbytes", "<i4"), ("to", "<i4")])


def enqueue_place(
    device: Device,
    distance: Buffer,
    chosen: Buffer,
    count: Buffer,
    most: int,
    tokens: int,
    placed: Buffer,
    fault: Buffer,
) -> None:
    """``placed`` tokens f4: the *count of ``most`` searched tokens' distances, 0 for all others."""
    device.launch(
        Launch("place_distances", (-(tokens // -BLOCK), 1, 1), (BLOCK, 1, 1)),
        distance, chosen, count, np.int32(most), np.int32(tokens), placed, fault,
    )  # fmt: skip


def enqueue_check(device: Device, values: Buffer, count: int, fault: Buffer) -> None:
    """A fault unless the first ``count`` float32 are finite."""
    blocks = min(CHECK_BLOCKS, -(count // -BLOCK))
    device.launch(Launch("check_finite", (blocks, 1, 1), (BLOCK, 1, 1)), values, np.int32(count), fault)


@dataclass(frozen=True, slots=True)
class Piece:
    """An array on the device that the host wants to see. ``offset`` bytes into its buffer."""

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: DTypeLike
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Packed:
    """Arrays side by side in ``out``, and how to tell them apart on the host."""

    def __init__(self, device: Device, pieces: Mapping[str, Piece]) -> None:
        self.device, self._pieces, self._offsets = device, dict(pieces), {}
        table, offset = np.zeros(len(pieces), dtype=PIECE), 0
        for row, (name, piece) in enumerate(self._pieces.items()):
            if piece.offset + piece.nbytes > piece.buffer.nbytes or piece.nbytes < 1:
                raise EngineError(f"{name}: {piece.nbytes} bytes from {piece.offset} on are not in its buffer")
            self._offsets[name] = offset
            table[row] = (piece.buffer.address + piece.offset, piece.nbytes, offset)
            offset += -(piece.nbytes // -ALIGN) * ALIGN
        self.nbytes = offset
        self._table, self.out = device.upload(table), device.alloc(offset)

    def enqueue(self) -> None:
        """Gather the arrays as they are then."""
        self.device.launch(Launch("pack_pieces", (len(self._pieces), 1, 1), (BLOCK, 1, 1)), self._table, self.out)

    def read(self, packed: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """The arrays out of the bytes of ``out``: views, which the next frame overwrites."""
        return {
            name: packed[self._offsets[name] : self._offsets[name] + piece.nbytes]
            .view(piece.dtype)
            .reshape(piece.shape)
            for name, piece in self._pieces.items()
        }
