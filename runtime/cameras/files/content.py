"""What a file of an exposure holds, and how numbers written as text become it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import DataError
from asperity.runtime.frame import MAX_PIXELS, ByteArray, FloatArray, Intrinsics, frame_size_fault

ROWS_AT_ONCE = 2**16
MAX_LINE_NBYTES = 2**14
Size = tuple[int, int]
"""(rows, columns)"""


class Content(NamedTuple):
    """What one file holds."""

    xyz: FloatArray | None = None  # H x W x 3
    depth: NDArray[Any] | None = None  # H x W, u2 or f4
    rgb: ByteArray | None = None  # H x W x 3
    intrinsics: Intrinsics | None = None


class Points(NamedTuple):
    """Columns of a cloud's points, in the order of the file."""

    x: NDArray[Any]
    y: NDArray[Any]
    z: NDArray[Any]
    rgb: ByteArray | None  # N x 3

    def organised(self, size_px: Size) -> Content:
        """On their grid; coordinates that no float32 can hold become infinite, and so missing."""
        cloud = np.empty((len(self.x), 3), dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for axis, numbers in enumerate((self.x, self.y, self.z)):
                cloud[:, axis] = numbers
        rgb = None if self.rgb is None else np.ascontiguousarray(self.rgb).reshape(*size_px, 3)
        return Content(xyz=cloud.reshape(*size_px, 3), rgb=rgb)


def as_f4(numbers: NDArray[Any]) -> FloatArray:
    """In native order, in one piece; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(numbers, dtype=np.float32)


def check_count(points: int) -> None:
    """Raises DataError unless a frame can have so many points."""
    if not 1 <= points <= MAX_PIXELS:
        raise DataError(f"declares {points} points; a frame has 1 to {MAX_PIXELS}")


def check_size(size_px: Size) -> None:
    """Raises DataError unless a frame can have this size."""
    if fault := frame_size_fault(*size_px):
        raise DataError(f"is {fault}")


def text_rows(
    data: bytes, at: int, rows: int, columns: int, take: Callable[[NDArray[np.float64]], None], *, last: bool
) -> None:
    """Hand ``rows`` lines of ``columns`` numbers each, written as text from ``at`` on, to ``take`` piece by piece.

    ``last``: nothing may follow. Raises DataError.
    """
    lines, left = iter(BytesIO(memoryview(data)[at:])), rows
    try:
        while left:
            piece = list(islice(lines, min(left, ROWS_AT_ONCE)))
            if max(map(len, piece), default=0) > MAX_LINE_NBYTES:
                raise DataError(f"has a line of more than {MAX_LINE_NBYTES} bytes among its points")
            if piece and not piece[-1].endswith(b"\n"):
                raise DataError("is cut off: its last line does not end")
            if piece and len(piece[0].split()) != columns:
                raise DataError(f"has {len(piece[0].split())} numbers in a line, but its header names {columns}")
            numbers = _numbers(piece) if piece else np.empty((0, columns))
            if not piece or len(numbers) != len(piece):
                there = rows - left + len(numbers)
                raise DataError(f"is cut off, or has an empty line: {there} of {rows} points are there")
            take(numbers)
            left -= len(piece)
    except (ValueError, Warning) as error:
        raise DataError(f"holds a line that is not {columns} numbers, after {rows - left} points ({error})") from None
    if last and any(line.strip() for line in lines):
        raise DataError(f"holds more lines than the {rows} points that its header declares")


def _numbers(lines: list[bytes]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers: NDArray[np.float64] = np.loadtxt(lines, dtype=np.float64, comments=None, ndmin=2, encoding="ascii")
    return numbers


def whole_bytes(numbers: NDArray[Any]) -> ByteArray:
    """Colours written as text. Raises DataError unless they are 0 to 255."""
    with np.errstate(invalid="ignore"):
        stored = numbers.astype(np.uint8)
    if not (stored == numbers).all():
        raise DataError("holds a colour that is not a whole number of 0 to 255")
    return stored
