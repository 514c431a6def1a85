"""Reads the files of one exposure as a frame, whatever format they have. ``docs/cameras/files.md`` lists the formats.

Everything is bounded before memory is taken for it, and values are passed on as stored: a depth picture stays depth
with intrinsics, so that what is calibrated on equals what a live camera sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from asperity.runtime.cameras.files.content import Content, Size
from asperity.runtime.cameras.files.exr import decode_exr
from asperity.runtime.cameras.files.intrinsics import Lens, read_intrinsics
from asperity.runtime.cameras.files.numpy_files import decode_npy, decode_npz
from asperity.runtime.cameras.files.pcd import decode_pcd
from asperity.runtime.cameras.files.pictures import (
    TIFFS,
    read_colour,
    read_png_depth,
    read_tiff_points,
    reduced,
    words,
)
from asperity.runtime.cameras.files.ply import decode_ply
from asperity.runtime.errors import DataError
from asperity.runtime.files import read_file
from asperity.runtime.frame import ByteArray, Frame, Intrinsics, MissingPoint, Unit
from asperity.runtime.vision.missing_points import without_missing
from asperity.runtime.vision.picture_files import MAX_FILE_NBYTES

BOTH_SUFFIXES = (".ply", ".pcd", ".npz", ".exr")
"""Formats that may hold points and colour in one file."""
POINTS_SUFFIXES = (*BOTH_SUFFIXES, ".npy", *TIFFS, ".png")
COLOUR_SUFFIXES = (".png", *TIFFS)
T = TypeVar("T")
NO_LENS = Lens(None, None, None, None, None, 0)


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
    """What is stored for a missing point, besides what the intrinsics file says."""
    intrinsics: Path | None = None
    """``intrinsics.json``: the lens of depth pictures; unit, scale, invalid, white level. None: there is none."""
    white_level: int = 0
    """Of pictures with more than 8 bits per channel: the value that becomes 255; 0: as the intrinsics file says,
    otherwise they are refused."""
    size_px: Size | None = None
    """(rows, columns) of clouds whose files do not say it; None: as the intrinsics file says, otherwise those of the
    colour picture."""
    resample: bool = True
    """Whether a colour picture of a whole multiple of the points' size is reduced to it; otherwise it is refused."""


def read_exposure(files: ExposureFiles, options: FileOptions = FileOptions()) -> Frame:
    """The frame, from camera ``files`` with ``seq`` 0: put in your own with ``dataclasses.replace``.

    Raises DataError naming the file, what is wrong with it and the remedy.
    """
    lens = read_intrinsics(options.intrinsics) if options.intrinsics else NO_LENS
    unit: Unit | None = _agreed("unit", options.unit, lens.unit, options)
    scale = _agreed("scale", options.scale, lens.scale, options)
    white_level = _agreed("white_level", options.white_level or None, lens.white_level or None, options) or 0
    colour = read_colour(files.colour, white_level) if files.colour else None
    size_px = options.size_px or lens.size_px or (colour.shape[:2] if colour is not None else None)
    content = _read_points(files.points, size_px)
    frame = Frame(
        camera="files", camera_session="", seq=0, rgb=_colour(files, content, colour, options), xyz=content.xyz,
        depth=content.depth, intrinsics=_intrinsics(files.points, content, lens, options), unit=unit,
        scale=1.0 if scale is None else scale, invalid=lens.invalid,
    )  # fmt: skip
    return without_missing(frame, options.invalid)


def _read_points(path: Path, size_px: Size | None) -> Content:
    suffix = path.suffix.lower()
    if suffix in TIFFS:
        return read_tiff_points(path)
    if suffix == ".png":
        return read_png_depth(path)
    decoders: dict[str, Callable[[bytes], Content]] = {
        ".ply": lambda data: decode_ply(data, size_px), ".pcd": decode_pcd, ".npz": decode_npz, ".npy": decode_npy,
        ".exr": decode_exr,
    }  # fmt: skip
    if suffix not in decoders:
        raise DataError(f"{path} is not of a format that is read; points come as {', '.join(POINTS_SUFFIXES)}")
    try:
        content = decoders[suffix](read_file(path, MAX_FILE_NBYTES, follow=True))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, DataError) as error:
        raise DataError(f"{path} {words(error)}") from error
    if content.xyz is None and content.depth is None:
        raise DataError(f"{path} holds colour alone; depth or points are missing")
    return content


def _colour(files: ExposureFiles, content: Content, colour: ByteArray | None, options: FileOptions) -> ByteArray:
    points = content.xyz if content.xyz is not None else content.depth
    assert points is not None
    rows, columns = points.shape[:2]
    rgb, path = (content.rgb, files.points) if colour is None else (colour, files.colour)
    if rgb is None:
        raise DataError(
            f"{files.points} holds no colour; export it with colour, or put the camera's picture next to it "
            "(docs/cameras/files.md says how the two are matched)"
        )
    fitting = reduced(rgb, (rows, columns)) if options.resample else rgb
    if fitting is None or fitting.shape[:2] != (rows, columns):
        raise DataError(
            f"{path} is {rgb.shape[0]} x {rgb.shape[1]} pixels but {files.points} is {rows} x {columns}; colour and "
            "points must be pixel-aligned"
        )
    return fitting


def _intrinsics(points: Path, content: Content, lens: Lens, options: FileOptions) -> Intrinsics | None:
    if content.depth is None:
        return None
    rows, columns = content.depth.shape
    if content.intrinsics is not None and lens.intrinsics is not None and content.intrinsics != lens.intrinsics:
        raise DataError(f"{points} and {options.intrinsics} say different things of the lens; remove one of them")
    found = content.intrinsics or lens.intrinsics
    if found is None:
        raise DataError(
            f"{points} is a depth picture and nothing says through which lens; put an intrinsics.json with fx, fy, cx "
            "and cy next to it (docs/cameras/files.md)"
        )
    if lens.size_px is not None and lens.size_px != (rows, columns):
        raise DataError(
            f"{options.intrinsics} holds for pictures of {lens.size_px[0]} x {lens.size_px[1]} pixels (height x width) "
            f"but {points} is {rows} x {columns}; give the depth camera's"
        )
    return found


def _agreed(name: str, chosen: T | None, said: T | None, options: FileOptions) -> T | None:
    if chosen is not None and said is not None and chosen != said:
        raise DataError(f"{options.intrinsics} says {name} {said} and {chosen} was given; they must agree")
    return said if chosen is None else chosen
