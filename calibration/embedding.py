"""Frozen patches of all normal frames, computed once: in memory, or in a temporary file beyond a stated size."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.networks.torch_networks import TorchNetworks
from calibration.patches import PatchSet
from calibration.profiles import Profile
from runtime.features import Patches, frozen_patches
from runtime.frame import Prepared
from runtime.manifest import Network
from runtime.points import group

STATION_FRAMES = 32
"""Fit frames from which ``point_bn = station`` takes its statistics."""


class PatchCache:
    """Where the patches lie. Use as a context: leaving it removes the temporary file."""

    def __init__(self, limit_mb: int, folder: Path) -> None:
        self._limit_bytes = limit_mb * 2**20
        self._folder = folder
        self._files: list[Any] = []

    def __enter__(self) -> PatchCache:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def allocate(self, frames: int, network: Network) -> PatchSet:
        """Room for so many frames, zeros."""
        shapes = (
            (frames, network.rgb_grid**2, network.rgb_channels),
            (frames, network.grid**2, network.points_channels),
        )
        size = sum(4 * int(np.prod(shape)) for shape in shapes)
        make = np.zeros if size <= self._limit_bytes else self._on_disk
        rgb, points = (make(shape, np.float32) for shape in shapes)
        return PatchSet(rgb, points, np.zeros((frames, network.grid, network.grid), dtype=bool))

    def _on_disk(self, shape: tuple[int, ...], dtype: type[np.float32]) -> NDArray[np.float32]:
        # Unlinked where the system allows it, so that no crash leaves it behind.
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long as the array
        self._files.append(file)
        if hasattr(os, "posix_fallocate"):
            # A full disk must be an error here: a write into a hole of a mapped file would end the process.
            os.posix_fallocate(file.fileno(), 0, 4 * int(np.prod(shape)))
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def embed(
    prepared: Sequence[Prepared],
    network: Network,
    networks: TorchNetworks,
    cache: PatchCache,
    progress: Callable[[int, int], None],
) -> PatchSet:
    """Frozen patches of the frames in their order, through the runtime's own functions.

    ``progress(done, total)`` after each frame. Raises EngineError as ``frozen_patches``.
    """
    patches = cache.allocate(len(prepared), network)
    for index, frame in enumerate(prepared):
        one = frozen_patches(frame, network, networks)
        patches.rgb[index], patches.points[index], patches.nonempty[index] = one.rgb, one.points, one.nonempty
        progress(index + 1, len(prepared))
    return patches


def frame_of(patches: PatchSet, index: int) -> Patches:
    """One frame's patches."""
    return Patches(
        rgb=np.asarray(patches.rgb[index]), points=np.asarray(patches.points[index]), nonempty=patches.nonempty[index]
    )


def fit_station_statistics(
    prepared: Sequence[Prepared], network: Network, networks: TorchNetworks, chosen: Profile
) -> None:
    """Re-estimate the mini-PointNet's BatchNorm statistics where the profile says so (lsfa 11 row 17)."""
    if chosen.point_bn != "station":
        return
    spread = np.unique(np.linspace(0, len(prepared) - 1, STATION_FRAMES).astype(int))
    networks.fit_point_statistics([group(prepared[i].cloud, network).groups for i in spread])
