"""The lens of a depth camera, and what depth and colour are stored as: ``intrinsics.json`` and its common relatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args

from asperity.runtime.cameras.files.content import Size
from asperity.runtime.errors import DataError
from asperity.runtime.files import read_file
from asperity.runtime.frame import Intrinsics, Unit
from asperity.runtime.text.encoding import TextRefused
from asperity.runtime.text.formats import decode_json
from asperity.runtime.vision.units import BROWN_CONRADY_MODELS

MAX_NBYTES = 64 * 1024
NAMES = ("intrinsics.json", "camera_info.json", "*.intr")
"""What such a file is called."""
FOCAL_X, FOCAL_Y = ("fx", "_fx"), ("fy", "_fy")
CENTRE_X, CENTRE_Y = ("cx", "_cx", "ppx"), ("cy", "_cy", "ppy")
MATRIX = ("K", "k", "intrinsic_matrix", "camera_matrix")
COEFFICIENTS = ("coefficients", "coeffs", "dist", "D", "d")
MODEL = ("model", "distortion_model")
MOST_COEFFICIENTS = 16
LARGEST = 1e6
"""No focal length or centre in pixels is larger."""
LARGEST_NUMBER = 1e12


class Lens(NamedTuple):
    """What such a file says."""

    intrinsics: Intrinsics | None
    size_px: Size | None
    """Of the pictures that it holds for."""
    unit: Unit | None
    scale: float | None
    invalid: float | None
    white_level: int


def read_intrinsics(path: Path) -> Lens:
    """Read the file. Raises DataError naming it, the key and the remedy."""
    try:
        said = decode_json(read_file(path, MAX_NBYTES, follow=True), dict[str, Any])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    except TextRefused as error:
        raise DataError(f"{path} {error}") from None
    try:
        return _lens(said)
    except DataError as error:
        raise DataError(f"{path} {error}") from None


def from_matrix(numbers: list[float]) -> Intrinsics:
    """A pinhole by its 3 x 3 matrix, row by row or, as Open3D writes it, column by column. Raises DataError."""
    if len(numbers) == 9 and not any(numbers[2:6:3]) and any(numbers[6:8]):
        numbers = [numbers[row + 3 * column] for row in range(3) for column in range(3)]
    if len(numbers) != 9 or numbers[1] or numbers[3] or numbers[6:] != [0, 0, 1]:
        raise DataError("has a matrix that is not fx 0 cx, 0 fy cy, 0 0 1; pixels without skew are read")
    return _pinhole(numbers[0], numbers[4], numbers[2], numbers[5])


def _pinhole(fx: float, fy: float, cx: float, cy: float) -> Intrinsics:
    if not all(abs(number) <= LARGEST for number in (fx, fy, cx, cy)) or min(fx, fy) <= 0:
        raise DataError(f"has fx {fx:g}, fy {fy:g}, cx {cx:g}, cy {cy:g}; give pixels, fx and fy above 0")
    return Intrinsics(fx, fy, cx, cy)


def _lens(said: dict[str, Any]) -> Lens:
    unit = said.get("unit")
    if unit is not None and unit not in get_args(Unit):
        raise DataError(f"has unit {str(unit)[:20]!r}; give m, mm or um")
    scale = _number(said, ("scale",))
    if scale is not None and not scale > 0:
        raise DataError(f"has scale {scale:g}; give a number above 0")
    if "depth_scale" in said and scale is None:
        raise DataError(
            "has depth_scale, which some programs divide by and others multiply with; write scale, by which stored "
            'values are multiplied, and unit, such as "scale": 0.001, "unit": "m"'
        )
    white = _number(said, ("white_level",))
    if white is not None and not (white == int(white) and 1 <= white <= 65535):
        raise DataError(f"has white_level {white:g}; give the stored value of white, 1 to 65535")
    return Lens(_intrinsics(said), _size(said), unit, scale, _number(said, ("invalid",)), int(white or 0))


def _intrinsics(said: dict[str, Any]) -> Intrinsics | None:
    four = [_number(said, names) for names in (FOCAL_X, FOCAL_Y, CENTRE_X, CENTRE_Y)]
    matrix = [name for name in MATRIX if name in said]
    if four == [None] * 4 and not matrix:
        return None
    if matrix and (len(matrix) > 1 or four != [None] * 4):
        raise DataError(f"gives the lens twice, as {matrix[0]} and in another way; remove one of them")
    if _number(said, ("_skew", "skew")):
        raise DataError("has a skew; pixels without skew are read")
    if matrix:
        plain = from_matrix(_numbers(said[matrix[0]], matrix[0], 9))
    else:
        fx, fy, cx, cy = four
        if fx is None or fy is None or cx is None or cy is None:
            raise DataError("lacks one of fx, fy, cx and cy; give all four")
        plain = _pinhole(fx, fy, cx, cy)
    return _with_distortion(plain, said)


def _with_distortion(plain: Intrinsics, said: dict[str, Any]) -> Intrinsics:
    there = [name for name in COEFFICIENTS if name in said]
    if len(there) > 1:
        raise DataError(f"gives the distortion twice, as {there[0]} and {there[1]}; remove one of them")
    dist = _numbers(said[there[0]], there[0], MOST_COEFFICIENTS) if there else []
    if not any(dist):
        return plain
    model = str(next((said[name] for name in MODEL if name in said), ""))
    model = model.lower().removeprefix("distortion.")
    if model == "rational_polynomial" and not any(dist[5:]):
        model = "brown_conrady"  # of which it is an extension
    if model not in BROWN_CONRADY_MODELS or len(dist) < 4 or any(dist[5:]):
        raise DataError(
            f"has the distortion model {model[:40]!r} with {len(dist)} coefficients; give brown_conrady with k1, k2, "
            "p1, p2[, k3], or undistorted frames without coefficients"
        )
    return Intrinsics(plain.fx, plain.fy, plain.cx, plain.cy, "brown_conrady", tuple(dist[:5]))


def _size(said: dict[str, Any]) -> Size | None:
    width, height = (_number(said, names) for names in (("width", "_width"), ("height", "_height")))
    if (width is None) != (height is None):
        raise DataError("gives only one of width and height; give both")
    for name in ("binning_x", "binning_y"):
        if (_number(said, (name,)) or 0) > 1:
            raise DataError(f"has {name} above 1; give the lens of the pictures as they are stored")
    roi = said.get("roi")
    if isinstance(roi, dict) and any(_number(roi, (name,)) for name in ("x_offset", "y_offset")):
        raise DataError("holds for a part of the sensor (roi); give the lens of the pictures as they are stored")
    if width is None or height is None:
        return None
    if width != int(width) or height != int(height):
        raise DataError(f"has width {width:g} and height {height:g}; give pixels")
    return int(height), int(width)


def _number(said: dict[str, Any], names: tuple[str, ...]) -> float | None:
    there = [name for name in names if name in said]
    if not there:
        return None
    value = said[there[0]]
    if len(there) > 1 or isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST_NUMBER:
        raise DataError(f"has {there[0]} that is not a number, is out of range or is there twice")
    return float(value)


def _numbers(value: Any, name: str, most: int) -> list[float]:
    rows = value if isinstance(value, list) else [None]
    flat = [one for row in rows[:most] for one in (row[:most] if isinstance(row, list) else [row])]
    if len(rows) > most or len(flat) > most:
        raise DataError(f"has {name} with more than {most} numbers")
    found = []
    for one in flat:
        number = _number({name: one}, (name,))
        assert number is not None
        found.append(number)
    return found
