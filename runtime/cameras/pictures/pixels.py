"""Colour as cameras store it -> rgb u8 H x W x 3. Pure; the one place for every source.

Formats go by the names of GenICam (PFNC), ROS and RealSense. What is not listed is refused by name. A picture of
more than 8 bits is divided by a fixed white level, never by its own brightest pixel: the picture of a part must not
depend on what lies next to it. Every result is a copy: the SDK may write its next picture over the buffer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.errors import CameraError
from asperity.runtime.frame import ByteArray, frame_size_fault

Layout = Literal["mono", "rgb", "planar", "yuv", "bayer"]
Buffer = bytes | bytearray | memoryview | NDArray[Any]


class Format(NamedTuple):
    """How a colour picture is stored."""

    layout: Layout
    bits: int = 8
    """Significant bits, in the low end of 8 or 16 stored ones."""
    order: str = "rgb"
    """Channels as stored; of Bayer the first two pixels of the first row; of YUV the four bytes of two pixels."""
    video_range: bool = False
    """YUV with Y of 16 to 235 (BT.601), not 0 to 255."""


class Colour(NamedTuple):
    """A colour picture."""

    rgb: ByteArray  # H x W x 3
    saturated_px: int
    """Pixels with a channel at or above white."""


def _formats() -> dict[str, Format]:
    found: dict[str, Format] = {}
    for bits in (8, 10, 12, 14, 16):
        found[f"mono{bits}"] = Format("mono", bits)
        for order in ("rg", "gr", "gb", "bg"):
            found[f"bayer{order}{bits}"] = Format("bayer", bits, order)
    for bits in (8, 16):
        for order in ("rgb", "bgr", "rgba", "bgra"):
            found[f"{order}{bits}"] = Format("rgb", bits, order)
        found[f"rgb{bits}planar"] = Format("planar", bits)
        for first, order in (("rggb", "rg"), ("grbg", "gr"), ("gbrg", "gb"), ("bggr", "bg")):
            found[f"bayer{first}{bits}"] = Format("bayer", bits, order)
    for order in ("rgb", "bgr"):
        for bits in (10, 12):
            found[f"{order}{bits}"] = Format("rgb", bits, order)
    # GenICam: YUV and YCbCr use all 256 levels, YCbCr601 those of video.
    found |= dict.fromkeys(("yuv4228", "ycbcr4228"), Format("yuv", 8, "yuyv"))
    found |= dict.fromkeys(("yuv4228uyvy", "ycbcr4228cbycry", "yuv422packed"), Format("yuv", 8, "uyvy"))
    found |= dict.fromkeys(("yuyv", "yuv422yuy2", "ycbcr6014228"), Format("yuv", 8, "yuyv", video_range=True))
    found |= dict.fromkeys(("uyvy", "yuv422", "ycbcr6014228cbycry"), Format("yuv", 8, "uyvy", video_range=True))
    found |= {"y8": found["mono8"], "y16": found["mono16"]}
    found |= {f"{order}8packed": found[f"{order}8"] for order in ("rgb", "bgr", "rgba", "bgra")}
    return found


_FORMATS = _formats()


def format_of(name: str) -> Format:
    """What a format's name means; capitals and underscores do not matter. Raises CameraError for an unknown one."""
    plain = name.lower().removeprefix("format.").replace("_", "")
    if plain not in _FORMATS:
        raise CameraError(
            f"the pixel format {name!r} is not supported; set the camera to one of Mono8, Mono10, Mono12, Mono16, "
            "RGB8, BGR8, RGBa8, BGRa8, RGB16, YUV422_8, or BayerRG8 to 16 (unpacked)"
        )
    return _FORMATS[plain]


def is_known(name: str) -> bool:
    """Whether ``colour`` takes this format."""
    return name.lower().removeprefix("format.").replace("_", "") in _FORMATS


def colour(
    buffer: Buffer, name: str, rows: int, columns: int, *, white_level: int = 0, row_nbytes: int = 0,
    big_endian: bool = False,
) -> Colour:  # fmt: skip
    """The picture in ``buffer`` as rgb.

    ``white_level``: the stored value that becomes 255, of formats with more than 8 bits; 0: the largest of the format's
    bits, which with 16 bits must be given, since many cameras fill fewer. ``row_nbytes``: from row to row, if padded.
    Raises CameraError for a format, size or buffer that cannot be.
    """
    form = format_of(name)
    white = _white(form, name, white_level)
    samples = _samples(buffer, form, name, rows, columns, row_nbytes, big_endian)
    if form.layout == "yuv":
        rgb = _from_yuv(samples, form)
        return Colour(rgb, _count(rgb, 255))
    stored: NDArray[Any]
    if form.layout == "mono":
        saturated = int((samples >= white).sum())
        rgb = np.repeat(_to_bytes(samples, white)[..., None], 3, axis=2)
        return Colour(rgb, saturated)
    if form.layout == "bayer":
        # A pixel that has its two other colours from its neighbours is saturated where it was itself.
        saturated = int((samples >= white).sum())
        return Colour(_to_bytes(_demosaiced(samples, form.order), white), saturated)
    if form.layout == "planar":
        stored = np.moveaxis(samples.reshape(3, rows, columns), 0, 2)
    else:
        stored = samples.reshape(rows, columns, len(form.order))[..., [form.order.index(name) for name in "rgb"]]
    return Colour(_to_bytes(stored, white), _count(stored, white))


def _white(form: Format, name: str, asked: int) -> int:
    most = 2**form.bits - 1
    if form.bits == 8:
        return 255
    if not 0 <= asked <= most:
        raise CameraError(f"the white level {asked} is out of range for {name}; give 1 to {most}")
    if not asked and form.bits == 16:
        raise CameraError(
            f"{name} needs a white level, the stored value of white: 65535 for a camera that uses all 16 bits, 4095 "
            "for one with 12 bits; it is fixed, so that a part's picture does not depend on what else is in it"
        )
    return asked or most


def _samples(
    buffer: Buffer, form: Format, name: str, rows: int, columns: int, row_nbytes: int, big_endian: bool
) -> NDArray[Any]:
    """The stored numbers: H x (W x channels) or, of planes, (3 x H) x W. Raises CameraError."""
    if fault := frame_size_fault(rows, columns):
        raise CameraError(f"the camera's picture is {fault}")
    wide = 2 if form.bits > 8 else 1
    per_pixel = {"mono": 1, "bayer": 1, "planar": 1, "yuv": 2, "rgb": len(form.order)}[form.layout]
    if form.layout == "yuv" and columns % 2:
        raise CameraError(f"a picture of {name} has an even number of columns, not {columns}")
    if form.layout == "bayer" and min(rows, columns) < 2:
        raise CameraError(f"a picture of {name} has at least 2 rows and 2 columns, not {rows} x {columns}")
    packed = columns * per_pixel * wide
    lines = 3 * rows if form.layout == "planar" else rows
    step = row_nbytes or packed
    flat = raw_bytes(buffer)
    needed = step * (lines - 1) + packed
    if step < packed or not needed <= flat.size <= step * lines:
        raise CameraError(
            f"the camera gave {flat.size} bytes for {rows} x {columns} pixels of {name} ({step} bytes per row), which "
            f"are {needed}"
        )
    picture = np.lib.stride_tricks.as_strided(flat, (lines, packed), (step, 1), writeable=False)
    if wide == 1:
        return picture
    samples = np.ascontiguousarray(picture).view(">u2" if big_endian else "<u2")
    return samples.astype(np.uint16, copy=False)


def raw_bytes(buffer: Buffer) -> ByteArray:
    """What a buffer or array holds, as flat bytes; no copy where it lies in one piece."""
    if isinstance(buffer, np.ndarray):
        return np.ascontiguousarray(buffer).reshape(-1).view(np.uint8)
    return np.frombuffer(buffer, dtype=np.uint8)


def _count(stored: NDArray[Any], white: int) -> int:
    return int((stored >= white).any(axis=2).sum())


def _to_bytes(stored: NDArray[Any], white: int) -> ByteArray:
    """Rounded to the nearest of 256 levels, clipped at white; always a copy."""
    if stored.dtype == np.uint8:
        return stored.astype(np.uint8, order="C")
    return np.take(_levels(white), stored)


@lru_cache(maxsize=4)
def _levels(white: int) -> ByteArray:
    values = np.minimum(np.arange(65_536, dtype=np.int64), white)
    return ((510 * values + white) // (2 * white)).astype(np.uint8)


def _from_yuv(samples: ByteArray, form: Format) -> ByteArray:
    """BT.601; both pixels of a pair have its chroma, as the SDKs and OpenCV do."""
    at = [form.order.index("y"), form.order.index("u"), form.order.index("v")]
    luma = samples[:, at[0] :: 2].astype(np.float32)
    u, v = (np.repeat(samples[:, start::4], 2, axis=1).astype(np.float32) - 128 for start in at[1:])
    if form.video_range:
        luma, u, v = (luma - 16) * np.float32(255 / 219), u * np.float32(255 / 224), v * np.float32(255 / 224)
    red = luma + np.float32(1.402) * v
    green = luma - np.float32(0.344136) * u - np.float32(0.714136) * v
    blue = luma + np.float32(1.772) * u
    return np.stack([np.clip(np.rint(one), 0, 255).astype(np.uint8) for one in (red, green, blue)], axis=2)


def _demosaiced(samples: NDArray[Any], order: str) -> NDArray[Any]:
    """Bilinear: a pixel's missing colours are the rounded means of its neighbours that have them."""
    wide: Any = np.uint32 if samples.dtype == np.uint16 else np.uint16
    padded = np.pad(samples, 1, mode="reflect").astype(wide)  # keeps the pattern going beyond the edge
    here = padded[1:-1, 1:-1]
    across = padded[1:-1, :-2] + padded[1:-1, 2:]
    down = padded[:-2, 1:-1] + padded[2:, 1:-1]
    corners = padded[:-2, :-2] + padded[:-2, 2:] + padded[2:, :-2] + padded[2:, 2:]
    row, column = divmod(("rg", "gr", "gb", "bg").index(order), 2)  # of the first red pixel
    red, blue = (slice(row, None, 2), slice(column, None, 2)), (slice(1 - row, None, 2), slice(1 - column, None, 2))
    with_red, with_blue = (red[0], blue[1]), (blue[0], red[1])  # green pixels, by their row
    rgb = np.empty((*samples.shape, 3), dtype=samples.dtype)
    for place, colours in (
        (red, (here, (across + down + 2) // 4, (corners + 2) // 4)),
        (blue, ((corners + 2) // 4, (across + down + 2) // 4, here)),
        (with_red, ((across + 1) // 2, here, (down + 1) // 2)),
        (with_blue, ((down + 1) // 2, here, (across + 1) // 2)),
    ):
        for channel, values in enumerate(colours):
            rgb[(*place, channel)] = values[place]
    return rgb
