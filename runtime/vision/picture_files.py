"""PNG and TIFF files from outside: their size is known and bounded before a pixel is decoded.

A few kilobytes can declare gigabytes of pixels. Both formats declare their size in the header, which is compared
with the limits of a frame (``docs/wire.md``) before memory is allocated.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from asperity.runtime.errors import DataError
from asperity.runtime.frame import MAX_BUFFER_BYTES, MAX_PIXELS, MAX_SIDE_PX

MAX_FILE_NBYTES = MAX_BUFFER_BYTES + 16 * 2**20
"""Of one picture or cloud: the largest frame's XYZ, and room for what surrounds it."""
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
MAX_PAGES = MAX_SIDE_PX
"""Directories of a TIFF: some programs write a page for each row."""
MAX_TAG_VALUES = 2**20
MAX_VALUES = 2**23
"""In all tags of a file together."""
UNCOMPRESSED, DEFLATE = frozenset({1}), frozenset({8, 32946})
"""TIFF's compressions that are read; only these need no further package, and of these the size can be bounded."""


@contextmanager
def open_png(data: bytes) -> Iterator[Image.Image]:
    """A PNG of bounded size, not yet decoded. Raises DataError, also for what goes wrong while it is decoded inside."""
    if not data.startswith(PNG_HEAD):
        raise DataError("cannot be read as a PNG picture (its signature is wrong)")
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as picture:
            _check_size(picture.height, picture.width)
            yield picture
    except Image.DecompressionBombError:
        raise DataError(f"has more than {MAX_PIXELS} pixels, the most a frame may have") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot be read as a PNG picture ({error})") from None


def decode_tiff(data: bytes) -> NDArray[Any]:
    """The array that a TIFF's first series holds. Raises DataError."""
    try:
        _check_directories(data)
        with tifffile.TiffFile(BytesIO(data)) as tiff:
            series = tiff.series[0]
            values = MAX_BUFFER_BYTES // 4
            if series.size > values:
                raise DataError(f"has shape {series.shape}, more than the {MAX_PIXELS} points that a frame may have")
            _check_segments(data, series)
            return np.asarray(series.asarray())
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - tifffile raises whatever a damaged tag leads it to
        raise DataError(f"cannot be read as a TIFF point cloud ({error})") from None


def _check_size(height_px: int, width_px: int) -> None:
    if max(height_px, width_px) > MAX_SIDE_PX or height_px * width_px > MAX_PIXELS:
        raise DataError(
            f"is {height_px} x {width_px} pixels; a frame has at most {MAX_SIDE_PX} per side and {MAX_PIXELS} in total"
        )


def _check_directories(data: bytes) -> None:
    """Bound the directories and their tags, which a reader takes memory for before it knows what they are."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "<")
    (version,) = struct.unpack_from(f"{order}H", data, 2)
    big = version == 43
    head, entry, link = ("Q", "HHQ8x", "Q") if big else ("H", "HHI4x", "I")
    (at,) = struct.unpack_from(order + link, data, 8 if big else 4)
    left = MAX_VALUES
    for _ in range(MAX_PAGES):
        if at == 0:
            return
        (entries,) = struct.unpack_from(order + head, data, at)
        at += struct.calcsize(order + head)
        step = struct.calcsize(order + entry)
        for number in range(entries):
            _, _, count = struct.unpack_from(order + entry, data, at + number * step)
            left -= 1 + count
            if count > MAX_TAG_VALUES or left < 0:
                raise DataError(f"has a tag of {count} values, or too many tags; at most {MAX_TAG_VALUES} are read")
        (at,) = struct.unpack_from(order + link, data, at + entries * step)
    raise DataError(f"has more than {MAX_PAGES} pages, or they form a loop")


def _check_segments(data: bytes, series: Any) -> None:
    """Inflate every compressed piece once with a bound, since a reader inflates it without one."""
    left = 2 * int(series.size) * series.dtype.itemsize + 2**16  # the last strip or tile of a page may be padded
    for page in series.pages:
        if page is None:
            continue
        compression = int(page.keyframe.compression)
        if compression not in UNCOMPRESSED | DEFLATE:
            raise DataError(f"has compression {compression}; write it without compression, or with zlib")
        if compression in UNCOMPRESSED:
            continue
        for offset, nbytes in zip(page.dataoffsets, page.databytecounts, strict=True):
            left -= len(zlib.decompressobj().decompress(data[offset : offset + nbytes], left + 1))
            if left < 0:
                raise DataError("decompresses to more than its declared size")
