"""Colour on the grid of the 3D data, against plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.cameras.pictures.registration import Relation, by_grid, by_lenses, said_in_sensor
from asperity.runtime.errors import CameraError
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.vision.units import points_mm

HERE = Relation((1, 0, 0, 0, 1, 0, 0, 0, 1), (0.0, 0.0, 0.0))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize(
    ("large", "small"),
    [((12, 16), (6, 8)), ((12, 12), (4, 4)), ((15, 20), (6, 8)), ((9, 12), (12, 16)), ((772, 1032), (300, 401))],
)
def test_each_pixel_is_the_mean_over_its_area(
    rng: np.random.Generator, large: tuple[int, int], small: tuple[int, int]
) -> None:
    rgb = rng.integers(0, 256, (*large, 3), np.uint8)
    exact = areas(large[0], small[0]) @ np.moveaxis(rgb.astype(np.float64), 2, 0) @ areas(large[1], small[1]).T
    found = by_grid(rgb, *small)
    assert np.abs(found - np.moveaxis(exact, 0, 2)).max() <= 0.501


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
def test_any_scale_keeps_the_mean(base: tuple[int, int], up: int, down: int, seed: int) -> None:
    """Property: whatever the factor, each pixel is its area's mean, so that a picture keeps its own."""
    rgb = np.random.default_rng(seed).integers(0, 256, (base[0] * up, base[1] * up, 3), np.uint8)
    found = by_grid(rgb, base[0] * down, base[1] * down)
    rows, columns = areas(rgb.shape[0], found.shape[0]), areas(rgb.shape[1], found.shape[1])
    exact = np.moveaxis(rows @ np.moveaxis(rgb.astype(np.float64), 2, 0) @ columns.T, 0, 2)
    assert np.abs(found - exact).max() <= 0.501
    assert np.abs(exact.mean(axis=(0, 1)) - rgb.mean(axis=(0, 1))).max() < 1e-9


def areas(length: int, size: int) -> np.ndarray:
    """Row i: how much of each of ``length`` pixels the i-th of ``size`` covers."""
    shares = np.zeros((size, length))
    for piece in range(size):
        low, high = piece * length / size, (piece + 1) * length / size
        for at in range(length):
            shares[piece, at] = max(0.0, min(high, at + 1) - max(low, at)) / (high - low)
    return shares


def test_a_fine_pattern_does_not_alias() -> None:
    rgb = np.zeros((300, 300, 3), np.uint8)
    rgb[:, ::2] = 200
    assert set(np.unique(by_grid(rgb, 150, 150))) == {100}
    assert np.ptp(by_grid(rgb, 90, 90)) < 70  # every third or fourth column alone would be 0 or 200


def test_the_same_size_is_left_alone(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (6, 8, 3), np.uint8)
    assert by_grid(rgb, 6, 8) is rgb


def test_another_view_is_refused() -> None:
    with pytest.raises(CameraError, match="same view"):
        by_grid(np.zeros((480, 640, 3), np.uint8), 300, 480)


def test_what_was_done_is_said_and_fits() -> None:
    assert said_in_sensor("PhoXi 123", (1544, 2064), (772, 1032)) == "PhoXi 123, colour 2064x1544 -> 1032x772"
    assert len(said_in_sensor("x" * 200, (1544, 2064), (772, 1032), "by lenses")) == 64


def wall(rows: int, columns: int, lens: Intrinsics, z_mm: float = 500.0):
    frame = Frame("c", "", 1, np.zeros((rows, columns, 3), np.uint8),
                  depth=np.full((rows, columns), z_mm, np.float32), intrinsics=lens)  # fmt: skip
    return points_mm(frame, "mm")


def test_one_lens_of_two_sizes_is_the_grid(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (48, 64, 3), np.uint8)
    points, valid = wall(24, 32, Intrinsics(30, 30, 15.5, 11.5))
    found = by_lenses(rgb, Intrinsics(60, 60, 31.5, 23.5), points, valid, HERE)
    assert np.array_equal(found, by_grid(rgb, 24, 32))


def test_each_point_has_the_colour_where_the_other_camera_sees_it() -> None:
    """The colour picture encodes its own coordinates: a loop in float64 says which each point must find."""
    lens, colour_lens = Intrinsics(50, 50, 19.5, 14.5), Intrinsics(55, 55, 30.0, 22.0, "brown_conrady",
                                                                   (0.05, -0.01, 0.002, -0.003))  # fmt: skip
    rgb = np.zeros((46, 62, 3), np.uint8)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = np.arange(62) * 4, np.arange(46)[:, None] * 4, 200
    points, valid = wall(30, 40, lens)
    valid = valid.copy()
    valid[3, 4] = False
    angle = 0.02
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    relation = Relation(tuple(turn.ravel()), (-25.0, 3.0, 1.0))
    found = by_lenses(rgb, colour_lens, points, valid, relation)
    k1, k2, p1, p2 = colour_lens.dist
    seen = 0
    for row in range(30):
        for column in range(40):
            x, y, z = turn @ points[row, column].astype(np.float64) + relation.translation_mm
            x, y = x / z, y / z
            r2 = x * x + y * y
            radial = 1 + k1 * r2 + k2 * r2 * r2
            u = 55 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + 30
            v = 55 * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + 22
            if (row, column) == (3, 4) or not (-0.5 <= u <= 61.5 and -0.5 <= v <= 45.5):
                assert not found[row, column].any()
            else:
                seen += 1
                assert found[row, column, 2] == 200
                assert np.abs(found[row, column, :2] - 4 * np.clip([u, v], 0, [61, 45])).max() <= 0.51
    assert seen > 900


def test_what_the_colour_camera_cannot_see_is_black() -> None:
    """A bar 100 mm in front of a wall hides a strip next to it from a camera that stands to its side."""
    lens = Intrinsics(100, 100, 49.5, 29.5)
    points, valid = wall(60, 100, lens, 500.0)
    bar, _ = wall(60, 100, lens, 400.0)
    points = points.copy()
    points[:, 40:50] = bar[:, 40:50]
    # In the colour camera's picture the bar is red and the wall green.
    rgb = np.zeros((60, 100, 3), np.uint8)
    baseline_mm = -40.0
    shift_bar, shift_wall = 100 * baseline_mm / 400, 100 * baseline_mm / 500
    rgb[..., 1] = 255
    rgb[:, round(40 + shift_bar) : round(50 + shift_bar)] = (255, 0, 0)
    found = by_lenses(rgb, lens, points, valid, Relation(HERE.rotation, (baseline_mm, 0.0, 0.0)))
    assert (found[5:-5, 42:48, 0] == 255).all()
    wall_right = found[5:-5, 52:90]
    assert (wall_right[..., 0] < 130).all()
    assert (wall_right[:, 2:, 1] == 255).all()
    hidden = np.flatnonzero((found[30, :40] == 0).all(axis=1))
    assert {38, 39} <= set(hidden)  # the bar's parallax exceeds the wall's by 2 pixels
    assert shift_bar - shift_wall == -2
    assert (found[:, :40, 0][:, 10:] < 130).all()  # nothing of the wall has the bar's colour


def test_a_lens_that_is_not_known_is_refused() -> None:
    points, valid = wall(4, 4, Intrinsics(4, 4, 2, 2))
    lens = Intrinsics(4, 4, 2, 2, "kannala_brandt4", (0.1, 0, 0, 0))
    with pytest.raises(CameraError, match="kannala_brandt4"):
        by_lenses(np.zeros((4, 4, 3), np.uint8), lens, points, valid, HERE)


def test_without_points_everything_is_black() -> None:
    points, valid = wall(4, 4, Intrinsics(4, 4, 2, 2))
    found = by_lenses(np.full((4, 4, 3), 9, np.uint8), Intrinsics(4, 4, 2, 2), points, np.zeros_like(valid), HERE)
    assert not found.any()
