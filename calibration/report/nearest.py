"""The normal patch that a strange patch resembles most: what a person compares it with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asperity.calibration.outcome.result import Outcome
from asperity.calibration.report.pictures import Patch, patch_pair
from asperity.runtime.frame import ModalityName
from asperity.runtime.vision.scoring import deciding_modality


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of the patch that a frame's deciding modality finds strangest."""

    modality: ModalityName
    name: str
    """Of the normal frame, of another part."""
    x_px: int
    y_px: int
    """Middle of the normal patch in its source frame."""
    picture: bytes


def nearest_of(outcome: Outcome, index: int) -> Nearest | None:
    """None where nothing of the frame was scored."""
    found = outcome.distances[index]
    modality = deciding_modality(found.modalities, outcome.decision)
    if modality is None or not found.scored.any():
        return None
    distances = np.where(found.scored, found.modalities[modality].distance_map, -1.0)
    cell, grid = int(distances.argmax()), found.scored.shape[0]
    place = outcome.reference.nearest_normal(index, modality, cell)
    if place is None:
        return None
    other, other_cell = place

    def patch(frame: int, at: int) -> Patch:
        prepared = outcome.normals.prepared[frame]
        return Patch(prepared.image, prepared.cloud, (at // grid + 0.5) / grid, (at % grid + 0.5) / grid)

    normal, window = patch(other, other_cell), outcome.normals.prepared[other].window
    return Nearest(
        modality, outcome.normals.names[other], round(window.x_px + normal.column * window.side_px),
        round(window.y_px + normal.row * window.side_px), patch_pair(patch(index, cell), normal),
    )  # fmt: skip
