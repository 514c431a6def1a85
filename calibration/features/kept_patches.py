"""Frozen patches on disk, as far as a killed calibration had computed them."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.calibration.features.patches import PatchSet
from asperity.runtime.manifest import Network
from asperity.runtime.vision.features import feature_shapes
from asperity.runtime.vision.tiles import of_window

PRESENT = 1 << 32
"""Above a check sum of 32 bits: the frame has one."""
FILES = ("*.f32", "*.bool", "*.u64")
"""Of one set of patches."""


class KeptPatches:
    """Frozen patches in mapped files, each frame with the check sum it was written with."""

    def __init__(self, folder: Path, frames: int, network: Network, *, made: bool = False) -> None:
        """Open what is there or make it, zeros. Raises OSError when the disk has no room for all of it.

        ``made``: all of it is there and stays as it is. Raises OSError or ValueError where it is not.
        """
        mapped = _whole if made else _mapped
        features = {
            name: mapped(folder / f"{name}.f32", (frames, *shape), np.float32)
            for name, shape in feature_shapes(network).items()
        }
        grid = of_window(network).grid
        nonempty = mapped(folder / "nonempty.bool", (frames, grid, grid), np.bool_)
        self.patches = PatchSet(features, nonempty)
        self._sums = mapped(folder / "sums.u64", (frames,), np.uint64)

    def holds(self, index: int) -> bool:
        """Whether the frame's patches are there as they were written; a power cut may have left half of them."""
        return int(self._sums[index]) == self._sum(index)

    def note(self, index: int) -> None:
        """The frame's patches are complete."""
        self._sums[index] = self._sum(index)

    def take(self, index: int, other: KeptPatches, place: int) -> None:
        """A frame's patches out of another folder, unless they are damaged there: then they are computed again."""
        if not other.holds(place):
            return
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            mine[index] = theirs[place]
        self.note(index)

    def count(self) -> int:
        """How many frames' patches are there."""
        return sum(self.holds(index) for index in range(len(self.patches)))

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return *self.patches.features.values(), self.patches.nonempty

    def _sum(self, index: int) -> int:
        found = 0
        for values in self._arrays():
            found = zlib.crc32(np.ascontiguousarray(values[index]).data, found)
        return found | PRESENT


def _mapped(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("a+b") as file:
        # A full disk must be an error here: a write into a hole of a mapped file would end the process.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, nbytes)
        file.truncate(nbytes)
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def _whole(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)
