"""PLY: text, or binary in either byte order. The points must be those of a whole grid, row by row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

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
from asperity.runtime.errors import DataError
from asperity.runtime.text.numbers import whole_number

MAX_HEADER_NBYTES = 2**16
MAX_ELEMENTS, MAX_PROPERTIES = 16, 64
ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
COLOURS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_SIZE = re.compile(r"\b(num_cols|num_rows|width|height)\b\s*[=:]?\s*([0-9]{1,9})\b", re.IGNORECASE)
"""As Photoneo writes it in one line, PCL and scanners in one each."""
_ORGANISED = "export the organised cloud, in which missing points are kept"


@dataclass(slots=True)
class _Element:
    name: str
    count: int
    types: dict[str, str] = field(default_factory=dict)
    """Property -> type of numpy, without byte order."""
    has_lists: bool = False

    def dtype(self, order: str) -> np.dtype[Any]:
        return np.dtype([(name, kind if order == "=" else order + kind) for name, kind in self.types.items()])


def decode_ply(data: bytes, size_px: Size | None) -> Content:
    """An organised cloud. ``size_px``: of its grid where the header does not say it. Raises DataError."""
    form, elements, declared, start = _header(data)
    vertices = next((one for one in elements if one.name == "vertex"), None)
    if vertices is None:
        raise DataError("holds no points (its header has no element vertex)")
    check_count(vertices.count)
    grid = _grid(vertices.count, declared, size_px)
    colours = next((names for names in COLOURS if all(name in vertices.types for name in names)), None)
    for name in "xyz":
        if vertices.types.get(name) not in ("f4", "f8"):
            raise DataError(f"has no property {name} of type float or double; export the coordinates so")
    if colours and any(vertices.types[name] != "u1" for name in colours):
        raise DataError("has colours that are not uchar; export them with 8 bits per channel")
    before = elements[: elements.index(vertices)]
    if vertices.has_lists or any(one.has_lists for one in before):
        raise DataError("has a list among its points, or before them; export it without lists")
    last = elements[-1] is vertices
    read = _read_text if form == "ascii" else _read_binary
    return read(data, start, ORDERS[form], before, vertices, colours, last).organised(grid)


def _read_binary(
    data: bytes, at: int, order: str, before: list[_Element], vertices: _Element, colours: tuple[str, ...] | None,
    last: bool,
) -> Points:  # fmt: skip
    at += sum(one.count * one.dtype(order).itemsize for one in before)
    dtype = vertices.dtype(order)
    end = at + vertices.count * dtype.itemsize
    if end > len(data) or (last and end < len(data)):
        raise DataError(
            f"has {max(len(data) - at, 0)} bytes of points, but its header declares {vertices.count} points of "
            f"{dtype.itemsize} bytes; it is cut off or damaged"
        )
    stored: NDArray[Any] = np.frombuffer(data, dtype, vertices.count, at)
    rgb = None if colours is None else np.stack([stored[name] for name in colours], axis=1)
    return Points(stored["x"], stored["y"], stored["z"], rgb)


def _read_text(
    data: bytes, at: int, order: str, before: list[_Element], vertices: _Element, colours: tuple[str, ...] | None,
    last: bool,
) -> Points:  # fmt: skip
    for _ in range(sum(one.count for one in before)):
        at = data.find(b"\n", at) + 1
        if not at:
            raise DataError("is cut off before its points")
    names = list(vertices.types)
    wanted = [names.index(name) for name in ("x", "y", "z", *(colours or ()))]
    pieces: list[NDArray[np.float64]] = []
    text_rows(data, at, vertices.count, len(names), lambda numbers: pieces.append(numbers[:, wanted]), last=last)
    x, y, z, *rgb = np.concatenate(pieces).T
    return Points(x, y, z, whole_bytes(np.stack(rgb, axis=1)) if rgb else None)


def _grid(points: int, declared: dict[str, int], size_px: Size | None) -> Size:
    rows = declared.get("num_rows", declared.get("height"))
    columns = declared.get("num_cols", declared.get("width"))
    grid = (rows, columns) if rows is not None and columns is not None else size_px
    if grid is None:
        raise DataError(
            f"holds {points} points and does not say of how many rows and columns; {_ORGANISED}, and write its width "
            "and height into intrinsics.json if the program cannot"
        )
    check_size(grid)
    if grid[0] * grid[1] != points:
        raise DataError(f"holds {points} points, not those of {grid[0]} rows of {grid[1]}; {_ORGANISED}")
    if size_px is not None and size_px != grid and size_px[0] * size_px[1] == points:
        raise DataError(f"says that it has {grid[0]} x {grid[1]} points, and {size_px[0]} x {size_px[1]} was expected")
    return grid


def _header(data: bytes) -> tuple[str, list[_Element], dict[str, int], int]:
    """Format, elements, sizes declared in comments, and where the data begin."""
    head = re.match(rb"ply(\r?\n|\r)", data)
    end = re.compile(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)").search(data, 0, MAX_HEADER_NBYTES)
    if head is None or end is None:
        raise DataError(f"cannot be read as PLY (no header of at most {MAX_HEADER_NBYTES} bytes)")
    form, elements, declared = "", list[_Element](), dict[str, int]()
    for line in re.split(r"\r\n|\n|\r", data[head.end() : end.start()].decode("latin-1")):
        word, *rest = line.split() or [""]
        if word == "format" and len(rest) == 2 and rest[0] in ORDERS and not form:
            form = rest[0]
        elif word in ("comment", "obj_info"):
            _declare(declared, line)
        elif word == "element" and len(rest) == 2:
            elements.append(_element(rest[0], rest[1], elements))
        elif word == "property" and len(rest) >= 2 and elements:
            _property(elements[-1], rest)
        elif word:
            raise DataError(f"cannot be read as PLY (line {line[:80]!r} of its header)")
    if not form:
        raise DataError("cannot be read as PLY (its header names no format)")
    return form, elements, declared, end.end()


def _declare(declared: dict[str, int], line: str) -> None:
    for found in _SIZE.finditer(line):
        name, number = found[1].lower(), int(found[2])
        if declared.setdefault(name, number) != number:
            raise DataError(f"names its {name} twice, as {declared[name]} and {number}; {_ORGANISED}")


def _element(name: str, text: str, elements: list[_Element]) -> _Element:
    count = whole_number(text)
    if count is None or count < 0 or len(elements) >= MAX_ELEMENTS or any(one.name == name for one in elements):
        raise DataError(f"cannot be read as PLY (element {name[:40]!r} with the count {text[:40]!r})")
    return _Element(name, count)


def _property(element: _Element, words: list[str]) -> None:
    if words[0] == "list":
        element.has_lists = True
        return
    kind, name = words[0], words[1]
    if kind not in TYPES or name in element.types or len(element.types) >= MAX_PROPERTIES or len(words) != 2:
        raise DataError(f"cannot be read as PLY (property {' '.join(words)[:80]!r})")
    element.types[name] = TYPES[kind]
