"""Colour and 3D formats of cameras against plain loops in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asperity.runtime.cameras.pictures import coordinates, pixels
from asperity.runtime.cameras.pictures.coordinates import Axes
from asperity.runtime.errors import CameraError
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.vision.units import points_mm

ROWS, COLUMNS = 6, 8


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def colour_of(samples: NDArray[np.generic], name: str, rows: int = ROWS, columns: int = COLUMNS, white: int = 0):
    return pixels.colour(samples, name, rows, columns, white_level=white)


@pytest.mark.parametrize(("name", "most", "white"), [
    ("Mono8", 255, 255), ("Mono10", 1023, 1023), ("Mono12", 4095, 4095), ("Mono16", 65535, 60000),
    ("mono16", 4095, 3000),
])  # fmt: skip
def test_grey_is_scaled_by_a_fixed_white_level(rng: np.random.Generator, name: str, most: int, white: int) -> None:
    stored = rng.integers(0, most + 1, (ROWS, COLUMNS)).astype(np.uint8 if most == 255 else np.uint16)
    found = colour_of(stored, name, white=white if "16" in name else 0)
    exact = np.floor(np.minimum(stored.astype(np.float64) * 255 / white, 255) + 0.5)
    assert np.array_equal(found.rgb, np.repeat(exact[..., None], 3, axis=2))
    assert found.saturated_px == (stored >= white).sum()


def test_a_part_does_not_depend_on_its_neighbours() -> None:
    stored = np.full((ROWS, COLUMNS), 1000, dtype=np.uint16)
    brighter = stored.copy()
    brighter[0, 0] = 65535
    one, other = (colour_of(each, "Mono16", white=4095).rgb for each in (stored, brighter))
    assert np.array_equal(one[1:], other[1:])


@pytest.mark.parametrize(("name", "order"), [("RGB8", "rgb"), ("bgr8", "bgr"), ("RGBa8", "rgba"), ("BGRA8", "bgra")])
def test_order_of_channels(rng: np.random.Generator, name: str, order: str) -> None:
    stored = rng.integers(0, 256, (ROWS, COLUMNS, len(order)), np.uint8)
    found = colour_of(stored, name)
    for channel, letter in enumerate("rgb"):
        assert np.array_equal(found.rgb[..., channel], stored[..., order.index(letter)])
    assert not np.shares_memory(found.rgb, stored)  # the SDK may write its next picture there
    assert found.saturated_px == (stored[..., [order.index(letter) for letter in "rgb"]] == 255).any(axis=2).sum()


def test_planes_and_16_bits(rng: np.random.Generator) -> None:
    stored = rng.integers(0, 65536, (3, ROWS, COLUMNS)).astype(np.uint16)
    found = colour_of(stored, "RGB16_Planar", white=65535)
    exact = np.floor(np.moveaxis(stored, 0, 2).astype(np.float64) * 255 / 65535 + 0.5)
    assert np.array_equal(found.rgb, exact)
    interleaved = np.ascontiguousarray(np.moveaxis(stored, 0, 2))
    assert np.array_equal(colour_of(interleaved, "RGB16", white=65535).rgb, exact)
    swapped = pixels.colour(interleaved.astype(">u2"), "rgb16", ROWS, COLUMNS, white_level=65535, big_endian=True)
    assert np.array_equal(swapped.rgb, exact)


@pytest.mark.parametrize(("name", "at", "video"), [
    ("YUV422_8", (0, 1, 3), False), ("YUV422_8_UYVY", (1, 0, 2), False), ("yuyv", (0, 1, 3), True),
    ("yuv422", (1, 0, 2), True),
])  # fmt: skip
def test_yuv(rng: np.random.Generator, name: str, at: tuple[int, int, int], video: bool) -> None:
    stored = rng.integers(0, 256, (ROWS, 2 * COLUMNS), np.uint8)
    exact = np.zeros((ROWS, COLUMNS, 3))
    for row in range(ROWS):
        for column in range(COLUMNS):
            pair = stored[row, 4 * (column // 2) :][:4].astype(np.float64)
            y, u, v = pair[at[0] + 2 * (column % 2)], pair[at[1]] - 128, pair[at[2]] - 128
            if video:
                y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
            exact[row, column] = (y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u)
    found = colour_of(stored, name).rgb
    assert np.abs(found - np.clip(exact, 0, 255)).max() <= 0.501


@pytest.mark.parametrize("first", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize("bits", [8, 12])
def test_bayer(rng: np.random.Generator, first: str, bits: int) -> None:
    stored = rng.integers(0, 2**bits, (ROWS, COLUMNS)).astype(np.uint8 if bits == 8 else np.uint16)
    pattern = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[first]
    exact = np.zeros((ROWS, COLUMNS, 3))
    for row in range(ROWS):
        for column in range(COLUMNS):
            for channel, letter in enumerate("RGB"):
                if pattern[2 * (row % 2) + column % 2] == letter:
                    values = [stored[row, column]]
                else:
                    near = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
                    near = [(i, j) for i, j in near if pattern[2 * (i % 2) + j % 2] == letter]
                    # Beyond the edge lies the picture's mirror image, which keeps the pattern.
                    values = [stored[mirrored(i, ROWS), mirrored(j, COLUMNS)] for i, j in near]
                exact[row, column, channel] = np.floor(np.mean(np.array(values, np.float64)) + 0.5)
    exact = np.floor(exact * 255 / (2**bits - 1) + 0.5)
    assert np.array_equal(colour_of(stored, f"Bayer{first}{bits}").rgb, exact)


def mirrored(at: int, size: int) -> int:
    return -at if at < 0 else 2 * (size - 1) - at if at >= size else at


def test_a_flat_grey_wall_is_grey_in_every_bayer_order() -> None:
    for name in ("BayerRG8", "bayer_grbg8", "BayerGB10", "BayerBG16"):
        stored = np.full((ROWS, COLUMNS), 77, dtype=np.uint8 if name.endswith("8") else np.uint16)
        assert len(np.unique(colour_of(stored, name, white=255 if name.endswith("16") else 0).rgb)) == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(pixels._FORMATS)), st.integers(2, 9), st.integers(1, 6), st.integers(0, 5), st.data())
def test_every_format_of_every_size(name: str, rows: int, pairs: int, padding: int, data: st.DataObject) -> None:
    """Property: padding and the order of bytes do not matter, and a brighter picture is nowhere darker."""
    form, columns = pixels.format_of(name), 2 * pairs
    wide = 1 if form.bits == 8 else 2
    lines = 3 * rows if form.layout == "planar" else rows
    samples = columns * {"yuv": 2, "rgb": len(form.order)}.get(form.layout, 1)
    white = data.draw(st.integers(1, 2**form.bits - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    stored = rng.integers(0, 2**form.bits, (lines, samples)).astype("<u1" if wide == 1 else "<u2")
    plain = pixels.colour(stored, name, rows, columns, white_level=white)
    assert plain.rgb.shape == (rows, columns, 3) and plain.rgb.dtype == np.uint8 and plain.rgb.flags.c_contiguous
    swapped = stored.astype(stored.dtype.newbyteorder(">"))
    bytes_ = np.hstack([swapped.view(np.uint8), np.full((lines, padding), 77, np.uint8)]).tobytes()
    again = pixels.colour(bytes_, name, rows, columns, white_level=white, row_nbytes=samples * wide + padding,
                          big_endian=True)  # fmt: skip
    assert np.array_equal(again.rgb, plain.rgb) and again.saturated_px == plain.saturated_px
    if form.layout != "yuv":
        brighter = np.minimum(stored.astype(np.int64) + 3, 2**form.bits - 1).astype(stored.dtype)
        assert (pixels.colour(brighter, name, rows, columns, white_level=white).rgb >= plain.rgb).all()


def test_padded_rows() -> None:
    stored = np.arange(ROWS * 32, dtype=np.uint8).reshape(ROWS, 32)
    found = pixels.colour(stored.tobytes(), "RGB8", ROWS, COLUMNS, row_nbytes=32)
    assert np.array_equal(found.rgb, stored[:, :24].reshape(ROWS, COLUMNS, 3))


@pytest.mark.parametrize("name", ["Mono12p", "BayerRG12Packed", "8UC3", "Mono12Packed", "Confidence8", "", "rgb"])
def test_an_unknown_format_is_named(name: str) -> None:
    assert not pixels.is_known(name)
    with pytest.raises(CameraError, match="pixel format " + repr(name)):
        colour_of(np.zeros(10_000, np.uint8), name)


@pytest.mark.parametrize(("name", "nbytes", "rows", "columns", "options", "says"), [
    ("Mono8", 47, 6, 8, {}, "47 bytes"),
    ("Mono8", 49, 6, 8, {}, "49 bytes"),
    ("Mono8", 0, 6, 8, {}, "0 bytes"),
    ("Mono8", 10, 0, 8, {}, "0 x 8"),
    ("Mono8", 10, 100_000, 100_000, {}, "100000 x 100000"),
    ("RGB8", 48, 6, 8, {"row_nbytes": 8}, "8 bytes per row"),
    ("YUV422_8", 84, 6, 7, {}, "even number"),
    ("BayerRG8", 8, 1, 8, {}, "at least 2 rows"),
    ("Mono16", 96, 6, 8, {}, "needs a white level"),
    ("Mono12", 96, 6, 8, {"white_level": 5000}, "1 to 4095"),
    ("Mono16", 96, 6, 8, {"white_level": -1}, "1 to 65535"),
])  # fmt: skip
def test_what_cannot_be(name: str, nbytes: int, rows: int, columns: int, options: dict[str, int], says: str) -> None:
    with pytest.raises(CameraError, match=says):
        pixels.colour(bytes(nbytes), name, rows, columns, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Coord3D_ABC32f", "Coord3D_ABC32f_Planar", "Coord3D_ABC16", "Coord3D_ABC16_Planar"])
def test_points(rng: np.random.Generator, name: str) -> None:
    dtype = np.float32 if "32f" in name else np.uint16
    stored = rng.integers(1, 60_000, (ROWS, COLUMNS, 3)).astype(dtype)
    stored[1, 2, 2] = 65535 if dtype is np.uint16 else -1.5
    axes = Axes((0.01, 0.02, 0.03), (-100.0, 5.0, 300.0), (None, None, float(stored[1, 2, 2])))
    exact = stored.astype(np.float64) * axes.scale + axes.offset
    exact[1, 2] = 0
    sent = np.ascontiguousarray(np.moveaxis(stored, 2, 0)) if "Planar" in name else stored
    found = coordinates.points(sent, name, ROWS, COLUMNS, axes)
    assert np.allclose(found, exact, rtol=1e-6, atol=0)
    control = coordinates.points(sent, name, ROWS, COLUMNS, axes._replace(invalid=(None, None, None)))
    assert control[1, 2].any()


def test_points_that_are_not_finite_are_missing() -> None:
    stored = np.ones((ROWS, COLUMNS, 3), np.float32)
    stored[0, 0, 0], stored[0, 1, 2] = np.nan, np.inf
    found = coordinates.points(stored, "Coord3D_ABC32f", ROWS, COLUMNS)
    assert not found[0, :2].any()
    assert (found[0, 2:] == 1).all()


def test_an_invalid_number_is_compared_as_stored() -> None:
    stored = np.ones((ROWS, COLUMNS, 3), np.float32)
    stored[2, 2, 2] = np.float32(0.1)
    found = coordinates.points(stored, "Coord3D_ABC32f", ROWS, COLUMNS, Axes(invalid=(None, None, 0.1)))
    assert not found[2, 2].any()


def test_heights_lie_on_a_regular_grid(rng: np.random.Generator) -> None:
    stored = rng.integers(0, 65536, (ROWS, COLUMNS)).astype(np.uint16)
    stored[3, 3] = 0
    axes = Axes((0.2, 0.3, 0.001), (-1.0, -2.0, 40.0), (None, None, 0.0))
    found = coordinates.points_of_heights(stored, "Coord3D_C16", ROWS, COLUMNS, axes)
    for row in range(ROWS):
        for column in range(COLUMNS):
            exact = (column * 0.2 - 1, row * 0.3 - 2, float(stored[row, column]) * 0.001 + 40)
            assert np.allclose(found[row, column], 0 if stored[row, column] == 0 else exact, rtol=1e-6)


@pytest.mark.parametrize(("name", "dtype"), [("Coord3D_C16", "<u2"), ("32FC1", "<f4"), ("z16", "<u2")])
def test_depth_is_stored_as_it_came(rng: np.random.Generator, name: str, dtype: str) -> None:
    stored = rng.integers(0, 60_000, (ROWS, COLUMNS)).astype(dtype)
    found = coordinates.depth(stored, name, ROWS, COLUMNS)
    assert np.array_equal(found, stored)
    assert found.dtype == np.dtype(dtype)
    assert not np.shares_memory(found, stored)
    swapped = stored.astype(dtype.replace("<", ">"))
    assert np.array_equal(coordinates.depth(swapped, name, ROWS, COLUMNS, big_endian=True), stored)
    padded = np.hstack([stored, stored[:, :2]]).tobytes()
    assert np.array_equal(coordinates.depth(padded, name, ROWS, COLUMNS, row_nbytes=stored.itemsize * 10), stored)


@pytest.mark.parametrize("name", ["Coord3D_AC32f", "Coord3D_ABC12p", "Coord3D_B32f", "Mono8", "Coord3D_ABC64f"])
def test_an_unknown_3d_format_is_named(name: str) -> None:
    for reader in (coordinates.points, coordinates.points_of_heights, coordinates.depth):
        with pytest.raises(CameraError, match=name):
            reader(bytes(4096), name, ROWS, COLUMNS)


def test_3d_of_another_size_is_refused() -> None:
    for reader, name in ((coordinates.points, "Coord3D_ABC32f"), (coordinates.points_of_heights, "Coord3D_C16"),
                         (coordinates.depth, "z16")):  # fmt: skip
        with pytest.raises(CameraError, match="5 bytes"):
            reader(bytes(5), name, ROWS, COLUMNS)
        with pytest.raises(CameraError, match="100000 x 1"):
            reader(bytes(5), name, 100_000, 1)


@pytest.mark.parametrize("name", ["Millimeter", "mm", "Meter", "um"])
def test_units(name: str) -> None:
    assert coordinates.unit_of(name) in ("mm", "m", "um")
    with pytest.raises(CameraError, match="Pixel"):
        coordinates.unit_of("Pixel")


@pytest.mark.parametrize(
    "model", ["inverse_brown_conrady", "distortion.inverse_brown_conrady", "brown_conrady", "None"]
)
def test_zero_coefficients_are_a_pinhole(model: str) -> None:
    lens = coordinates.intrinsics(600, 600, 4, 3, model, (0, 0, 0, 0, 0))
    assert lens == Intrinsics(600, 600, 4, 3)
    frame = Frame("c", "", 1, np.zeros((ROWS, COLUMNS, 3), np.uint8), depth=np.ones((ROWS, COLUMNS), np.uint16),
                  intrinsics=lens)  # fmt: skip
    assert points_mm(frame, "mm")[1].all()
    bent = coordinates.intrinsics(600, 600, 4, 3, model, (0.1, 0, 0, 0, 0))
    assert bent.dist == (0.1, 0, 0, 0, 0)
    assert replace(bent, dist=lens.dist, model="pinhole") == lens


def test_a_fisheye_without_coefficients_is_not_a_pinhole() -> None:
    assert coordinates.intrinsics(600, 600, 4, 3, "kannala_brandt4", (0, 0, 0, 0)).model == "kannala_brandt4"
