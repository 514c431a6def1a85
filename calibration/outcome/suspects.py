"""Normal frames that may show bad parts: proposed to a person, who alone excludes them.

A frame is measured without the bank rows of its own part. Each modality's distance is compared with those of its like
(frames of the banks score higher than held-out ones) in robust standard deviations, since bad parts among the good must
not stretch the measure that finds them. Beyond ``LIMIT`` in any modality a frame is proposed. How many bad parts are
found so, and how many good ones are named, is in docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asperity.calibration.banks.reference import FrameDistances
from asperity.calibration.record import SplitName, Suspect
from asperity.runtime.frame import BoolArray, FloatArray, ModalityName

LIMIT = 5.0
"""Robust standard deviations. Chosen on good frames and virtual defects, no test frame."""
MAD_TO_SIGMA = 1.4826


def deviations(distances: Sequence[FrameDistances], inside: BoolArray) -> dict[ModalityName, FloatArray]:
    """Each frame's distance above the median of its like, (n,), in robust standard deviations of all, by modality.

    ``inside``: frames of the banks. Where more than half of the distances are equal nothing deviates.
    """
    found: dict[ModalityName, FloatArray] = {}
    for name in distances[0].modalities:
        values = np.array([one.modalities[name].image_distance for one in distances])
        for group in (inside, ~inside):
            if group.any():
                values[group] -= np.median(values[group])
        sigma = MAD_TO_SIGMA * float(np.median(np.abs(values)))
        found[name] = (values / sigma if sigma > 0 else np.zeros(len(values))).astype(np.float32)
    return found


def suspects(
    names: Sequence[str], splits: Sequence[SplitName], distances: Sequence[FrameDistances]
) -> tuple[Suspect, ...]:
    """The proposed frames, the most deviating first. ``splits``: what each frame serves in."""
    if not distances:
        return ()
    found = deviations(distances, np.array([split == "fit" for split in splits]))
    told = [
        Suspect(name, split, {modality: round(float(values[index]), 2) for modality, values in found.items()})
        for index, (name, split) in enumerate(zip(names, splits, strict=True))
        if max(values[index] for values in found.values()) > LIMIT
    ]
    return tuple(sorted(told, key=lambda one: -max(one.deviations.values())))
