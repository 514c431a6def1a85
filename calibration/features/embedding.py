"""Frozen patches of all normal frames, computed once: in memory, or in a folder that outlives a killed process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from asperity.calibration.features.kept_patches import KeptPatches
from asperity.calibration.features.patches import PatchSet
from asperity.calibration.networks.torch_networks import TorchNetworks
from asperity.calibration.profiles import Profile
from asperity.runtime.frame import Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.features import Patches, feature_shapes, frozen_patches
from asperity.runtime.vision.points import group
from asperity.runtime.vision.tiles import of_window

STATION_FRAMES = 32
"""Fit frames from which ``point_bn = station`` takes its statistics."""


def empty_patches(frames: int, network: Network) -> PatchSet:
    """Room in memory for so many frames, zeros."""
    return PatchSet(
        {name: np.zeros((frames, *shape), np.float32) for name, shape in feature_shapes(network).items()},
        np.zeros((frames, of_window(network).grid, of_window(network).grid), np.bool_),
    )


def embed(
    prepared: Sequence[Prepared],
    network: Network,
    networks: TorchNetworks,
    progress: Callable[[int, int], None],
    kept: KeptPatches | None = None,
) -> PatchSet:
    """Frozen patches of the frames in their order, through the runtime's own functions.

    ``kept``: where they are written, and whose frames are not computed again; None: memory.
    ``progress(done, total)`` after each frame. Raises EngineError as ``frozen_patches``.
    """
    patches = kept.patches if kept is not None else empty_patches(len(prepared), network)
    for index, frame in enumerate(prepared):
        if kept is None or not kept.holds(index):
            one = frozen_patches(frame, network, networks)
            patches.nonempty[index] = one.nonempty
            for name, values in one.features.items():
                patches.features[name][index] = values
        if kept is not None:
            kept.note(index)
        progress(index + 1, len(prepared))
    return patches


def frame_of(patches: PatchSet, index: int) -> Patches:
    """One frame's patches."""
    features = {name: np.asarray(values[index]) for name, values in patches.features.items()}
    return Patches(features, patches.nonempty[index])


def one_frame(patches: Patches) -> PatchSet:
    """A set of this one frame."""
    return PatchSet({name: values[None] for name, values in patches.features.items()}, patches.nonempty[None])


def fit_station_statistics(
    prepared: Sequence[Prepared], network: Network, networks: TorchNetworks, chosen: Profile
) -> None:
    """Re-estimate the mini-PointNet's BatchNorm statistics where the profile says so (lsfa 11 row 17)."""
    if chosen.point_bn != "station":
        return
    spread = np.unique(np.linspace(0, len(prepared) - 1, STATION_FRAMES).astype(int))
    networks.fit_point_statistics([group(prepared[i].cloud, network).groups for i in spread])
