"""PCD 0.5 to 0.7 of the Point Cloud Library: text, binary and binary_compressed. The points must be those of a grid."""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.files.content import (
    Content,
    Points,
    Size,
    check_count,
    check_size,
    text_rows,
    whole_bytes,
)
from asperity.runtime.cameras.files.lzf import decompress
from asperity.runtime.errors import DataError
from asperity.runtime.text.numbers import decimal_number, whole_number

MAX_HEADER_NBYTES = 2**14
MAX_FIELDS, MAX_COUNT = 64, 4096
MAX_INFLATED_NBYTES = 2**29
VERSIONS = ("0.5", ".5", "0.6", ".6", "0.7", ".7")
KEYS = ("VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA")
KINDS = {
    ("I", 1), ("I", 2), ("I", 4), ("I", 8), ("U", 1), ("U", 2), ("U", 4), ("U", 8), ("F", 4), ("F", 8)
}  # fmt: skip
VIEWPOINTS = ((0, 0, 0, 1, 0, 0, 0), (0, 0, 0, 0, 1, 0, 0))
"""Of points in the camera's own coordinates. The second is what PCL's grabbers write; it changes no point."""
PADDING = "_"
TINY = 2.0**-125
"""What the bits of three bytes are as a float is smaller."""
READ = ("x", "y", "z", "rgb", "rgba", "r", "g", "b")


class _Field(NamedTuple):
    name: str
    kind: str
    """Type of numpy, little endian: the files are written so by every computer that PCL runs on."""
    values: int
    """COUNT: numbers that each point has in it."""

    @property
    def nbytes(self) -> int:
        return np.dtype(self.kind).itemsize * self.values


def decode_pcd(data: bytes) -> Content:
    """An organised cloud. Raises DataError."""
    header, form, at = _header(data)
    fields = _fields(header)
    size_px = _size(header)
    names = [field.name for field in fields]
    for name in "xyz":
        if name not in names or fields[names.index(name)][1:] not in (("<f4", 1), ("<f8", 1)):
            raise DataError(f"has no field {name} of type F with 4 or 8 bytes; export the coordinates so")
    readers = {"ascii": _read_text, "binary": _read_binary, "binary_compressed": _read_compressed}
    if form not in readers:
        raise DataError(f"has data as {form[:40]!r}; ascii, binary and binary_compressed are read")
    columns = readers[form](data, at, fields, size_px[0] * size_px[1])
    return Points(columns["x"], columns["y"], columns["z"], _colours(columns)).organised(size_px)


def _read_binary(data: bytes, at: int, fields: list[_Field], points: int) -> dict[str, NDArray[Any]]:
    step = sum(field.nbytes for field in fields)
    nbytes = points * step
    # PCL maps files into memory, and some versions leave the last page's rest as zeros.
    if len(data) - at < nbytes or any(data[at + nbytes :]):
        raise DataError(
            f"has {len(data) - at} bytes of points, but its header declares {points} points of {step} bytes; it is cut "
            "off or damaged"
        )
    rows = np.frombuffer(data, np.uint8, nbytes, at).reshape(points, step)
    columns, start = dict[str, NDArray[Any]](), 0
    for field in fields:
        if field.values == 1:
            one = np.ascontiguousarray(rows[:, start : start + field.nbytes]).view(field.kind)
            columns.setdefault(field.name, one[:, 0])
        start += field.nbytes
    return columns


def _read_compressed(data: bytes, at: int, fields: list[_Field], points: int) -> dict[str, NDArray[Any]]:
    nbytes = points * sum(field.nbytes for field in fields)
    packed, inflated = struct.unpack_from("<II", data, at) if len(data) >= at + 8 else (0, 0)
    if inflated != nbytes or nbytes > MAX_INFLATED_NBYTES:
        raise DataError(
            f"declares {inflated} bytes of points, but its fields make {nbytes} (at most {MAX_INFLATED_NBYTES}); it is "
            "damaged"
        )
    if len(data) - at - 8 < packed:
        raise DataError(f"is cut off: {len(data) - at - 8} of {packed} compressed bytes are there")
    whole = decompress(data[at + 8 : at + 8 + packed], nbytes)
    columns, start = dict[str, NDArray[Any]](), 0
    for field in fields:  # one field after the other, each of all points
        if field.values == 1:
            columns.setdefault(field.name, np.frombuffer(whole, field.kind, points, start))
        start += points * field.nbytes
    return columns


def _read_text(data: bytes, at: int, fields: list[_Field], points: int) -> dict[str, NDArray[Any]]:
    place, places = 0, dict[str, int]()
    for field in fields:
        if field.values == 1:
            places.setdefault(field.name, place)
        place += field.values
    chosen = {name: number for name, number in places.items() if name in READ}
    pieces: list[NDArray[np.float64]] = []
    wanted = list(chosen.values())
    text_rows(data, at, points, place, lambda numbers: pieces.append(numbers[:, wanted]), last=True)
    whole = np.concatenate(pieces)
    columns = {name: whole[:, index] for index, name in enumerate(chosen)}
    kinds = {field.name: field.kind for field in fields}
    for name in set(columns) & {"rgb", "rgba"}:
        columns[name] = _packed(columns[name], kinds[name])
    return columns


def _packed(numbers: NDArray[np.float64], kind: str) -> NDArray[Any]:
    """Colours written as text, in the form that they have in a binary file."""
    if kind == "<f4":
        # The float's bits are the colour. Three bytes make a tiny one; 4.2e+06 is a colour's number that lost its bits.
        if not ((numbers >= 0) & (numbers < TINY)).all():
            raise DataError("has colours as floats that hold no three bytes; export it as binary")
        return numbers.astype(np.float32)
    least = -(2**31) if kind == "<i4" else 0
    if not ((numbers >= least) & (numbers < 2**32) & (numbers == np.floor(numbers))).all():
        raise DataError("has colours that are not whole numbers of 32 bits")
    return numbers.astype(np.int64).astype(np.uint32)


def _colours(columns: dict[str, NDArray[Any]]) -> NDArray[np.uint8] | None:
    packed = columns.get("rgb", columns.get("rgba"))
    if packed is not None:
        if packed.dtype.itemsize != 4:
            raise DataError("has colours that are not 4 bytes: blue, green, red and one more")
        stored = np.ascontiguousarray(packed).view(np.uint8).reshape(-1, 4)
        return stored[:, 2::-1]
    if all(name in columns for name in "rgb"):
        return whole_bytes(np.stack([columns[name] for name in "rgb"], axis=1))
    return None


def _size(header: dict[str, list[str]]) -> Size:
    width, height = (_whole(header, name) for name in ("WIDTH", "HEIGHT"))
    points = width * height
    if "POINTS" in header and _whole(header, "POINTS") != points:
        raise DataError(f"declares {header['POINTS'][0][:20]} points, but has {height} rows of {width}; it is damaged")
    check_count(points)
    if height == 1:
        raise DataError(
            f"is not organised: {width} points in one row (HEIGHT 1), so that nothing says which pixel each is; save "
            "the cloud as the camera gives it, with WIDTH and HEIGHT of its picture and missing points kept as nan"
        )
    check_size((height, width))
    view = header.get("VIEWPOINT", [])
    if view and tuple(map(decimal_number, view)) not in VIEWPOINTS:
        raise DataError(
            f"has the viewpoint {' '.join(view)[:80]}; only points in the camera's own coordinates are read "
            "(VIEWPOINT 0 0 0 1 0 0 0)"
        )
    return height, width


def _fields(header: dict[str, list[str]]) -> list[_Field]:
    names = header["FIELDS"]
    counts = header.get("COUNT", ["1"] * len(names))
    sizes, types = header["SIZE"], header["TYPE"]
    if not len(names) == len(sizes) == len(types) == len(counts) or len(names) > MAX_FIELDS:
        raise DataError(f"has a header whose FIELDS, SIZE, TYPE and COUNT differ in length, or exceed {MAX_FIELDS}")
    fields = []
    for name, size, kind, count in zip(names, sizes, types, counts, strict=True):
        number, nbytes = whole_number(count), whole_number(size)
        if nbytes is None or (kind, nbytes) not in KINDS or number is None or not 1 <= number <= MAX_COUNT:
            raise DataError(f"has a field {name[:40]} of TYPE {kind[:9]}, SIZE {size[:9]} and COUNT {count[:9]}")
        fields.append(_Field(name, f"<{kind.lower()}{nbytes}", number))
    plain = [name for name in names if name != PADDING]
    if len(set(plain)) != len(plain):
        raise DataError("has two fields of one name")
    return fields


def _header(data: bytes) -> tuple[dict[str, list[str]], str, int]:
    """The header's lines, the form of the data, and where they begin."""
    found, at = dict[str, list[str]](), 0
    while "DATA" not in found:
        end = data.find(b"\n", at, MAX_HEADER_NBYTES)
        if end < 0:
            raise DataError(f"cannot be read as PCD (no header of at most {MAX_HEADER_NBYTES} bytes)")
        word, *rest = data[at:end].decode("latin-1").split() or ["#"]
        at = end + 1
        if word.startswith("#"):
            continue
        if word not in KEYS or word in found or not rest:
            raise DataError(f"cannot be read as PCD (line {word[:40]!r} of its header)")
        found[word] = rest
    for name in ("VERSION", "FIELDS", "SIZE", "TYPE", "WIDTH", "HEIGHT"):
        if name not in found:
            raise DataError(f"cannot be read as PCD (its header has no {name})")
    if found["VERSION"][0] not in VERSIONS:
        raise DataError(f"is PCD of version {found['VERSION'][0][:20]}; 0.5 to 0.7 are read")
    return found, found["DATA"][0], at


def _whole(header: dict[str, list[str]], name: str) -> int:
    number = whole_number(header[name][0])
    if number is None or not 0 <= number <= math.isqrt(2**62):
        raise DataError(f"has {name} {header[name][0][:20]}, which is not a number of points")
    return number
