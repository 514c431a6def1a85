"""What a calibration keeps of its frames, so that frames which come later can be added: ``kept/`` in its folder.

frames.json           KeptFrames: names, parts and roles, and what the patches belong to
inputs.safetensors    model inputs of all frames: the arrays of ``Prepared``, one above the other
*.f32, *.bool, *.u64  frozen patches with a check sum for each frame (``features.kept_patches``)

Removing the folder costs nothing but `asperity refit`; removing the patches alone costs it the time to compute them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from asperity.calibration.features.kept_patches import KeptPatches
from asperity.calibration.networks.weights import sha256_of
from asperity.calibration.options import CalibrateOptions
from asperity.calibration.outcome.result import Outcome
from asperity.calibration.outcome.resumable import Resumable
from asperity.calibration.record import NETWORKS, CalibrationFolder, SplitName
from asperity.runtime.errors import DataError
from asperity.runtime.files import write_whole
from asperity.runtime.frame import Prepared, Silhouette, Window
from asperity.runtime.manifest import Geometry, Network
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json

FOLDER, FRAMES, INPUTS = "kept", "frames.json", "inputs.safetensors"
REMEDY = "calibrate again from all frames"


class KeptFrame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A normal frame as far as it cannot be read from its model inputs."""

    name: str
    part: str
    """Its part as counted: equal for frames of one part."""
    part_id: str
    """As given; empty: none was."""
    split: SplitName
    digests: tuple[int, int]
    """CRC-32 of the whole source frame, and of its colour picture."""
    window: Window
    silhouette: dict[str, float]
    """Figures that are finite."""


class KeptFrames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``frames.json``."""

    belongs_to: str
    """Digest of networks, geometry and options: patches of others do not compare."""
    named: bool
    """Whether every frame was given an id of its part."""
    frames: tuple[KeptFrame, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A calibration's frames, in its own order."""

    folder: Path
    record: KeptFrames
    prepared: tuple[Prepared, ...]

    def patches(self, network: Network) -> KeptPatches | None:
        """Their frozen patches; None where they were removed."""
        try:
            return KeptPatches(self.folder, len(self.prepared), network, made=True)
        except (OSError, ValueError):
            return None


def belongs_to(networks: Path, options: CalibrateOptions, geometry: Geometry, network: Network) -> str:
    """What a frame's model inputs and patches follow from, as one digest. Raises DataError."""
    followed = (sha256_of(networks), options, geometry, network)
    return hashlib.sha256(msgspec.json.encode(followed)).hexdigest()


def stacked(prepared: Sequence[Prepared]) -> dict[str, NDArray[np.generic]]:
    """The arrays of the frames' model inputs, one above the other, by their names."""
    names = [each.name for each in dataclasses.fields(Prepared)]
    arrays = [name for name in names if isinstance(getattr(prepared[0], name), np.ndarray)]
    return {name: np.stack([getattr(one, name) for one in prepared]) for name in arrays}


def write_kept(outcome: Outcome, work: Resumable) -> None:
    """Move the patches out of the work folder into the draft, and write the rest beside them. Raises OSError."""
    folder = work.draft / FOLDER
    folder.mkdir()
    normals = outcome.normals
    work.give_patches(folder, len(normals.prepared), outcome.reference.network)
    save_file(stacked(normals.prepared), folder / INPUTS)
    frames = tuple(
        KeptFrame(
            item.name, part, item.part_id, outcome.split.name_of(index), digests, one.window,
            {name: value for name, value in dataclasses.asdict(one.silhouette).items() if math.isfinite(value)},
        )
        for index, (item, part, digests, one) in enumerate(
            zip(normals.items, normals.parts.of_frames, normals.digests, normals.prepared, strict=True)
        )
    )
    digest = belongs_to(work.draft / NETWORKS, outcome.options, normals.geometry, outcome.reference.network)
    record = KeptFrames(digest, normals.parts.named, frames)
    write_whole(folder / FRAMES, msgspec.json.format(msgspec.json.encode(record), indent=1), mode=0o644)


def read_kept(calibration: CalibrationFolder) -> Kept:
    """Raises DataError when nothing was kept, or when it belongs to other networks or another geometry."""
    folder, record = calibration.path / FOLDER, calibration.record
    try:
        kept = decode_json((folder / FRAMES).read_bytes(), KeptFrames)
        arrays = load_file(folder / INPUTS)
    except FileNotFoundError as error:
        raise DataError(
            f"{calibration.path} keeps no frames: {error.filename} was removed, or an earlier version made it; {REMEDY}"
        ) from error
    except (OSError, SafetensorError, TextRefused) as error:
        raise DataError(f"{folder} cannot be read ({error}); {REMEDY}") from error
    if kept.belongs_to != belongs_to(calibration.networks_path, record.options, record.geometry, record.network):
        raise DataError(f"the frames in {folder} belong to other networks, options or geometry; {REMEDY}")
    if any(len(array) != len(kept.frames) for array in arrays.values()):
        raise DataError(f"{folder / INPUTS} does not hold the {len(kept.frames)} frames of {FRAMES}; {REMEDY}")
    try:
        prepared = tuple(
            Prepared(
                window=one.window, silhouette=Silhouette(**one.silhouette),
                **{name: array[i] for name, array in arrays.items()},
            )
            for i, one in enumerate(kept.frames)
        )
    except TypeError as error:
        raise DataError(f"{folder / INPUTS} was written by another version ({error}); {REMEDY}") from error
    return Kept(folder, kept, prepared)
