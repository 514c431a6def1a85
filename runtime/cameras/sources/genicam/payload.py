"""The components of one buffer -> colour and 3D data of a frame. Pure: bytes in, arrays out.

Both come from one buffer, so they are of one exposure. A buffer that lacks one of them, or some of its bytes, is a lost
exposure (``Damaged``) and is never filled up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.pictures import coordinates, pixels
from asperity.runtime.cameras.sources.genicam.nodes import Scan3d
from asperity.runtime.errors import CameraError
from asperity.runtime.frame import ByteArray, FloatArray, Intrinsics, Unit, frame_size_fault

MM_PER_INCH = 25.4
PLANES = ("A", "B", "C")


class Damaged(Exception):
    """This exposure cannot be used; others can."""


class Part(NamedTuple):
    """One component of a buffer."""

    format: str
    """Pixel format by the name of GenICam's PFNC."""
    bits: int
    """Per pixel, as stored."""
    width_px: int
    height_px: int
    padding_nbytes: int
    """After each row."""
    data: ByteArray
    """Its bytes, copied: the camera writes its next exposure over the buffer. May end in bytes of something else."""


class Delivery(NamedTuple):
    """What one buffer held."""

    parts: tuple[Part, ...]
    """Empty: the buffer came incomplete."""
    frame_id: int | None = None
    time_us: int = 0
    """Of the device; 0: it gives none."""
    scan3d: Scan3d = Scan3d()


class Picture(NamedTuple):
    """The part of a frame that a buffer gives."""

    rgb: ByteArray
    xyz: FloatArray | None
    depth: NDArray[np.uint16] | FloatArray | None
    intrinsics: Intrinsics | None
    unit: Unit | None
    scale: float
    offset: float
    invalid: float | None
    colour_px: tuple[int, int]
    """(rows, columns) of the colour before it was brought onto the 3D data's pixels."""


def picture_of(delivery: Delivery, white_level: int = 0, unit: Unit | None = None) -> Picture:
    """Colour and 3D data of a buffer. ``unit``: where the camera does not say one.

    Raises Damaged for a buffer that lacks something, CameraError for a camera that is set to what cannot be used.
    """
    three_d, colour = _sorted(delivery.parts)
    rows, columns = three_d[0].height_px, three_d[0].width_px
    scan3d, (found_unit, factor) = delivery.scan3d, _unit(delivery.scan3d, unit)
    if scan3d.system not in ("", "Cartesian"):
        raise CameraError(f"the camera's Scan3dCoordinateSystem is {scan3d.system}; set it to Cartesian")
    axes = scan3d.axes._replace(scale=_times(scan3d.axes.scale, factor), offset=_times(scan3d.axes.offset, factor))
    name = three_d[0].format
    rgb = pixels.colour(
        _cut(colour), colour.format, colour.height_px, colour.width_px, white_level=white_level,
        row_nbytes=_row_nbytes(colour),
    ).rgb  # fmt: skip
    if (resized := rgb).shape[:2] != (rows, columns):
        from asperity.runtime.cameras.pictures.registration import by_grid  # scipy, which few cameras need

        resized = by_grid(rgb, rows, columns)
    xyz: FloatArray | None = None
    depth: NDArray[np.uint16] | FloatArray | None = None
    lens: Intrinsics | None = None
    scale, offset, invalid = 1.0, 0.0, None
    if "ABC" in name or len(three_d) == len(PLANES):
        stored = _packed(three_d[0])
        if len(three_d) == len(PLANES):
            name = name.replace("_A", "_ABC") + "_Planar"
            stored = np.concatenate([_packed(part) for part in three_d])
        xyz = coordinates.points(stored, name, rows, columns, axes)
    elif scan3d.mode.startswith("RectifiedC"):
        if axes.invalid[2] is None:  # as of a depth picture: a stored 0 is missing, never a point at the offset
            axes = axes._replace(invalid=(None, None, 0.0))
        xyz = coordinates.points_of_heights(_packed(three_d[0]), name, rows, columns, axes)
    elif scan3d.focal_px > 0 and scan3d.mode in ("", "CalibratedC"):
        depth = coordinates.depth(_packed(three_d[0]), name, rows, columns)
        lens = coordinates.intrinsics(scan3d.focal_px, scan3d.focal_px, *scan3d.principal_px)
        scale, offset, invalid = axes.scale[2], axes.offset[2], axes.invalid[2]
    else:
        raise CameraError(
            f"the camera gives {name} with Scan3dOutputMode {scan3d.mode or 'unknown'} and no focal length, of which "
            "no points can be made; set Scan3dOutputMode to CalibratedABC_Grid or RectifiedC"
        )
    return Picture(resized, xyz, depth, lens, found_unit, scale, offset, invalid, (rgb.shape[0], rgb.shape[1]))


def _sorted(parts: tuple[Part, ...]) -> tuple[list[Part], Part]:
    """The 3D components, A to C where there are three, and the colour. Raises Damaged, CameraError."""
    names = ", ".join(f"{part.format} {part.width_px} x {part.height_px}" for part in parts) or "nothing"
    for part in parts:
        if fault := frame_size_fault(part.height_px, part.width_px):
            raise CameraError(f"the camera's component {part.format} is {fault}")
    three_d = [part for part in parts if part.format.startswith("Coord3D_")]
    colours = [part for part in parts if not part.format.startswith(("Coord3D_", "Confidence"))]
    if not three_d or not colours:
        raise Damaged(f"it holds {names}; a frame needs colour or grey, and 3D data")
    if len(colours) > 1:
        raise CameraError(f"the camera gives more than one picture ({names}); switch off all but one component")
    letters = [part.format.removeprefix("Coord3D_")[:1] for part in three_d]
    if len(three_d) == len(PLANES) and sorted(letters) == list(PLANES) and not any("ABC" in p.format for p in three_d):
        three_d = [three_d[letters.index(letter)] for letter in PLANES]
        if len({part.format[len("Coord3D_A") :] for part in three_d}) > 1:
            raise CameraError(f"the camera's coordinates are stored in different ways ({names})")
    elif len(three_d) > 1 and len(set(letters)) < len(three_d):
        raise CameraError(
            f"the camera gives more than one 3D component ({names}), such as normals next to points, and nothing says "
            "which is which; switch off all but one"
        )
    elif len(three_d) > 1:
        raise Damaged(f"it holds {names}; one of the three coordinates is missing")
    if len({(part.height_px, part.width_px) for part in three_d}) > 1:
        raise CameraError(f"the camera's coordinates are of different sizes ({names})")
    return three_d, colours[0]


def _unit(scan3d: Scan3d, given: Unit | None) -> tuple[Unit | None, float]:
    if not scan3d.unit:
        return given, 1.0
    inches = scan3d.unit == "Inch"
    unit: Unit = "mm" if inches else coordinates.unit_of(scan3d.unit)
    if given is not None and given != unit:
        raise CameraError(f"[genicam] unit is {given!r} and the camera's Scan3dDistanceUnit {scan3d.unit}; remove unit")
    return unit, MM_PER_INCH if inches else 1.0


def _times(three: coordinates.Three, factor: float) -> coordinates.Three:
    return three[0] * factor, three[1] * factor, three[2] * factor


def _row_nbytes(part: Part) -> int:
    return (part.width_px * part.bits + 7) // 8 + part.padding_nbytes


def _cut(part: Part) -> ByteArray:
    """The component's own bytes. Raises Damaged where some are missing."""
    needed = _row_nbytes(part) * part.height_px
    if part.data.size < needed:
        raise Damaged(f"its component {part.format} has {part.data.size} bytes of {needed}")
    return part.data[:needed]


def _packed(part: Part) -> ByteArray:
    """The same without what is between rows."""
    rows = _cut(part).reshape(part.height_px, -1)
    return np.ascontiguousarray(rows[:, : rows.shape[1] - part.padding_nbytes]).reshape(-1)
