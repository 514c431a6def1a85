"""Normal frames with pseudo-defects, ready for the networks: what tells whether a modality helps to see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from asperity.calibration.frames.prepare_normals import Normals
from asperity.calibration.tuning.frame_defects import (
    COLOUR_KINDS,
    GEOMETRY_KINDS,
    Kind,
    changed_patches,
    depth_noise_mm,
    draw_defect,
    spoil_frame,
)
from asperity.runtime.errors import DataError, FrameRefused
from asperity.runtime.frame import BoolArray, Prepared
from asperity.runtime.manifest import Network
from asperity.runtime.vision.preprocess import find_part, prepare
from asperity.runtime.vision.tiles import of_window

NOISE_FRAMES = 3
"""Depth noise is measured on so many frames."""


@dataclass(frozen=True, slots=True)
class SpoiledNormal:
    """A normal frame with one pseudo-defect."""

    kind: Kind
    prepared: Prepared
    changed: BoolArray  # grid x grid: patches of which at least half is spoiled


Spoiler = Callable[[int], Iterator[SpoiledNormal]]
"""A normal frame's index -> it with one defect of geometry, and again with one of colour; none that is refused."""


def spoiler(normals: Normals, network: Network, seed: int) -> Spoiler:
    """Raises FrameRefused as ``depth_noise_mm``; the function itself as frames that cannot be read."""
    geometry = normals.geometry
    noise_mm = depth_noise_mm([item.frame() for item in normals.items[:NOISE_FRAMES]], geometry)

    def spoiled(index: int) -> Iterator[SpoiledNormal]:
        rng = np.random.default_rng((seed, index))
        frame = normals.items[index].frame(seq=index)
        found = find_part(frame, geometry)
        kinds: tuple[Kind, Kind] = (
            GEOMETRY_KINDS[index % len(GEOMETRY_KINDS)], COLOUR_KINDS[index % len(COLOUR_KINDS)]
        )  # fmt: skip
        for kind in kinds:
            try:
                made = spoil_frame(frame, geometry, draw_defect(kind, geometry, noise_mm, rng), rng, found)
                prepared = prepare(made.frame, geometry, network, normals.masks, normals.heights)
            except (DataError, FrameRefused):
                continue  # too small a part, or one defect too many for it: it says nothing of a modality
            changed = changed_patches(made.changed, found.part, prepared.window, of_window(network).grid)
            yield SpoiledNormal(kind, prepared, changed)

    return spoiled
