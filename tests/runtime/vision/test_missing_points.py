"""Points that a camera writes as a number where it measured nothing: declared, recognised, and never in good frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.cameras.virtual.products import PRODUCTS
from asperity.runtime.errors import FrameRefused, UsageError
from asperity.runtime.frame import FloatArray, Frame, MissingPoint, Prepared, Unit
from asperity.runtime.manifest import Geometry
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.missing_points import (
    SAMPLE_POINTS,
    as_declared,
    find_suspects,
    option_of,
    parse_invalid,
    scattered_points,
    without_missing,
)
from asperity.runtime.vision.preprocess import prepare
from tests.synthetic_station import plane_geometry, shoot, small_network

NETWORK = small_network()
FLOAT_MAX = float(np.finfo(np.float32).max)
Spoil = Callable[[FloatArray], object]


def on_z(value: float) -> Spoil:
    return lambda points: np.copyto(points[..., 2], value)


def on_x(value: float) -> Spoil:
    return lambda points: np.copyto(points[..., 0], value)


def on_all(value: float) -> Spoil:
    return lambda points: np.copyto(points, value)


def far_plane(value: float) -> Spoil:
    """The pixel's ray goes on to the plane; pixels without a point have no ray and get all but z wrong."""

    def spoil(points: FloatArray) -> None:
        z = np.where(points[..., 2:] == 0, value, points[..., 2:])
        points *= value / z
        points[..., 2] = value

    return spoil


SENTINELS: dict[str, tuple[Spoil, MissingPoint]] = {
    "z = 0": (on_z(0.0), (None, None, 0.0)),
    "z = -1": (on_z(-1.0), (None, None, -1.0)),
    "all -1": (on_all(-1.0), (-1.0, -1.0, -1.0)),
    "all 9999": (on_all(9999.0), (9999.0, 9999.0, 9999.0)),
    "z = -32768": (on_z(-32768.0), (None, None, -32768.0)),
    "z = -32.768": (on_z(-32.768), (None, None, -32.768)),
    "z = 65535": (on_z(65535.0), (None, None, 65535.0)),
    "all 65.535": (on_all(65.535), (65.535, 65.535, 65.535)),
    "far plane": (far_plane(10_000.0), (None, None, 10_000.0)),
    "largest range": (far_plane(1500.0), (None, None, 1500.0)),
    "x = 65535": (on_x(65535.0), (65535.0, None, None)),
}
MISSING_ANYWAY: dict[str, Spoil] = {
    "x = 1e10": on_x(1e10),
    "z = 1e10": on_z(1e10),
    "z = FLT_MAX": on_z(FLOAT_MAX),
    "x = inf": on_x(np.inf),
    "z = -inf": on_z(-np.inf),
    "z = nan": on_z(np.nan),
}


@cache
def good(name: str) -> Frame:
    """A frame in mm: a product of the virtual camera, or the synthetic station's round part."""
    if name == "disc":
        return shoot(unit="mm", named_unit="mm").frame
    frame = VirtualCamera(name, 3, (120, 160)).frame(1).frame
    assert frame.xyz is not None
    return replace(frame, xyz=frame.xyz * np.float32(1000.0), unit="mm")


def geometry_of(name: str, **changes: object) -> Geometry:
    if name == "disc":
        return plane_geometry(shoot(), **changes)
    frame = good(name)
    return msgspec.structs.replace(
        plane_geometry(shoot(), **changes), method="none", height_px=frame.shape_px[0], width_px=frame.shape_px[1]
    )


def places(frame: Frame, share: float, how: str, seed: int) -> np.ndarray:
    """Where points are missing: scattered, in one blob, or in whole rows of the picture."""
    height, width = frame.shape_px
    count = max(1, round(share * height * width))
    random = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(height * width), width)
    if how == "scattered":
        order = random.permutation(height * width)
    elif how == "blob":
        row, column = random.integers(0, height), random.integers(0, width)
        order = np.argsort(np.hypot(rows - row, columns - column), kind="stable")
    else:
        order = np.argsort((rows - random.integers(0, height)) % height, kind="stable")
    where = np.zeros(height * width, dtype=bool)
    where[order[:count]] = True
    return where.reshape(height, width)


def spoiled(frame: Frame, where: np.ndarray, spoil: Spoil) -> Frame:
    assert frame.xyz is not None
    xyz = frame.xyz.copy()
    chosen = xyz[where]
    spoil(chosen)
    xyz[where] = chosen
    return replace(frame, xyz=xyz)


def rounded(frame: Frame, step_mm: float, *, all_axes: bool) -> Frame:
    """As a camera gives it that rounds depths, or all coordinates, to steps."""
    assert frame.xyz is not None
    if step_mm == 0:
        return frame
    if all_axes:
        return replace(frame, xyz=(np.round(frame.xyz / step_mm) * step_mm).astype(np.float32))
    depth = frame.xyz[..., 2:]
    rays = frame.xyz / np.where(depth == 0, 1, depth)
    return replace(frame, xyz=(rays * np.round(depth / step_mm) * step_mm).astype(np.float32))


def prepared(frame: Frame, geometry: Geometry) -> Prepared | str:
    """What becomes of a frame: its inputs, or the words with which it is refused."""
    try:
        return prepare(frame, geometry, NETWORK)
    except FrameRefused as error:
        return f"{error.reason.name}: {error}"


def same(one: Prepared | str, other: Prepared | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    arrays = all(np.array_equal(getattr(one, a), getattr(other, a)) for a in ("image", "cloud", "inspect"))
    return arrays and (one.window, one.silhouette) == (other.window, other.silhouette)


FRAMES = st.sampled_from(["disc", *PRODUCTS])
STEPS = st.sampled_from([0.0, 0.1, 1.0])
SHARES = st.floats(0.001, 0.3)
PATTERNS = st.sampled_from(["scattered", "blob", "rows"])


@given(FRAMES, st.sampled_from(sorted(SENTINELS)), SHARES, PATTERNS, STEPS, st.booleans(), st.integers(0, 99))
def test_a_declared_value_is_a_missing_point_and_an_undeclared_one_is_named(
    name: str, kind: str, share: float, how: str, step_mm: float, all_axes: bool, seed: int
) -> None:
    """Bit for bit the frame with NaN or zeros there, declared in a folder or in the recipe; else it is refused."""
    base = rounded(good(name), step_mm, all_axes=all_axes)
    assert base.xyz is not None
    where = places(base, share, how, seed)
    spoil, value = SENTINELS[kind]
    bad = spoiled(base, where, spoil)
    already = (base.xyz == 0).all(axis=2)
    geometry = geometry_of(name)
    expected = prepared(spoiled(base, where, on_all(0.0)), geometry)
    assert same(expected, prepared(spoiled(base, where, on_all(np.nan)), geometry))
    told = msgspec.structs.replace(geometry, invalid=(value,))
    assert same(prepared(without_missing(bad, (value,)), geometry), expected)
    assert same(prepared(bad, told), expected)
    assert same(prepared(bad, msgspec.structs.replace(told, invalid=((7.0, 7.0, 7.0), value))), expected)
    if value[:2] == (None, None):
        assert same(prepared(replace(bad, invalid=value[2]), geometry), expected)
    if int((where & ~already).sum()) >= 12:
        assert [option_of(one.value) for one in find_suspects(bad, "mm")] == [option_of(value)]
        with pytest.raises(FrameRefused, match="--invalid") as info:
            prepare(bad, geometry, NETWORK)
        assert info.value.reason is Reason.REFUSED_DATA


@given(FRAMES, st.sampled_from(sorted(MISSING_ANYWAY)), SHARES, PATTERNS, st.integers(0, 99))
def test_what_no_camera_measures_is_missing_without_a_word(
    name: str, kind: str, share: float, how: str, seed: int
) -> None:
    base, geometry = good(name), geometry_of(name)
    where = places(base, share, how, seed)
    bad = spoiled(base, where, MISSING_ANYWAY[kind])
    assert same(prepared(bad, geometry), prepared(spoiled(base, where, on_all(0.0)), geometry))
    assert find_suspects(bad, "mm") == ()


@given(FRAMES, st.sampled_from([0.0, 0.02, 0.1, 1.0, 5.0]), st.booleans(), st.booleans(), st.floats(-100, 2000))
def test_a_good_frame_is_never_suspected(
    name: str, step_mm: float, all_axes: bool, flat: bool, moved_mm: float
) -> None:
    """Also rounded to steps, exactly flat, and in coordinates of the table, where depths may be 0 and negative."""
    frame = good(name)
    assert frame.xyz is not None
    seen = frame.xyz[..., 2] != 0
    if flat:
        xyz = frame.xyz.copy()
        middle = np.median(xyz[..., 2][seen])
        xyz[..., 2] = np.where(seen, np.where(xyz[..., 2] < middle, middle - 7, middle), 0)
        frame = replace(frame, xyz=xyz)
    frame = rounded(frame, step_mm, all_axes=all_axes)
    assert frame.xyz is not None
    moved = frame.xyz + np.where(seen[..., None], np.array([0, 0, np.float32(round(moved_mm))]) - 400, 0)
    for points in (frame.xyz, moved.astype(np.float32)):
        shown = replace(frame, xyz=points)
        assert find_suspects(shown, "mm") == ()
        assert find_suspects(shown, "mm", 4000) == ()
        assert scattered_points(shown, "mm")[0] == 0


def test_large_frames_are_looked_at_in_part() -> None:
    """What a station may spend on it is bounded; a tenth of a percent is found all the same."""
    shot = shoot(height_px=480, width_px=640, unit="mm", named_unit="mm")
    where = places(shot.frame, 0.001, "scattered", 1)
    found = find_suspects(spoiled(shot.frame, where, on_z(-32768.0)), "mm", SAMPLE_POINTS)
    assert [one.value for one in found] == [(None, None, -32768.0)]
    assert found[0].points <= SAMPLE_POINTS


def test_a_picture_of_depths_is_looked_at_too() -> None:
    shot = shoot(unit="mm")
    assert shot.frame.xyz is not None
    depth = np.round(shot.frame.xyz[..., 2]).astype(np.uint16)
    frame = replace(shot.frame, xyz=None, depth=depth, intrinsics=shot.intrinsics, unit="mm")
    assert find_suspects(frame, "mm") == ()
    where = places(frame, 0.01, "scattered", 1)
    bad = replace(frame, depth=np.where(where, np.uint16(65535), depth))
    assert [one.option for one in find_suspects(bad, "mm")] == ["65535"]
    geometry = geometry_of("disc", invalid=((None, None, 65535.0), (None, None, -1.0)))
    gone = replace(frame, depth=np.where(where, np.uint16(0), depth))
    assert same(prepared(bad, geometry), prepared(gone, geometry))
    assert same(prepared(replace(bad, invalid=65535.0), geometry), prepared(gone, geometry))


def test_one_point_at_pixels_apart_is_named_also_where_it_lies_among_the_others() -> None:
    """In coordinates of the table (-1, -1, -1) lies in the middle of the view."""
    base = good("disc")
    assert base.xyz is not None
    seen = base.xyz[..., 2:] != 0
    table = replace(base, xyz=np.where(seen, base.xyz - np.float32([0, 0, 500]), np.float32(0)))
    bad = spoiled(table, places(table, 0.01, "scattered", 1), on_all(-1.0))
    assert [one.option for one in find_suspects(bad, "mm")] == ["-1,-1,-1"]


def heights(value: float, to_unit: float = 1.0, share: float = 0.02) -> Frame:
    """A profiler's height map: a part of 8 mm on a table at 0, in a view of 200 mm; ``value``: nothing seen."""
    base = good("disc")
    rows, columns = np.mgrid[: base.shape_px[0], : base.shape_px[1]].astype(float)
    z = 8.0 * (np.hypot(rows - 60, columns - 80) < 30) + np.random.default_rng(1).normal(0, 0.03, rows.shape)
    points = np.stack([columns, rows, z], axis=2) * to_unit
    points[places(base, share, "blob", 4), 2] = value
    return replace(base, xyz=points.astype(np.float32))


@pytest.mark.parametrize(
    ("value", "unit", "to_unit"),
    [(-32768.0, "um", 1e3), (32767.0, "um", 1e3), (65535.0, "um", 1e3), (-32.768, "mm", 1.0), (-0.032768, "m", 1e-3)],
)
@pytest.mark.parametrize("share", [0.001, 0.02, 0.7])
def test_the_limit_of_a_type_is_named_though_it_lies_near_the_part(
    value: float, unit: Unit, to_unit: float, share: float
) -> None:
    frame = replace(heights(value, to_unit, share), unit=unit)
    assert [one.option for one in find_suspects(frame, unit)] == [option_of((None, None, value))]
    assert find_suspects(without_missing(frame, ((None, None, value),)), unit) == ()


@pytest.mark.parametrize("value", [-32700.0, -30000.0, 8000.0, 0.0, -1.0])
def test_a_height_that_is_no_limit_is_not(value: float) -> None:
    assert find_suspects(replace(heights(value, 1e3), unit="um"), "um") == ()


def test_a_limit_among_measured_heights_is_not() -> None:
    """A ramp that a sensor cuts at its range: what lies at the limit may be measured."""
    frame = heights(0.0, 1e3)
    assert frame.xyz is not None
    ramp = frame.xyz.copy()
    ramp[..., 2] = np.minimum(ramp[..., 2] + 0.3 * ramp[..., 0], 32767)
    assert (ramp[..., 2] == 32767).any()
    assert find_suspects(replace(frame, xyz=ramp, unit="um"), "um") == ()


@pytest.mark.parametrize("share", [0.6, 0.9, 1.0])
@pytest.mark.parametrize("point", [(-1.0, -1.0, -1.0), (0.0, 0.0, -1.0), (0.0, 0.0, 9999.0)])
def test_a_frame_of_little_but_missing_points_names_them(share: float, point: tuple[float, float, float]) -> None:
    """No pair of points tells then how wide the view is."""
    base = good("disc")
    bad = spoiled(base, places(base, share, "rows", 2), lambda points: np.copyto(points, np.float32(point)))
    assert point in {one.value for one in find_suspects(bad, "mm")}
    assert find_suspects(bad, "mm", SAMPLE_POINTS)


@pytest.mark.parametrize("values", [(-1.0, 0.0), (65533.0, 65534.0, 65535.0), (-32768.0, 0.0, 10_000.0)])
def test_a_camera_may_have_several_values(values: tuple[float, ...]) -> None:
    """One for each cause: no signal, saturated, filtered."""
    frame, told = good("disc"), tuple((None, None, value) for value in values)
    for index, value in enumerate(values):
        frame = spoiled(frame, places(frame, 0.02, "scattered", index), on_z(value))
    found = find_suspects(frame, "mm")
    assert {one.value for one in found} == set(told)
    assert find_suspects(without_missing(frame, told), "mm") == ()
    assert len(find_suspects(without_missing(frame, told[1:]), "mm")) == 1


def test_a_sentinel_may_be_more_frequent_than_all_measured_points() -> None:
    bad = spoiled(good("disc"), places(good("disc"), 0.8, "rows", 1), on_z(-1.0))
    assert [one.option for one in find_suspects(bad, "mm")] == ["-1"]


def test_scattered_points_are_counted() -> None:
    base = good("disc")
    random = np.random.default_rng(1)

    def anywhere(points: FloatArray) -> None:
        points[:, 2] = random.uniform(-30_000, 30_000, len(points))

    for share in (0.003, 0.05, 0.3):
        bad = spoiled(base, places(base, share, "scattered", 1), anywhere)
        count, points = scattered_points(bad, "mm")
        assert count == pytest.approx(share * points, rel=0.1)


def test_a_frame_with_undeclared_missing_points_is_refused() -> None:
    """A hole of the part that the camera reports as its far plane looks like background otherwise."""
    base = good("disc")
    bad = spoiled(base, places(base, 0.01, "blob", 5), far_plane(10_000.0))
    refusal = prepared(bad, geometry_of("disc"))
    assert refusal == (
        "REFUSED_DATA: 1.01% of the points have z = 10000, far from all others, as a missing point has; send it as the "
        "stream's invalid, or calibrate with --invalid 10000 (--invalid none if it is measured)"
    )


def test_calibration_may_say_that_every_point_is_measured() -> None:
    bad = spoiled(good("disc"), places(good("disc"), 0.01, "scattered", 1), on_z(1500.0))
    assert as_declared(bad, geometry_of("disc", invalid=())) is bad
    with pytest.raises(FrameRefused, match="z = 1500"):
        as_declared(bad, geometry_of("disc"))


def test_a_frame_that_names_its_missing_points_is_not_read_by_the_recipes() -> None:
    """Stored numbers of another form mean something else."""
    frame = replace(good("disc"), invalid=0.0)
    assert as_declared(frame, geometry_of("disc", invalid=((None, None, 490.0),))) is frame


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (None, None),
        ([], None),
        (["-1"], ((None, None, -1.0),)),
        (["0", "-32.768", "0"], ((None, None, 0.0), (None, None, -32.768))),
        (["-1,-1,-1", "65535,*,*"], ((-1.0, -1.0, -1.0), (65535.0, None, None))),
        ([" 1e10 "], ((None, None, 1e10),)),
        (["none"], ()),
    ],
)
def test_values_are_read_as_given(texts: list[str] | None, values: tuple[MissingPoint, ...] | None) -> None:
    assert parse_invalid(texts, none_allowed=True) == values


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["minus one"], "'minus one' is not a number"),
        (["1,2"], "has 2 numbers"),
        (["1;2;3"], "'1;2;3' is not a number"),
        (["*,*,*"], "every point missing"),
        (["*"], "'\\*' is not a number"),
        ([""], "'' is not a number"),
        (["nan"], "NaN and infinity always mean missing"),
        (["inf"], "NaN and infinity always mean missing"),
        (["1e39"], "float32"),
        (["none", "-1"], "give it alone"),
        (["0"] * 17, "17 times"),
    ],
)
def test_what_cannot_be_a_value_is_refused_by_name(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_invalid(texts, none_allowed=True)
    with pytest.raises(UsageError, match="calibration"):
        parse_invalid(["none"])
