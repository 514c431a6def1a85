"""OpenEXR: pictures of one part stored in scan lines, uncompressed or with zlib.

Channels are Z (depth; also Y where it is the only one), X, Y and Z (points), R, G and B (colour), alone or in layers
that are called so (``View.Depth.Z``).
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.files.content import Content, Size, check_size
from asperity.runtime.errors import DataError
from asperity.runtime.frame import ByteArray, FloatArray

MAGIC = b"\x76\x2f\x31\x01"
MAX_HEADER_NBYTES = 2**20
MAX_ATTRIBUTES, MAX_CHANNELS = 256, 64
TILED, DEEP, MULTIPART = 0x200, 0x800, 0x1000
KINDS = ("<u4", "<f2", "<f4")
COMPRESSIONS = ("NONE", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
LAYERS = {
    "X": ("position",), "Y": ("position",), "Z": ("position", "depth"), "R": ("combined",), "G": ("combined",),
    "B": ("combined",),
}  # fmt: skip
"""Layers, as renderers name them, in which a channel has this meaning; normals have X, Y and Z too."""
LINES = {"NONE": 1, "ZIPS": 1, "ZIP": 16}
"""Rows in a block, by the compressions that are read."""
Box = tuple[int, int, int, int]
"""Smallest x and y, largest x and y."""


class _Channel(NamedTuple):
    name: str
    kind: str


class _Header(NamedTuple):
    channels: list[_Channel]
    lines: int
    packed: bool
    top: int
    size_px: Size
    end: int


def decode_exr(data: bytes) -> Content:
    """Depth or points, and colour where it is there. Raises DataError."""
    try:
        header = _header(data)
        wanted = _wanted([channel.name for channel in header.channels])
        planes = _planes(data, header, set(wanted.values()))
    except (struct.error, IndexError):
        raise DataError("cannot be read as OpenEXR (it is cut off)") from None
    named = {name: planes[channel] for name, channel in wanted.items()}
    rgb = np.stack([_as_bytes(named[name]) for name in "RGB"], axis=2) if "R" in named else None
    if "X" in named:
        return Content(xyz=np.stack([named[name] for name in "XYZ"], axis=2), rgb=rgb)
    return Content(depth=named.get("Z"), rgb=rgb)


def _as_bytes(values: FloatArray) -> ByteArray:
    """0 to 1 as 0 to 255; what is beyond becomes the nearest of these. Raises DataError for what is not a number."""
    if np.isnan(values).any():
        raise DataError("has pixels whose colour is nan")
    rounded: ByteArray = np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)
    return rounded


def _wanted(names: list[str]) -> dict[str, str]:
    """The channels of depth, points and colour, by what they hold."""
    found: dict[str, list[str]] = {}
    for name in names:
        layer, _, short = name.rpartition(".")
        if not layer or layer.rpartition(".")[2].casefold() in LAYERS.get(short, ()):
            found.setdefault(short, []).append(name)
    if list(found) == ["Y"]:
        found = {"Z": found["Y"]}
    groups = ["XYZ" if "X" in found else "Z"] if {"X", "Z"} & set(found) else []
    groups += ["RGB"] if "R" in found else []
    if not groups:
        raise DataError(f"has the channels {', '.join(names)[:80]}; depth is Z, points are X, Y, Z, colour is R, G, B")
    wanted = {}
    for one in "".join(groups):
        plain = [name for name in found.get(one, ()) if name == one] or found.get(one, [])
        if len(plain) != 1:
            raise DataError(f"has {len(plain)} channels {one}; each of {', '.join(''.join(groups))} must be there once")
        wanted[one] = plain[0]
    return wanted


def _header(data: bytes) -> _Header:
    if data[:4] != MAGIC:
        raise DataError("cannot be read as OpenEXR (its signature is wrong)")
    (version,) = struct.unpack_from("<I", data, 4)
    for flag, what in ((TILED, "in tiles"), (DEEP, "as deep data"), (MULTIPART, "in several parts")):
        if version & flag:
            raise DataError(f"is stored {what}; write it as one picture in scan lines")
    if version & 0xFF != 2:
        raise DataError(f"is OpenEXR of version {version & 0xFF}; 2 is read")
    attributes, at = _attributes(data)
    try:
        (compression,) = attributes["compression"]
        window = _box(attributes["dataWindow"])
        display = _box(attributes.get("displayWindow", attributes["dataWindow"]))
        channels = _channels(attributes["channels"])
    except (KeyError, ValueError) as error:
        raise DataError(f"cannot be read as OpenEXR (its header lacks or breaks {error})") from None
    name = COMPRESSIONS[compression] if compression < len(COMPRESSIONS) else str(compression)
    if name not in LINES:
        raise DataError(f"has the compression {name}; write it with ZIP, ZIPS or none")
    if window != display:
        raise DataError("holds only a part of its picture (data and display window differ); write all of it")
    size_px = (window[3] - window[1] + 1, window[2] - window[0] + 1)
    check_size(size_px)
    return _Header(channels, LINES[name], name != "NONE", window[1], size_px, at)


def _attributes(data: bytes) -> tuple[dict[str, bytes], int]:
    found, at = dict[str, bytes](), 8
    for _ in range(MAX_ATTRIBUTES):
        name, at = _text(data, at)
        if not name:
            return found, at
        _, at = _text(data, at)
        (nbytes,) = struct.unpack_from("<i", data, at)
        at += 4
        if not 0 <= nbytes <= MAX_HEADER_NBYTES - at or at + nbytes > len(data) or name in found:
            raise DataError(f"cannot be read as OpenEXR (attribute {name[:40]!r} of {nbytes} bytes)")
        found[name] = data[at : at + nbytes]
        at += nbytes
    raise DataError(f"has more than {MAX_ATTRIBUTES} attributes")


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(b"\0", at, at + 256) if 0 in data[at : at + 256] else -1
    if end < 0:
        raise DataError("cannot be read as OpenEXR (a name in its header does not end)")
    return data[at:end].decode("latin-1"), end + 1


def _box(value: bytes) -> Box:
    x0, y0, x1, y1 = struct.unpack("<4i", value)
    return x0, y0, x1, y1


def _channels(value: bytes) -> list[_Channel]:
    found, at = list[_Channel](), 0
    while True:
        name, at = _text(value, at)
        if not name:
            return found
        kind, _, x_step, y_step = struct.unpack_from("<iB3xii", value[at:])
        at += 16
        if not 0 <= kind < len(KINDS) or len(found) >= MAX_CHANNELS:
            raise DataError(f"has a channel {name[:40]!r} of type {kind}, or more than {MAX_CHANNELS} channels")
        if (x_step, y_step) != (1, 1):
            raise DataError(f"has a channel {name[:40]!r} with fewer pixels than the picture (subsampled)")
        if any(one.name == name for one in found):
            raise DataError(f"has two channels {name[:40]!r}")
        found.append(_Channel(name, KINDS[kind]))


def _planes(data: bytes, header: _Header, wanted: set[str]) -> dict[str, FloatArray]:
    height, width = header.size_px
    planes = {name: np.empty((height, width), dtype=np.float32) for name in sorted(wanted)}
    blocks = -(-height // header.lines)
    if header.end + 8 * blocks > len(data):
        raise DataError("is cut off in its table of rows")
    row_nbytes = width * sum(np.dtype(channel.kind).itemsize for channel in header.channels)
    for block, offset in enumerate(struct.unpack_from(f"<{blocks}Q", data, header.end)):
        first = block * header.lines
        rows = min(header.lines, height - first)
        stored = _block(data, offset, header.top + first, rows * row_nbytes, header)
        lines = np.frombuffer(stored, np.uint8).reshape(rows, row_nbytes)
        at = 0
        for channel in header.channels:
            nbytes = width * np.dtype(channel.kind).itemsize
            if channel.name in planes:
                values: NDArray[Any] = np.ascontiguousarray(lines[:, at : at + nbytes]).view(channel.kind)
                planes[channel.name][first : first + rows] = values
            at += nbytes
    return planes


def _block(data: bytes, offset: int, y: int, nbytes: int, header: _Header) -> bytes:
    if not header.end <= offset <= len(data) - 8:
        raise DataError("is incomplete: a block of rows lies outside the file")
    row, packed = struct.unpack_from("<ii", data, offset)
    piece = data[offset + 8 : offset + 8 + max(packed, 0)]
    if row != y or len(piece) != packed or packed > nbytes:
        raise DataError(f"is damaged: the block of rows from {y} on is incomplete or is another's")
    if packed == nbytes:  # also of a compressed picture, where compression would have made it longer
        return piece
    if not header.packed:
        raise DataError(f"is damaged: the rows from {y} on have {packed} bytes, not {nbytes}")
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(piece, nbytes + 1)
    except zlib.error as error:
        raise DataError(f"is damaged: the rows from {y} on cannot be decompressed ({error})") from None
    if len(unpacked) != nbytes or not stream.eof:
        raise DataError(f"is damaged: the rows from {y} on do not decompress to {nbytes} bytes")
    steps = np.frombuffer(unpacked, np.uint8).copy()
    steps[1:] += 128  # each byte but the first is the difference to the one before, plus 128
    halves = np.cumsum(steps, dtype=np.uint8)
    whole = np.empty_like(halves)
    middle = (nbytes + 1) // 2
    whole[0::2], whole[1::2] = halves[:middle], halves[middle:]
    return whole.tobytes()
