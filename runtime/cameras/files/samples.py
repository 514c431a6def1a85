"""Frames on disk, not yet read, and how one is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asperity.runtime.cameras.files.read import ExposureFiles, FileOptions, read_exposure
from asperity.runtime.cameras.mvtec_files import read_frame
from asperity.runtime.frame import Frame, MissingPoint, Unit


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame on disk, not yet read."""

    name: str
    """Path below the listed folder, without ``rgb`` and suffix: ``test/bump/003``, or ``003`` in a bare folder."""
    split: str
    """train, validation or test; empty where the folder does not say."""
    defect: str
    """``good``, a defect's folder name, or empty where the folder does not say."""
    rgb: Path
    xyz: Path
    """Points or depth; the same file as ``rgb`` where it holds both."""
    gt: Path | None
    intrinsics: Path | None = None
    """The file next to it that says through which lens depth is seen, and in which unit."""

    @property
    def is_pair(self) -> bool:
        """Whether it is ``rgb/NAME.png`` and ``xyz/NAME.tiff``, as in MVTec 3D-AD."""
        return (self.rgb.parent.name, self.xyz.parent.name) == ("rgb", "xyz") and self.xyz.suffix.lower() in CLOUDS


CLOUDS = (".tiff", ".tif")


def read_sample(
    sample: Sample, *, camera: str = "replay", camera_session: str = "", seq: int = 0, part_id: str = "",
    unit: Unit | None = None, invalid: Sequence[MissingPoint] = (),
) -> Frame:  # fmt: skip
    """Read its files; ``unit`` None: as an ``intrinsics.json`` says, else left to preprocessing. Points stored as one
    of ``invalid`` become missing ones. Raises DataError."""
    if sample.is_pair:
        return read_frame(
            sample.rgb, sample.xyz, camera=camera, camera_session=camera_session, seq=seq, part_id=part_id, unit=unit,
            invalid=invalid,
        )  # fmt: skip
    files = ExposureFiles(sample.xyz, None if sample.rgb == sample.xyz else sample.rgb)
    frame = read_exposure(files, FileOptions(unit=unit, invalid=tuple(invalid), intrinsics=sample.intrinsics))
    return replace(frame, camera=camera, camera_session=camera_session, seq=seq, part_id=part_id)
