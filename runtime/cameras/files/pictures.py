"""Pictures as files: colour and masks, and depth or points in PNG and TIFF. Values are as stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asperity.runtime.cameras.files.content import Content, Size
from asperity.runtime.errors import DataError
from asperity.runtime.files import read_file
from asperity.runtime.frame import BoolArray, ByteArray, FloatArray, frame_size_fault
from asperity.runtime.vision.picture_files import MAX_FILE_NBYTES, decode_tiff, open_png

TIFFS = (".tiff", ".tif")
LARGEST_MULTIPLE = 8


def read_rgb(path: Path) -> ByteArray:
    """The picture as H x W x 3 u8, values as stored (``open_png``).

    Grey and palette pictures and an opaque alpha channel are converted without loss.

    Raises DataError for a missing or unreadable file, more than 8 bits, or transparency.
    """
    try:
        with open_png(read_file(path, MAX_FILE_NBYTES, follow=True)) as picture:
            if picture.palette is not None and np.asarray(picture).max() >= len(picture.palette.palette) // 3:
                raise DataError("has pixels of colours that its palette does not have")
            rgba = np.asarray(picture.convert("RGBA"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, DataError) as error:
        raise DataError(f"{path} {words(error)}; write it again as an 8-bit RGB PNG") from error
    if (rgba[..., 3] != 255).any():
        raise DataError(f"{path} has transparent pixels; save it as an RGB PNG without alpha channel")
    return np.ascontiguousarray(rgba[..., :3])


def read_mask(path: Path) -> BoolArray:
    """The ground-truth mask as H x W bool: any non-zero pixel is defective. Raises DataError as ``read_rgb``."""
    mask: BoolArray = (read_rgb(path) > 0).max(axis=2)
    return mask


def read_xyz(path: Path) -> FloatArray:
    """The organised cloud as H x W x 3 f4, values as stored.

    Raises DataError for a missing or unreadable file, another dtype or another shape.
    """
    xyz = _read_tiff(path)
    if xyz.dtype != np.float32:
        raise DataError(f"{path} holds {xyz.dtype} values; the point cloud must be float32 x, y, z for each pixel")
    if xyz.ndim != 3 or xyz.shape[2] != 3 or 0 in xyz.shape:
        raise DataError(f"{path} has shape {xyz.shape}; the point cloud must be height x width x 3")
    return np.ascontiguousarray(xyz)


def read_tiff_points(path: Path) -> Content:
    """Points (H x W x 3 f4) or depth (H x W u2 or f4). Raises DataError."""
    stored = _read_tiff(path)
    if stored.ndim == 3 and stored.shape[2] == 3 and stored.dtype == np.float32:
        return Content(xyz=np.ascontiguousarray(stored))
    if stored.ndim == 2 and stored.dtype in (np.uint16, np.float32):
        _check_size(path, stored)
        return Content(depth=np.ascontiguousarray(stored))
    raise DataError(
        f"{path} holds {stored.dtype} {stored.shape}; points are float32, height x width x 3, and depth is uint16 or "
        "float32, height x width"
    )


def read_png_depth(path: Path) -> Content:
    """Depth (H x W u2). Raises DataError."""
    return Content(depth=_read_png16(path, "a depth picture is grey with 16 bits: its numbers are depths"))


def read_colour(path: Path, white_level: int) -> ByteArray:
    """A picture as H x W x 3 u8. ``white_level``: the value that becomes 255 where there are more than 8 bits; 0: such
    pictures are refused. Raises DataError."""
    if path.suffix.lower() in TIFFS:
        stored = _read_tiff(path, colour=True)
    elif white_level and _png_bits(path) == 16:
        stored = _read_png16(path, "colour of 16 bits is read from TIFF, or as 8 bits")
    else:
        return read_rgb(path)
    if stored.ndim not in (2, 3) or stored.shape[2:] not in ((), (3,)) or stored.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path} holds {stored.dtype} {stored.shape}; colour is 8 or 16 bits, height x width x 3")
    _check_size(path, stored)
    if stored.dtype == np.uint16:
        if not white_level:
            raise DataError(
                f'{path} has 16 bits per channel; say which stored value is white, such as "white_level": 4095 in '
                "intrinsics.json, or white_level of the camera's table in camera.toml, or save it with 8 bits by a "
                "fixed rule"
            )
        stored = _eight_bits(stored, white_level)
    return np.ascontiguousarray(stored if stored.ndim == 3 else np.repeat(stored[..., None], 3, axis=2))


def reduced(rgb: ByteArray, size_px: Size) -> ByteArray | None:
    """The picture in the points' size: as it is or, a whole multiple of it, by the mean of each area; else None."""
    rows, columns = size_px
    times = rgb.shape[0] // rows
    if rgb.shape[:2] != (times * rows, times * columns) or not 1 <= times <= LARGEST_MULTIPLE:
        return None
    if times == 1:
        return rgb
    sums = rgb.reshape(rows, times, columns, times, 3).sum(axis=(1, 3), dtype=np.uint32)
    means: ByteArray = ((2 * sums + times**2) // (2 * times**2)).astype(np.uint8)
    return means


def words(error: OSError | DataError) -> str:
    """What is wrong with a file, to follow its name."""
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)


def _eight_bits(stored: NDArray[Any], white_level: int) -> ByteArray:
    levels = np.minimum(np.arange(2**16, dtype=np.int64), white_level)
    return np.take(((510 * levels + white_level) // (2 * white_level)).astype(np.uint8), stored)  # rounded, clipped


def _read_tiff(path: Path, *, colour: bool = False) -> NDArray[Any]:
    try:
        return decode_tiff(read_file(path, MAX_FILE_NBYTES, follow=True), colour=colour)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, DataError) as error:
        raise DataError(f"{path} {words(error)}; write it again") from error


def _check_size(path: Path, stored: NDArray[Any]) -> None:
    if fault := frame_size_fault(stored.shape[0], stored.shape[1]):
        raise DataError(f"{path} is {fault}")


def _png_bits(path: Path) -> int:
    try:
        return (read_file(path, MAX_FILE_NBYTES, follow=True)[:25] + bytes(25))[24]
    except OSError as error:
        raise DataError(f"{path} {words(error)}") from error


def _read_png16(path: Path, rule: str) -> NDArray[np.uint16]:
    try:
        with open_png(read_file(path, MAX_FILE_NBYTES, follow=True), bits=(16,)) as picture:
            if not picture.mode.startswith("I"):
                raise DataError("holds colours")
            return np.ascontiguousarray(np.asarray(picture), dtype=np.uint16)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, DataError) as error:
        raise DataError(f"{path} {words(error)}; {rule}") from error
