"""NPY and NPZ of numpy. Sizes come from their headers, before memory is taken; nothing is ever unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.files.content import Content, as_f4, check_size
from asperity.runtime.cameras.files.intrinsics import from_matrix
from asperity.runtime.errors import DataError
from asperity.runtime.frame import MAX_PIXELS, Intrinsics

MAX_MEMBERS = 64
MAX_ARRAY_HEADER_NBYTES = 4096
CENTRAL = b"PK\x01\x02"
NAMES = ("xyz", "depth", "rgb", "intrinsics")
_FLOATS = ("f2", "f4", "f8")


def decode_npy(data: bytes) -> Content:
    """Points (H x W x 3) or depth (H x W). Raises DataError."""
    stored = _array(BytesIO(data), len(data))
    if stored.ndim == 3 and stored.shape[2] == 3:
        return Content(xyz=_xyz(stored, "the array"))
    return Content(depth=_depth(stored, "the array"))


def decode_npz(data: bytes) -> Content:
    """The arrays ``xyz`` or ``depth``, ``rgb`` and ``intrinsics`` (3 x 3); others are not read. Raises DataError."""
    if data.count(CENTRAL) > 4 * MAX_MEMBERS:
        raise DataError(f"holds more than {MAX_MEMBERS} arrays")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            arrays = _members(archive)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise DataError(f"cannot be read as NPZ ({error})") from None
    if ("xyz" in arrays) == ("depth" in arrays):
        raise DataError(f"must hold either xyz or depth; arrays are called {', '.join(NAMES)}")
    rgb = arrays.get("rgb")
    if rgb is not None and (rgb.dtype != np.uint8 or rgb.ndim not in (2, 3) or rgb.shape[2:] not in ((), (3,))):
        raise DataError(f"holds rgb as {rgb.dtype} {rgb.shape}; it must be uint8, height x width x 3")
    if rgb is not None:
        check_size(rgb.shape[:2])
        rgb = np.ascontiguousarray(rgb if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, axis=2))
    lens = _lens(arrays["intrinsics"]) if "intrinsics" in arrays else None
    if "xyz" in arrays:
        return Content(xyz=_xyz(arrays["xyz"], "xyz"), rgb=rgb)
    return Content(depth=_depth(arrays["depth"], "depth"), rgb=rgb, intrinsics=lens)


def _members(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS or len({member.filename for member in members}) != len(members):
        raise DataError(f"holds more than {MAX_MEMBERS} arrays, or two of one name")
    arrays = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in NAMES:
            with archive.open(member) as file:
                arrays[name] = _array(file, member.file_size)
    return arrays


def _array(file: IO[bytes], nbytes: int) -> NDArray[Any]:
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise DataError(f"is NPY of version {version[0]}.{version[1]}; 1.0 and 2.0 are read")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file, max_header_size=MAX_ARRAY_HEADER_NBYTES)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy raises whatever a damaged header leads it to
        raise DataError(f"holds an array that cannot be read ({str(error)[:200]})") from None
    if dtype.kind not in "uif" or len(shape) > 3 or min(shape, default=1) < 0:
        raise DataError(f"holds an array of {str(dtype)[:40]} {str(shape)[:80]}; numbers in up to 3 axes are read")
    size = math.prod(shape)
    if size > 3 * MAX_PIXELS or size * dtype.itemsize > nbytes:
        raise DataError(f"declares an array of {size} numbers, more than the file or a frame can hold")
    content = file.read(size * dtype.itemsize + 1)
    if len(content) != size * dtype.itemsize:
        raise DataError(f"is damaged: an array has {len(content)} bytes, not {size * dtype.itemsize}")
    stored = np.frombuffer(content, dtype)
    return stored.reshape(shape[::-1]).T if by_columns else stored.reshape(shape)


def _xyz(stored: NDArray[Any], name: str) -> NDArray[np.float32]:
    if stored.dtype.str[1:] not in _FLOATS or stored.ndim != 3 or stored.shape[2] != 3:
        raise DataError(f"holds {name} as {stored.dtype} {stored.shape}; points are floats, height x width x 3")
    check_size(stored.shape[:2])
    return as_f4(stored)


def _depth(stored: NDArray[Any], name: str) -> NDArray[Any]:
    if stored.ndim == 3 and stored.shape[2] == 1:
        stored = stored[..., 0]
    if stored.dtype.str[1:] not in (*_FLOATS, "u2") or stored.ndim != 2:
        raise DataError(
            f"holds {name} as {stored.dtype} {stored.shape}; depth is uint16 or float, height x width, and points are "
            "height x width x 3"
        )
    check_size((stored.shape[0], stored.shape[1]))
    return np.ascontiguousarray(stored, dtype=np.uint16) if stored.dtype.kind == "u" else as_f4(stored)


def _lens(stored: NDArray[Any]) -> Intrinsics:
    if stored.shape != (3, 3):
        raise DataError(f"holds intrinsics of shape {stored.shape}; they are the 3 x 3 matrix of the depth's lens")
    return from_matrix([float(number) for number in stored.ravel()])
