"""Frames of a station whose truth is known, and frames that must be refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from asperity.runtime.errors import EngineError, FrameRefused
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.digest import frame_digest
from asperity.runtime.vision.preprocess import Masks, cell_means, find_part, prepare
from asperity.runtime.vision.regions import closed, largest_part, measure_silhouette, outline
from asperity.runtime.vision.units import infer_unit, median_depth, pixel_rays, points_mm
from tests.synthetic_station import MM, PART_HEIGHT_MM, heights_of, plane_geometry, shoot, small_network, station_plane

NETWORK = small_network()


def refused(reason: Reason, frame: Frame, **changes: object) -> str:
    """The text of the refusal; fails unless the frame is refused for this reason."""
    geometry = plane_geometry(shoot(), **changes)
    with pytest.raises(FrameRefused) as info:
        prepare(frame, geometry, NETWORK)
    assert info.value.reason is reason
    return str(info.value)


def as_depth(frame: Frame, unit_mm: float) -> np.ndarray:
    assert frame.xyz is not None
    return frame.xyz[:, :, 2] * 1000.0 / unit_mm


def test_the_part_is_found_on_the_tilted_table() -> None:
    """Within its noise: all its measured pixels, nothing else."""
    shot = shoot(centre_mm=(12.0, -9.0))
    found = find_part(shot.frame, plane_geometry(shot))
    measured = shot.part & (shot.frame.xyz[:, :, 2] != 0)  # type: ignore[index]
    np.testing.assert_array_equal(found.part, measured)
    assert (found.filled & ~shot.part).sum() < 0.01 * shot.part.sum()
    assert (shot.part & ~found.filled).sum() < 0.01 * shot.part.sum()


def test_prepared_arrays_have_the_networks_shapes_and_the_windows_content() -> None:
    """Window centred on the part, background black, cloud in mm on the part's plane."""
    shot = shoot(centre_mm=(10.0, 5.0))
    prepared = prepare(shot.frame, plane_geometry(shot), NETWORK)
    assert prepared.image.shape == (56, 56, 3) and prepared.image.dtype == np.uint8
    assert prepared.cloud.shape == (28, 28, 3) and prepared.cloud.dtype == np.float32
    assert prepared.inspect.shape == (7, 7) and prepared.inspect.all()
    rows, columns = np.nonzero(shot.part)
    middle = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
    assert abs(prepared.window.x_px + 48 - middle[0]) <= 1.5
    assert abs(prepared.window.y_px + 48 - middle[1]) <= 1.5
    valid = prepared.cloud.any(axis=2)
    np.testing.assert_allclose(heights_of(prepared.cloud[valid], shot.plane), PART_HEIGHT_MM, atol=0.2)
    assert prepared.image[28, 28].tolist() == pytest.approx([180, 120, 60], abs=8)
    assert not prepared.image[:3, :3].any()


@pytest.mark.parametrize("unit", ["m", "mm", "um"])
def test_the_headers_unit_goes_before_the_geometrys(unit: str) -> None:
    """The same part in three units gives the same cloud."""
    shot = shoot(unit=unit, named_unit=unit)
    expected = prepare(shoot(unit="m").frame, plane_geometry(shot), NETWORK)
    np.testing.assert_allclose(prepare(shot.frame, plane_geometry(shot), NETWORK).cloud, expected.cloud, rtol=1e-4)


def test_scale_offset_and_invalid_are_applied() -> None:
    """Stored values become lengths by value * scale + offset; invalid and 0 are missing, whatever the offset."""
    frame = shoot(missing=0.0).frame
    assert frame.xyz is not None
    stored = ((frame.xyz - 0.1) / 0.01).astype(np.float32)
    stored[0, 0], stored[0, 1] = 0.0, (5.0, 5.0, -77.0)
    scaled = replace(frame, xyz=stored, scale=0.01, offset=0.1, invalid=-77.0)
    points, valid = points_mm(scaled, "m")
    assert valid.sum() == valid.size - 2 and not valid[0, 0] and not valid[0, 1]
    np.testing.assert_allclose(points[valid], frame.xyz[valid] * 1000.0, atol=1e-2)


def test_depth_with_intrinsics_equals_xyz() -> None:
    """Float depth and 16-bit depth with a scale, back-projected."""
    shot = shoot()
    expected, valid = points_mm(shot.frame, "m")
    bare = replace(shot.frame, xyz=None, intrinsics=shot.intrinsics)
    floats, found = points_mm(replace(bare, depth=as_depth(shot.frame, 1.0).astype(np.float32), unit="mm"), "m")
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_allclose(floats[valid], expected[valid], atol=1e-3)
    counts = np.round(as_depth(shot.frame, 0.02)).astype(np.uint16)
    coded, found = points_mm(replace(bare, depth=counts, unit="mm", scale=0.02, invalid=65535), "m")
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_allclose(coded[valid], expected[valid], atol=0.02)


def test_distortion_is_undone() -> None:
    """Rays of distorted pixels, projected forward again by the Brown-Conrady equations, land on the pixels."""
    k1, k2, p1, p2, k3 = dist = (-0.12, 0.05, 0.001, -0.0007, 0.01)
    intrinsics = Intrinsics(300.0, 310.0, 79.0, 61.0, "brown_conrady", dist)
    rays = pixel_rays(intrinsics, 120, 160).astype(np.float64)
    x, y = rays[..., 0], rays[..., 1]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    columns = 300 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + 79
    rows = 310 * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + 61
    np.testing.assert_allclose(columns, np.broadcast_to(np.arange(160), (120, 160)), atol=2e-3)
    np.testing.assert_allclose(rows, np.broadcast_to(np.arange(120)[:, None], (120, 160)), atol=2e-3)
    straight = pixel_rays(replace(intrinsics, dist=()), 120, 160)
    assert np.abs(straight - rays).max() > 1e-3


@pytest.mark.parametrize(
    "intrinsics",
    [
        Intrinsics(300, 300, 80, 60, "kannala_brandt", (0.1, 0.0, 0.0, 0.0)),
        Intrinsics(300, 300, 80, 60, "pinhole", (0.1, 0.0, 0.0, 0.0)),
        Intrinsics(300, 300, 80, 60, "brown_conrady", (0.1,) * 8),
        Intrinsics(300, 300, 80, 60, "fisheye"),
        Intrinsics(300, 300, 80, 60, "brown_conrady", (-5.0, 0.0, 0.0, 0.0)),  # it has no inverse at the border
        Intrinsics(300, 300, 80, 60, "opencv", (1e11, 0.0, 0.0, 0.0)),
        Intrinsics(0, 300, 80, 60),
        Intrinsics(float("nan"), 300, 80, 60),
    ],
)
def test_intrinsics_that_cannot_be_used_are_refused(intrinsics: Intrinsics) -> None:
    """Unknown models, too many coefficients, impossible focal lengths."""
    frame = replace(shoot().frame, xyz=None, depth=np.ones((120, 160), np.float32), intrinsics=intrinsics)
    refused(Reason.REFUSED_DATA, frame)


def test_nan_inf_zero_and_absurd_values_are_missing_points() -> None:
    """They neither join the part nor change the rest."""
    shot = shoot(missing=0.0)
    geometry = plane_geometry(shot)
    rows, columns = np.nonzero(ndimage.binary_erosion(shot.part, iterations=4))
    picked = np.linspace(0, len(rows) - 1, 40).astype(int)
    xyz = shot.frame.xyz.copy()  # type: ignore[union-attr]
    values = np.array([[np.nan] * 3, [np.inf, 0, 1], [0, 0, 0], [1e30, 1e30, 1e30], [0.1, np.nan, 0.5]])
    xyz[rows[picked], columns[picked]] = values[np.arange(40) % 5]
    with np.errstate(all="raise"):
        found = find_part(replace(shot.frame, xyz=xyz), geometry)
        prepared = prepare(replace(shot.frame, xyz=xyz), geometry, NETWORK)
    assert not found.part[rows[picked], columns[picked]].any()
    assert found.filled[rows[picked], columns[picked]].all()
    assert found.part.sum() == shot.part.sum() - 40
    assert np.isfinite(prepared.cloud).all()
    assert prepared.silhouette.missing_share == pytest.approx(40 / shot.part.sum(), rel=0.05)


def test_frames_that_cannot_be_used_are_refused_by_reason() -> None:
    """Each text names the field and what to do."""
    frame = shoot().frame
    smaller = refused(Reason.REFUSED_DATA, replace(frame, rgb=frame.rgb[1:], xyz=frame.xyz[1:]))  # type: ignore[index]
    assert "is 160 x 119 pixels" in smaller and "for 160 x 120; set the camera to that size" in smaller
    assert "xyz" in refused(Reason.REFUSED_DATA, replace(frame, xyz=frame.xyz[:, 1:]))  # type: ignore[index]
    assert "xyz or depth" in refused(Reason.REFUSED_DATA, replace(frame, xyz=None))
    assert "rgb" in refused(Reason.REFUSED_DATA, replace(frame, rgb=frame.rgb.astype(np.float32)))
    assert "scale" in refused(Reason.REFUSED_DATA, replace(frame, scale=0.0))
    assert "scale" in refused(Reason.REFUSED_DATA, replace(frame, offset=float("nan")))
    assert "unit" in refused(Reason.REFUSED_DATA, replace(frame, unit="inch"))
    depth = replace(frame, xyz=None, depth=np.ones((120, 160), np.float32))
    assert "intrinsics" in refused(Reason.REFUSED_DATA, depth)


def test_too_few_points_are_refused_not_scored() -> None:
    """An empty table, all NaN, and a part below the recipe's least number of points."""
    assert "0 valid points" in refused(Reason.TOO_FEW_POINTS, shoot(radius_mm=0.0).frame)
    frame = shoot().frame
    nothing = np.full_like(frame.xyz, np.nan)
    refused(Reason.TOO_FEW_POINTS, replace(frame, xyz=nothing))
    refused(Reason.TOO_FEW_POINTS, replace(frame, xyz=nothing), method="none", plane=None)
    refused(Reason.TOO_FEW_POINTS, frame, min_points=100_000)


def test_a_moved_camera_is_refused_and_a_part_at_the_border_is_not() -> None:
    """The share of border points off the plane tells them apart; the part covers some of the border."""
    assert "restore the camera position" in refused(Reason.CAMERA_MOVED, shoot(moved_mm=3.0).frame)
    refused(Reason.CAMERA_MOVED, shoot(moved_mm=-3.0).frame)
    at_border = shoot(centre_mm=(-60.0, 0.0))
    prepared = prepare(at_border.frame, plane_geometry(at_border), NETWORK)
    assert prepared.window.x_px < 0


def test_an_empty_border_says_nothing_about_the_camera() -> None:
    """Frames whose background was removed elsewhere still pass, with the part alone."""
    shot = shoot(background=False)
    found = find_part(shot.frame, plane_geometry(shot))
    assert found.part.sum() == (shot.part & (shot.frame.xyz[:, :, 2] != 0)).sum()  # type: ignore[index]


def test_a_window_that_leaves_the_frame_is_padded_with_nothing() -> None:
    """The part touches the left edge: what lies beyond is black and without points."""
    shot = shoot(centre_mm=(-75.0, 0.0))
    prepared = prepare(shot.frame, plane_geometry(shot, side_px=112), NETWORK)
    beyond = -prepared.window.x_px
    assert beyond > 8
    assert not prepared.cloud[:, : beyond * 28 // 112].any()
    assert not prepared.image[:, : beyond * 56 // 112 - 2].any()
    assert prepared.cloud[:, beyond * 28 // 112 + 1 :].any()


def test_only_the_largest_part_is_kept_and_narrow_gaps_do_not_split_it() -> None:
    """Gaps are in pixels of the larger of row and column distance."""
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:20] = True
    mask[5:35, 23:30] = True  # four columns apart
    mask[10:20, 40:50] = True
    kept = largest_part(mask, 4)
    assert kept[:, :30].sum() == mask[:, :30].sum() and not kept[:, 40:].any()
    assert not largest_part(mask, 3)[:, 23:30].any()
    assert not largest_part(np.zeros((8, 8), bool), 3).any()


@pytest.mark.parametrize("gap_px", [0, 1, 4])
def test_the_outline_leaves_the_part_as_it_is(gap_px: int) -> None:
    """The part is the measured points alone; only the outline has the missing ones."""
    part = np.ones((9, 9), dtype=bool)
    part[4, 4] = False
    filled = outline(part, part.copy(), gap_px)
    assert not part[4, 4]
    assert filled[4, 4]


def test_outline_fills_missing_points_but_not_what_shows_background() -> None:
    """A hole through which the table is seen is no missing material of the outline."""
    part = np.zeros((60, 60), bool)
    part[10:50, 10:50] = True
    valid = np.ones_like(part)
    part[15:17, 15:17] = valid[15:17, 15:17] = False  # a dropout
    part[30:44, 30:44] = valid[30:44, 30:44] = False  # a large dark area
    part[20:26, 20:26] = False  # table seen through a hole
    filled = outline(part, valid, 4)
    assert filled[15, 15] and filled[35, 35] and not filled[22, 22]
    assert filled.sum() == 40 * 40 - 36
    np.testing.assert_array_equal(closed(part, 0), part)


def test_silhouette_measures_a_rotated_rectangle() -> None:
    """A 40 x 20 mm plate, 12 mm high, turned by 25 degrees on the tilted table."""
    plane = station_plane()
    normal = np.asarray(plane.normal)
    first = np.array([1.0, 0.0, 0.0])
    second = np.cross(normal, first)
    rows, columns = np.mgrid[:200, :200].astype(float)
    flat_x, flat_y = (columns - 100) * 0.3, (rows - 100) * 0.3
    top = (PART_HEIGHT_MM - plane.offset_mm) * normal
    points = flat_x[..., None] * first + flat_y[..., None] * second + top
    turn = np.radians(25)
    along, across = flat_x * np.cos(turn) + flat_y * np.sin(turn), flat_y * np.cos(turn) - flat_x * np.sin(turn)
    filled = (np.abs(along) <= 20) & (np.abs(across) <= 10)
    part = filled.copy()
    part[90:100, 90:100] = False
    seen = measure_silhouette(points.astype(np.float32), part, filled, plane, 0.3)
    assert seen.length_mm == pytest.approx(40, abs=0.7) and seen.width_mm == pytest.approx(20, abs=0.7)
    assert seen.height_mm == pytest.approx(PART_HEIGHT_MM, abs=1e-2)
    assert seen.area_mm2 == pytest.approx(800, rel=0.02)
    assert seen.missing_share == pytest.approx(100 / filled.sum())
    assert measure_silhouette(points.astype(np.float32), part, filled, None, 0.3).height_mm < 10


def test_nearest_cloud_takes_the_published_pixels() -> None:
    """Rows and columns floor(i * side / size), as the published resize does."""
    shot = shoot(missing=0.0)
    prepared = prepare(shot.frame, plane_geometry(shot, side_px=84), small_network(cloud_resize="nearest"))
    rows, columns = (np.arange(28) * 84 // 28 + start for start in (prepared.window.y_px, prepared.window.x_px))
    source = shot.frame.xyz[np.ix_(rows, columns)] * 1000.0  # type: ignore[index]
    on_part = shot.part[np.ix_(rows, columns)]
    np.testing.assert_allclose(prepared.cloud, source * on_part[..., None], rtol=1e-6)


def test_cell_means_average_one_level_only() -> None:
    """A cell with two depths keeps its upper median's level; a plain mean would lie between them."""
    cells = np.array([0, 0, 0, 1, 1, 3])
    points = np.array([[0, 0, 500], [1, 0, 501], [2, 0, 530], [0, 0, 400], [2, 2, 404], [7, 8, 9]], np.float32)
    means = cell_means(points, cells, 2, 6.0).reshape(-1, 3)
    np.testing.assert_allclose(means, [[0.5, 0, 500.5], [1, 1, 402], [0, 0, 0], [7, 8, 9]], atol=1e-5)
    between = points[:3].mean(axis=0)
    assert abs(between[2] - 510) < 1 and abs(means[0, 2] - between[2]) > 9


def test_cell_means_on_random_cells_equal_a_loop() -> None:
    """Against the rule written out cell by cell in float64."""
    random = np.random.default_rng(3)
    cells = random.integers(0, 16, 400)
    points = np.stack([random.normal(size=400), random.normal(size=400), random.choice([500, 503, 520], 400)], axis=1)
    points[:, 2] += random.normal(0, 0.2, 400)
    means = cell_means(points.astype(np.float32), cells, 4, 5.0).reshape(-1, 3)
    for cell in range(16):
        own = points[cells == cell].astype(np.float32).astype(np.float64)
        if np.ptp(own[:, 2]) > 5.0:
            median = np.sort(own[:, 2])[len(own) // 2]
            own = own[np.abs(own[:, 2] - median) <= 2.5]
        np.testing.assert_allclose(means[cell], own.mean(axis=0), rtol=1e-6)


def test_masks_leave_out_patches_that_are_more_than_half_covered() -> None:
    """Inspect and ignore masks are drawn on the source frame; patches are cells of the window."""
    shot = shoot()
    geometry = plane_geometry(shot, side_px=70)
    window = prepare(shot.frame, geometry, NETWORK).window
    ignore = np.zeros((120, 160), bool)
    ignore[:, : window.x_px + 26] = True  # two and a half cells of ten pixels, and a bit
    inspected = prepare(shot.frame, geometry, NETWORK, Masks(ignore=ignore)).inspect
    assert not inspected[:, :3].any() and inspected[:, 3:].all()
    both = prepare(shot.frame, geometry, NETWORK, Masks(inspect=~ignore, ignore=ignore)).inspect
    np.testing.assert_array_equal(both, inspected)
    with pytest.raises(EngineError, match="mask"):
        prepare(shot.frame, geometry, NETWORK, Masks(ignore=ignore[1:]))


def test_a_geometry_that_is_not_known_is_an_error() -> None:
    """Every branch on a name ends in an error, never in scoring."""
    shot = shoot()
    with pytest.raises(EngineError, match="method"):
        find_part(shot.frame, plane_geometry(shot, method="magic"))
    with pytest.raises(EngineError, match="plane"):
        find_part(shot.frame, plane_geometry(shot, plane=None))
    with pytest.raises(EngineError, match="cloud_resize"):
        prepare(shot.frame, plane_geometry(shot), small_network(cloud_resize="cubic"))


@pytest.mark.parametrize(("depth", "unit"), [(0.4, "m"), (3.0, "m"), (60.0, "mm"), (480.0, "mm"), (450_000.0, "um")])
def test_units_are_told_by_the_median_depth(depth: float, unit: str) -> None:
    """Only one unit puts it at a working distance of 20 mm to 5 m."""
    assert infer_unit(depth) == unit


@pytest.mark.parametrize("depth", [0.001, 10.0, 9000.0, 1e9, float("nan")])
def test_a_unit_that_cannot_be_told_is_refused_naming_the_option(depth: float) -> None:
    """Nothing is guessed."""
    with pytest.raises(FrameRefused, match="--unit") as info:
        infer_unit(depth)
    assert info.value.reason is Reason.REFUSED_UNIT


@pytest.mark.parametrize("unit", ["m", "mm", "um"])
def test_median_depth_is_in_stored_units(unit: str) -> None:
    """It needs no unit, whatever the numbers' size."""
    assert median_depth(shoot(unit=unit).frame) * MM[unit] == pytest.approx(497, abs=5)
    assert np.isnan(median_depth(replace(shoot().frame, xyz=np.zeros((120, 160, 3), np.float32))))


def test_a_repeated_frame_has_the_same_digest_and_another_exposure_has_not() -> None:
    """Sensor noise alone tells two exposures apart; one changed bit is enough."""
    frame = shoot(0).frame
    assert frame_digest(frame) == frame_digest(replace(frame, seq=9, rgb=frame.rgb.copy(), t_exposure_us=5))
    assert frame_digest(frame) != frame_digest(shoot(1).frame)
    changed = frame.xyz.copy()  # type: ignore[union-attr]
    changed[60, 80, 2] = np.nextafter(changed[60, 80, 2], np.float32(9))
    assert frame_digest(frame) != frame_digest(replace(frame, xyz=changed))


def test_image_is_the_bicubic_resize_of_the_blackened_window() -> None:
    """Same pixels as Pillow gives for the window cut by hand."""
    shot = shoot(missing=0.0)
    prepared = prepare(shot.frame, plane_geometry(shot, side_px=80), NETWORK)
    x, y = prepared.window.x_px, prepared.window.y_px
    cut = (shot.frame.rgb * shot.part[..., None])[y : y + 80, x : x + 80]
    expected = np.asarray(Image.fromarray(cut).resize((56, 56), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(prepared.image, expected)
