"""PNG and TIFF files from outside: what they hold is known and bounded before a pixel is decoded.

A few kilobytes can declare gigabytes of pixels. Both formats declare their size in the header, which is compared
with the limits of a frame (``docs/wire.md``) before memory is allocated. And the libraries that decode them cut 16 bits
to 8, fill what is missing with zeros and overlook damage, all without an error: each of these is refused here.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from asperity.runtime.errors import DataError
from asperity.runtime.frame import MAX_BUFFER_BYTES, MAX_PIXELS, MAX_SIDE_PX, frame_size_fault

MAX_FILE_NBYTES = MAX_BUFFER_BYTES + 16 * 2**20
"""Of one picture or cloud: the largest frame's XYZ, and room for what surrounds it."""
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By colour type: grey, RGB, palette, grey with alpha, RGB with alpha."""
PNG_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PNG_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PALETTE = 3
AS_FRAMES = (1, 2, 4, 8)
"""Bits per channel that become a frame's 8 without loss: fewer are scaled as PNG defines, 255 for the highest."""
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""Passes of an interlaced PNG: first row and column, steps of rows and columns."""
ORIENTATION = 274
"""The tag of EXIF and TIFF that turns a picture; 1: as stored."""
INFLATED_AT_ONCE_BYTES = 2**24
MAX_CHUNKS = 2**17
"""Of a PNG: encoders put 8 KB and more into one."""
MAX_PAGES = MAX_SIDE_PX
"""Directories of a TIFF: some programs write a page for each row."""
MAX_TAG_VALUES = 2**20
MAX_VALUES = 2**23
"""In all tags of a file together."""
UNCOMPRESSED, DEFLATE = frozenset({1}), frozenset({8, 32946})
"""TIFF's compressions that are read; only these need no further package, and of these the size can be bounded."""
TIFF_COLOURS = (1, 2)
"""PhotometricInterpretation of colour: MinIsBlack, RGB."""
TIFF_NUMBERS = (0, *TIFF_COLOURS)


@contextmanager
def open_png(data: bytes, bits: Collection[int] = AS_FRAMES) -> Iterator[Image.Image]:
    """A whole PNG of bounded size and of such ``bits`` per channel, not yet decoded. Values are as stored: no gamma,
    colour profile or turn is applied.

    Raises DataError, also for what goes wrong while it is decoded inside.
    """
    if not data.startswith(PNG_HEAD):
        raise DataError("cannot be read as a PNG picture (its signature is wrong)")
    _check_png(data, bits)
    try:
        with Image.open(BytesIO(data), formats=("PNG",)) as picture:
            yield picture
    except Image.DecompressionBombError:
        raise DataError(f"has more than {MAX_PIXELS} pixels, the most a frame may have") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f"cannot be read as a PNG picture ({error})") from None


def decode_tiff(data: bytes, *, colour: bool = False) -> NDArray[Any]:
    """The array that a TIFF's only series holds, its values as stored. Raises DataError.

    ``colour``: they are grey levels, of which 0 is black, or red, green and blue.
    """
    try:
        _check_directories(data)
        with tifffile.TiffFile(BytesIO(data)) as tiff:
            if len(tiff.series) != 1:
                shapes = ", ".join(str(series.shape) for series in tiff.series[:5])
                raise DataError(f"holds {len(tiff.series)} arrays ({shapes}), not a point cloud alone")
            series = tiff.series[0]
            _check_shape(series.shape)
            kind = int(series.keyframe.photometric)
            if kind not in (TIFF_COLOURS if colour else TIFF_NUMBERS):
                raise DataError(f"stores its pixels in another way than grey (0 is black) or RGB (photometric {kind})")
            _check_segments(data, series)
            stored = np.asarray(series.asarray())
            return stored.astype(stored.dtype.newbyteorder("="), copy=False)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - tifffile raises whatever a damaged tag leads it to
        raise DataError(f"cannot be read as a TIFF point cloud ({error})") from None


def _check_png(data: bytes, bits: Collection[int]) -> None:
    """Raises DataError for what a decoder would cut, fill up, turn or overlook."""
    chunks = list(_chunks(data))
    names = [name for name, _ in chunks]
    if names[0] != b"IHDR" or len(chunks[0][1]) != 13 or names.count(b"IHDR") != 1:
        raise DataError("cannot be read as a PNG picture (it does not begin with its header)")
    width_px, height_px, depth, colour, *methods, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if fault := frame_size_fault(height_px, width_px):
        raise DataError(f"is {fault}")
    if depth not in PNG_BITS.get(colour, ()) or any(methods) or interlaced > 1:
        raise DataError(f"cannot be read as a PNG picture (colour type {colour} with {depth} bits is not defined)")
    if depth not in bits:
        raise DataError(_other_depth(depth, bits))
    if b"acTL" in names:
        raise DataError("is an animation (APNG), not one picture")
    for name in names:
        if name not in PNG_CRITICAL and not name[0] & 0x20:
            raise DataError(f"has a chunk {name!r} without which it must not be read; no PNG of the standard has it")
    first = names.index(b"IDAT") if b"IDAT" in names else 0
    pixels = [content for name, content in chunks if name == b"IDAT"]
    if not first or names[first : first + len(pixels)] != [b"IDAT"] * len(pixels):
        raise DataError("cannot be read as a PNG picture (its pixels are missing, or not in one piece)")
    if names.count(b"PLTE") > 1 or (colour == PALETTE) > (b"PLTE" in names[:first]):
        raise DataError("cannot be read as a PNG picture (its palette is missing or there twice)")
    for name, content in chunks:
        if name == b"eXIf" and (turned := _orientation(content)) != 1:
            raise DataError(f"is to be turned when it is shown (EXIF orientation {turned}); points cannot follow it")
    expected = _png_nbytes(height_px, width_px, PNG_CHANNELS[colour] * depth, interlaced == 1)
    inflated, whole = _inflate(pixels, expected)
    if inflated != expected or not whole:
        raise DataError(f"is damaged: its pixels have {_amount(inflated, expected)} bytes, not {expected}")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each chunk, the last one IEND. Raises DataError where one is cut off or damaged."""
    at, name = len(PNG_HEAD), b""
    for _ in range(MAX_CHUNKS):
        if name == b"IEND":
            return
        if at + 12 > len(data):
            raise DataError("cannot be read as a PNG picture (it is cut off)")
        (nbytes,) = struct.unpack_from(">I", data, at)
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + nbytes]
        if at + 12 + nbytes > len(data):
            raise DataError("cannot be read as a PNG picture (it is cut off)")
        if struct.unpack_from(">I", data, at + 8 + nbytes) != (zlib.crc32(content, zlib.crc32(name)),):
            raise DataError(f"cannot be read as a PNG picture (it is damaged: wrong checksum of its chunk {name!r})")
        yield name, content
        at += 12 + nbytes
    raise DataError(f"has more than {MAX_CHUNKS} chunks; no program writes a PNG so")


def _other_depth(depth: int, bits: Collection[int]) -> str:
    if depth == 16:
        return (
            "has 16 bits per channel, and a frame has 8 (docs/wire.md): convert it by the rule by which the camera's "
            "frames become 8 bits"
        )
    return f"has {depth} bits per channel; {' or '.join(map(str, bits))} bits are read here"


def _orientation(content: bytes) -> int:
    """What the EXIF data of a PNG says of turning it; 0: it cannot be read."""
    exif = Image.Exif()
    try:
        exif.load(b"Exif\0\0" + content)
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow raises whatever damaged EXIF data lead it to
        return 0


def _png_nbytes(height_px: int, width_px: int, bits_per_pixel: int, interlaced: bool) -> int:
    """Bytes of the inflated pixels: a filter's number before each row of each pass."""
    total = 0
    for row0, column0, rows, columns in ADAM7 if interlaced else ((0, 0, 1, 1),):
        height, width = -((row0 - height_px) // rows), -((column0 - width_px) // columns)
        if width > 0:
            total += max(height, 0) * (1 + (width * bits_per_pixel + 7) // 8)
    return total


def _inflate(pieces: Iterable[bytes], most: int) -> tuple[int, bool]:
    """How many bytes a zlib stream has, ``most`` + 1 standing for more, and whether it is whole. Keeps none of them."""
    stream, inflated = zlib.decompressobj(), 0
    try:
        for piece in pieces:
            left = piece
            while left and not stream.eof:
                inflated += len(stream.decompress(left, min(INFLATED_AT_ONCE_BYTES, most + 1 - inflated)))
                if inflated > most:
                    return most + 1, False
                left = stream.unconsumed_tail
        inflated += len(stream.decompress(b"", most + 1 - inflated))
    except zlib.error as error:
        raise DataError(f"is damaged: its pixels cannot be decompressed ({error})") from None
    return min(inflated, most + 1), stream.eof


def _amount(found: int, most: int) -> str:
    return f"more than {most}" if found > most else str(found)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) == 3 and shape[2] == 3 and (fault := frame_size_fault(*shape[:2])):
        raise DataError(f"has shape {shape} and is {fault}")
    if max(shape, default=0) > MAX_SIDE_PX or math.prod(shape) > MAX_BUFFER_BYTES // 4:
        raise DataError(f"has shape {shape}, above {MAX_SIDE_PX} points per side or {MAX_PIXELS} in total")


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
    """Every strip or tile holds what it declares. A reader inflates them without a bound and fills what is missing."""
    for page in series.pages:
        if page is None:
            continue
        _check_page(page.keyframe)
        needed = _segments_nbytes(page.keyframe)
        found = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if len(found) != len(needed):
            raise DataError(f"is incomplete: it has {len(found)} strips or tiles, not {len(needed)}")
        for (offset, nbytes), expected in zip(found, needed, strict=True):
            piece = data[offset : offset + nbytes] if offset else b""
            held = len(piece)
            if int(page.keyframe.compression) in DEFLATE:
                # The last strip of a page may be padded to the full height.
                held, whole = _inflate([piece], max(needed))
                if held > max(needed):
                    raise DataError("decompresses to more than its declared size")
                held = held if whole else 0
            if held < expected:
                raise DataError("is incomplete: a strip or tile holds fewer bytes than its declared size")


def _check_page(page: Any) -> None:
    """Raises DataError for a form of storing values that is not read."""
    compression = int(page.compression)
    if compression not in UNCOMPRESSED | DEFLATE:
        raise DataError(f"has compression {compression}; write it without compression, or with zlib")
    if int(page.predictor) != 1:
        raise DataError(f"has predictor {int(page.predictor)}; write it without a predictor")
    if page.samplesperpixel > 1 and int(page.planarconfig) != 1:
        raise DataError("stores x, y and z in separate planes; write the three values of each pixel next to each other")
    orientation = page.tags.valueof(ORIENTATION, 1)
    if orientation != 1:
        raise DataError(f"is to be turned when it is shown (orientation {orientation}); its picture cannot follow it")
    bits = page.bitspersample
    if bits not in (8, 16, 32, 64, 128) or int(page.fillorder) != 1:
        raise DataError(f"has values of {bits} bits or in reversed order of bits, not float32")


def _segments_nbytes(page: Any) -> list[int]:
    """Bytes of each strip or tile of a page, in their order."""
    value = page.samplesperpixel * page.bitspersample // 8
    if page.is_tiled:
        tiles = -(page.imagelength // -page.tilelength) * -(page.imagewidth // -page.tilewidth)
        return [page.tilelength * page.tilewidth * value] * tiles
    rows = min(page.rowsperstrip, page.imagelength)
    return [min(rows, page.imagelength - at) * page.imagewidth * value for at in range(0, page.imagelength, rows)]
