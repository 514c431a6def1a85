"""What each modality costs a frame on this machine, as calibration sees it: for the report, never for a choice."""

from __future__ import annotations

import time

import numpy as np

from asperity.calibration.banks.reference import Reference
from asperity.calibration.features.surfaces import only
from asperity.calibration.frames.prepare_normals import Normals
from asperity.runtime.frame import ModalityName
from asperity.runtime.vision.features import frozen_patches
from asperity.runtime.vision.preprocess import prepare

FRAMES = 5


def frame_ms(normals: Normals, reference: Reference) -> dict[ModalityName, float]:
    """Milliseconds of a frame by colour alone, reading excluded, and what each modality adds to that: medians.

    What modalities of the surface share is counted with each of them.
    """
    network, networks = reference.network, reference.networks
    banks = {name: one.bank for name, one in reference.banks.items()}
    seen: dict[ModalityName, list[float]] = {name: [] for name in network.modalities}
    for index in range(min(FRAMES, len(normals.items))):
        frame = normals.items[index].frame(seq=index)
        for name, found in seen.items():
            some = only(network, ("rgb",) if name == "rgb" else ("rgb", name))
            begin = time.perf_counter()
            prepared = prepare(frame, normals.geometry, some, normals.masks, normals.heights)
            patches = frozen_patches(prepared, some, networks)
            reference.measured(patches, prepared.inspect, {one: banks[one] for one in some.modalities})
            found.append(1e3 * (time.perf_counter() - begin))
    colour = float(np.median(seen["rgb"]))
    more = {name: max(float(np.median(found)) - colour, 0.0) for name, found in seen.items() if name != "rgb"}
    return {"rgb": round(colour, 1), **{name: round(value, 1) for name, value in more.items()}}
