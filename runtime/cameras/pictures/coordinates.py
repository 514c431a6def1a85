"""3D data as cameras store it -> points (f4, one unit) or a depth picture, and lenses. Pure.

Depth with intrinsics stays a depth picture: it is a third of the points on the wire, and the station makes the points.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.pictures.pixels import Buffer, raw_bytes
from asperity.runtime.errors import CameraError
from asperity.runtime.frame import FloatArray, Intrinsics, Unit, frame_size_fault

Three = tuple[float, float, float]

UNITS: dict[str, Unit] = {"millimeter": "mm", "millimetre": "mm", "mm": "mm", "meter": "m", "metre": "m", "m": "m",
                          "micrometer": "um", "micrometre": "um", "um": "um"}  # fmt: skip
DTYPES = {"8": "u1", "16": "u2", "16s": "i2", "32f": "f4"}
STRAIGHT_IF_ZERO = frozenset({"inverse_brown_conrady", "modified_brown_conrady", "brown_conrady", "plumb_bob"})
"""Distortion models that are a pinhole when every coefficient is 0. A fisheye's are not."""


class Axes(NamedTuple):
    """How stored coordinates A, B, C become x, y, z: ``stored * scale + offset``."""

    scale: Three = (1.0, 1.0, 1.0)
    offset: Three = (0.0, 0.0, 0.0)
    invalid: tuple[float | None, float | None, float | None] = (None, None, None)
    """Stored numbers by which the camera says that there is no point; NaN always does."""


def unit_of(name: str) -> Unit:
    """A camera's name for its unit of length. Raises CameraError for any other, such as Pixel."""
    if name.lower() not in UNITS:
        raise CameraError(f"the camera's unit of length is {name!r}; set it to millimetres, micrometres or metres")
    return UNITS[name.lower()]


def points(buffer: Buffer, name: str, rows: int, columns: int, axes: Axes | None = None) -> FloatArray:
    """``Coord3D_ABC...`` as H x W x 3 f4, (0, 0, 0) where there is no point. Raises CameraError.

    Interleaved or ``_Planar``; 32f, 16, 16s or 8.
    """
    letters, dtype, planar = _form(name)
    if letters != "abc":
        raise CameraError(f"the 3D format {name!r} has no three coordinates for each pixel; set the camera to ABC")
    stored = _numbers(buffer, name, dtype, rows, columns, 3)
    stored = np.moveaxis(stored.reshape(3, rows, columns), 0, 2) if planar else stored.reshape(rows, columns, 3)
    return _scaled(stored, axes or Axes())


def points_of_heights(buffer: Buffer, name: str, rows: int, columns: int, axes: Axes | None = None) -> FloatArray:
    """``Coord3D_C...`` of a rectified picture (x by the column, y by the row) as ``points``. Raises CameraError."""
    letters, dtype, _ = _form(name)
    if letters != "c":
        raise CameraError(f"the 3D format {name!r} is not a picture of heights")
    heights = _numbers(buffer, name, dtype, rows, columns, 1).reshape(rows, columns)
    stored = np.empty((rows, columns, 3), dtype=np.float64)
    stored[..., 0], stored[..., 1], stored[..., 2] = np.arange(columns), np.arange(rows)[:, None], heights
    given = axes or Axes()
    return _scaled(stored, given._replace(invalid=(None, None, given.invalid[2])))


def depth(
    buffer: Buffer, name: str, rows: int, columns: int, *, row_nbytes: int = 0, big_endian: bool = False
) -> NDArray[np.uint16] | FloatArray:
    """A depth picture as H x W u2 or f4, values as stored: ``Coord3D_C16``, ``C32f``, ``16UC1``, ``32FC1``, ``z16``.

    Raises CameraError.
    """
    plain = name.lower().replace("_", "").removeprefix("format.").removeprefix("coord3d")
    dtype = {"c16": "u2", "16uc1": "u2", "mono16": "u2", "z16": "u2", "c32f": "f4", "32fc1": "f4"}.get(plain)
    if dtype is None:
        raise CameraError(f"the depth format {name!r} is not supported; set the camera to 16-bit or float32 depth")
    if fault := frame_size_fault(rows, columns):
        raise CameraError(f"the camera's depth picture is {fault}")
    flat, packed = raw_bytes(buffer), columns * int(dtype[1])
    step = row_nbytes or packed
    needed = step * (rows - 1) + packed
    if step < packed or not needed <= flat.size <= step * rows:
        raise CameraError(f"the camera gave {flat.size} bytes for {rows} x {columns} pixels of {name}, not {needed}")
    picture = np.lib.stride_tricks.as_strided(flat, (rows, packed), (step, 1), writeable=False)
    # The copy is made here: the SDK may write its next picture over the buffer.
    numbers: NDArray[Any] = np.array(picture, order="C").view((">" if big_endian else "<") + dtype)
    return numbers.astype(dtype, copy=False)


def intrinsics(
    fx: float, fy: float, cx: float, cy: float, model: str = "pinhole", dist: tuple[float, ...] = ()
) -> Intrinsics:
    """The lens as a station takes it: with all coefficients 0, the Brown-Conrady family is a pinhole."""
    lens = Intrinsics(fx, fy, cx, cy, model.lower().removeprefix("distortion."), tuple(float(one) for one in dist))
    if lens.model in STRAIGHT_IF_ZERO | {"none", ""} and not any(lens.dist):
        return replace(lens, model="pinhole", dist=())
    return lens


def _form(name: str) -> tuple[str, str, bool]:
    """Letters, dtype and whether in planes, of ``Coord3D_ABC32f_Planar``. Raises CameraError."""
    plain = name.lower().removeprefix("coord3d").replace("_", "")
    planar = plain.endswith("planar")
    plain = plain.removesuffix("planar")
    letters = plain.rstrip("0123456789fs")
    number = plain[len(letters) :]
    if not name.lower().startswith("coord3d") or letters not in ("abc", "c") or number not in DTYPES:
        raise CameraError(
            f"the 3D format {name!r} is not supported; set the camera to Coord3D_ABC32f, ABC16, C32f or C16 (unpacked)"
        )
    return letters, DTYPES[number], planar


def _numbers(buffer: Buffer, name: str, dtype: str, rows: int, columns: int, per_pixel: int) -> NDArray[Any]:
    if fault := frame_size_fault(rows, columns):
        raise CameraError(f"the camera's 3D picture is {fault}")
    flat = raw_bytes(buffer)
    needed = rows * columns * per_pixel * int(dtype[1])
    if flat.size != needed:
        raise CameraError(f"the camera gave {flat.size} bytes for {rows} x {columns} pixels of {name}, not {needed}")
    return np.frombuffer(flat.data, dtype=f"<{dtype}")


def _scaled(stored: NDArray[Any], axes: Axes) -> FloatArray:
    """In the camera's unit, as f4; a copy."""
    missing = ~np.isfinite(stored).all(axis=2)
    if axes.invalid == (None, None, None):
        # No number is declared: an offset must not make a measured point of three stored zeros.
        missing |= (stored == 0).all(axis=2)
    for axis, number in enumerate(axes.invalid):
        if number is not None:
            # As stored: a float32 never equals the float64 that the camera's setting reads as.
            same = np.float32(number) if stored.dtype == np.float32 else number
            missing |= stored[..., axis] == same
    xyz = np.empty(stored.shape, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for axis in range(3):
            plain = axes.scale[axis] == 1.0 and axes.offset[axis] == 0.0
            xyz[..., axis] = stored[..., axis] if plain else (
                stored[..., axis].astype(np.float64) * axes.scale[axis] + axes.offset[axis]
            )  # fmt: skip
    xyz[missing] = 0.0
    return xyz
