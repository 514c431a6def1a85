"""Messages of ROS 2 drivers as arrays: PointCloud2, Image, CameraInfo. Pure: works on decoded messages of any library.

What a message declares is checked against what it holds before anything is made of it.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.sources.ros2.keys import POINTS
from asperity.runtime.errors import CameraError
from asperity.runtime.frame import ByteArray, FloatArray, Intrinsics, Unit, frame_size_fault

FRAME_ID_MAX = 256
FIELDS_MAX = 64
INFO_MAX_NBYTES = 65_536
"""A CameraInfo has a few hundred bytes."""
_FLOATS = {7: "f4", 8: "f8"}
_PACKED = {6: "u4", 7: "f4"}
"""Types of a packed colour; a float is read by its bits."""
_BROWN_CONRADY = ("plumb_bob", "brown_conrady")


class Head(NamedTuple):
    """The beginning of a message, read without decoding the rest."""

    stamp_ns: int
    frame_id: str


class Depth(NamedTuple):
    """A depth image; 0 and NaN are missing points."""

    values: NDArray[np.uint16] | FloatArray  # H x W
    unit: Unit


class Cloud(NamedTuple):
    """An organised point cloud, metres."""

    xyz: FloatArray  # H x W x 3
    rgb: ByteArray | None  # H x W x 3


class Lens(NamedTuple):
    """What CameraInfo says of a picture's geometry."""

    shape_px: tuple[int, int]
    frame_id: str
    intrinsics: Intrinsics


def read_head(data: bytes, kind: str, *, max_nbytes: int) -> Head:
    """Stamp and frame of a message in CDR, both byte orders; sizes are compared with its length.

    Raises CameraError for bytes that cannot be a message of this type, before anything of their size is allocated.
    """
    if len(data) > max_nbytes:
        raise CameraError(f"a message has {len(data)} bytes; at most {max_nbytes} are taken (message_max_mb)")
    try:
        order = {b"\0\0": ">", b"\0\1": "<"}[data[:2]]
        seconds, nanoseconds, text_nbytes = struct.unpack_from(f"{order}iII", data, 4)
        if not 1 <= text_nbytes <= FRAME_ID_MAX + 1 or data[15 + text_nbytes] != 0:
            raise ValueError("its frame_id is too long")
        frame_id = data[16 : 15 + text_nbytes].decode("ascii")
        at = 16 + text_nbytes + -text_nbytes % 4
        height, width, count = struct.unpack_from(f"{order}III", data, at)
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise CameraError(f"a message is not CDR of {kind}: {error}") from error
    if nanoseconds >= 10**9:
        raise CameraError(f"a message has the stamp {seconds} s and {nanoseconds} ns, which is not a time")
    if not frame_id.isprintable():
        raise CameraError(f"a message has the frame_id {frame_id!r}, which cannot be shown")
    if fault := frame_size_fault(height, width):
        raise CameraError(f"a message of {kind} declares {fault}")
    if kind == POINTS and count > FIELDS_MAX:
        raise CameraError(f"a point cloud declares {count} fields; at most {FIELDS_MAX} are taken")
    return Head(seconds * 10**9 + nanoseconds, frame_id)


def depth_of(message: Any) -> Depth:
    """A depth Image (REP 118): 16UC1 in mm, 32FC1 in m. Raises CameraError."""
    kinds: dict[str, tuple[str, Unit]] = {"16UC1": ("u2", "mm"), "32FC1": ("f4", "m")}
    if message.encoding not in kinds:
        raise CameraError(
            f"the depth image has the encoding {message.encoding!r}; set its driver to 16UC1 (mm) or 32FC1 (m)"
        )
    code, unit = kinds[message.encoding]
    dtype = np.dtype((">" if message.is_bigendian else "<") + code)
    values = _grid(message, message.step, dtype.itemsize, 0, dtype)
    return Depth(np.ascontiguousarray(values, dtype=code), unit)


def cloud_of(message: Any) -> Cloud:
    """An organised PointCloud2 with float x, y and z, and its colour where it has one. Raises CameraError."""
    if message.height < 2 or message.width < 2:
        raise CameraError(
            f"the point cloud is {message.height} x {message.width} points (height x width); it is not organised. Set "
            "the driver to organised clouds (for realsense2_camera: pointcloud.ordered_pc)"
        )
    fields: dict[str, Any] = {}
    for one in message.fields:
        if one.name in fields:
            raise CameraError(f"the point cloud has two fields {one.name!r}")
        fields[one.name] = one
    order = ">" if message.is_bigendian else "<"
    xyz = np.empty((message.height, message.width, 3), np.float32)
    for axis, name in enumerate("xyz"):
        with np.errstate(over="ignore"):  # a coordinate beyond f4 is infinite, which is a missing point
            xyz[..., axis] = _column(message, fields, name, _FLOATS, order)
    name = next((name for name in ("rgb", "rgba") if name in fields), "")
    if not name:
        return Cloud(xyz, None)
    packed = _column(message, fields, name, _PACKED, order).astype(order + _PACKED[fields[name].datatype], copy=False)
    bits = np.ascontiguousarray(packed).view(order + "u4")
    return Cloud(xyz, np.stack([(bits >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=2))


def lens_of(message: Any, *, rectified: bool) -> Lens:
    """The lens of raw pictures (K, D) or of rectified ones (P). Raises CameraError for one that cannot be used."""
    if message.binning_x > 1 or message.binning_y > 1 or any(_region(message)):
        raise CameraError("the camera_info has binning or a region of interest; set the driver to whole pictures")
    k, p, d = ([float(value) for value in values] for values in (message.k, message.p, message.d))
    fx, fy, cx, cy = (p[0], p[5], p[2], p[6]) if rectified else (k[0], k[4], k[2], k[5])
    if not all(math.isfinite(value) for value in (fx, fy, cx, cy, *d)) or fx <= 0 or fy <= 0:
        raise CameraError(
            f"the camera_info has fx {fx}, fy {fy}, cx {cx}, cy {cy}; the camera is not calibrated, or its driver does "
            "not know its lens"
        )
    if rectified and (p[3] or p[7]):
        raise CameraError("the camera_info is of a stereo pair's second camera; take the depth of the first")
    if rectified or not any(d):
        return Lens(_shape(message), message.header.frame_id, Intrinsics(fx, fy, cx, cy))
    if message.distortion_model not in _BROWN_CONRADY or len(d) not in (4, 5):
        raise CameraError(
            f"the camera_info has the distortion model {message.distortion_model!r} with {len(d)} coefficients; only "
            "plumb_bob with 4 or 5 is known. Take the rectified depth image, or the point cloud"
        )
    return Lens(_shape(message), message.header.frame_id, Intrinsics(fx, fy, cx, cy, "brown_conrady", tuple(d)))


def _shape(message: Any) -> tuple[int, int]:
    return int(message.height), int(message.width)


def _region(message: Any) -> tuple[int, ...]:
    roi = message.roi
    whole = (roi.height, roi.width) in ((0, 0), _shape(message))
    return (roi.x_offset, roi.y_offset, 0 if whole else 1)


def _column(message: Any, fields: dict[str, Any], name: str, kinds: dict[int, str], order: str) -> NDArray[Any]:
    if name not in fields:
        raise CameraError(f"the point cloud has no field {name}; it has {', '.join(map(repr, fields)) or 'none'}")
    one = fields[name]
    if one.datatype not in kinds or one.count != 1:
        raise CameraError(
            f"the point cloud's field {name} has the datatype {one.datatype} x {one.count}; not supported"
        )
    return _grid(message, message.row_step, message.point_step, one.offset, np.dtype(order + kinds[one.datatype]))


def _grid(message: Any, row: int, step: int, offset: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """One value for each pixel out of ``message.data``, not copied."""
    height, width, nbytes = message.height, message.width, len(message.data)
    if fault := frame_size_fault(height, width):
        raise CameraError(f"a message declares {fault}")
    if offset + dtype.itemsize > step or row < width * step or nbytes != height * row:
        raise CameraError(
            f"a message declares {height} rows of {row} bytes with {width} points of {step} bytes, a value at {offset} "
            f"of them, and holds {nbytes} bytes; its driver is faulty"
        )
    return np.ndarray((height, width), dtype, np.ascontiguousarray(message.data), offset, (row, step))
