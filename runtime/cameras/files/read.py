"""Reads the files of one exposure as a frame, whatever format they have. ``docs/cameras/files.md`` lists the formats.

Everything is bounded before memory is taken for it, and values are passed on as stored: a depth picture stays depth with
intrinsics, so that what is calibrated on equals what a live camera sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asperity.runtime.frame import Frame, MissingPoint, Unit

POINTS_SUFFIXES = (".ply", ".pcd", ".npz", ".npy", ".exr", ".tiff", ".tif", ".png")
COLOUR_SUFFIXES = (".png", ".tiff", ".tif")


@dataclass(frozen=True, slots=True)
class ExposureFiles:
    """The files of one exposure."""

    points: Path
    """An organised cloud or a depth picture."""
    colour: Path | None = None
    """None: the file of the points holds the colour too."""


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What the files do not say themselves."""

    unit: Unit | None = None
    """Of ``stored value * scale``; None: as the intrinsics file says, otherwise not known."""
    scale: float | None = None
    """None: as the intrinsics file says, otherwise 1."""
    invalid: tuple[MissingPoint, ...] = ()
    """What is stored for a missing point."""
    intrinsics: Path | None = None
    """The lens of depth pictures. None: the file beside the exposure holds it (NPZ), or the points are a cloud."""
    white_level: int = 0
    """Of pictures with more than 8 bits per channel: the value that becomes 255; 0: they are refused."""
    size_px: tuple[int, int] | None = None
    """(rows, columns) of clouds whose files do not say it."""
    resample: bool = True
    """Whether a colour picture of a whole multiple of the points' size is reduced to it; otherwise it is refused."""


def read_exposure(files: ExposureFiles, options: FileOptions = FileOptions()) -> Frame:
    """The frame, from camera ``files`` with ``seq`` 0: put in your own with ``dataclasses.replace``.

    Raises DataError naming the file, what is wrong with it and the remedy.
    """
    raise NotImplementedError
