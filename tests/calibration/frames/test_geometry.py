"""Geometry fitted from normal frames of stations whose truth is known."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from asperity.calibration.frames.geometry import SAMPLE_FRAMES, SAMPLE_PX, fit_geometry
from asperity.runtime.errors import CalibrationError, FrameRefused
from asperity.runtime.frame import Frame
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.border_plane import fit_border_plane
from asperity.runtime.vision.preprocess import find_part, prepare
from asperity.runtime.vision.ransac_dbscan import fit_plane
from tests.synthetic_station import PART_HEIGHT_MM, Shot, shoot, small_network, station_plane


def shots(count: int = 8, **options: object) -> list[Shot]:
    """Normal exposures whose part lies a little elsewhere in each."""
    places = np.random.default_rng(99).uniform(-12, 12, (count, 2))
    return [shoot(seed, centre_mm=(x, y), **options) for seed, (x, y) in enumerate(places)]  # type: ignore[arg-type]


def frames(count: int = 8, **options: object) -> list[Frame]:
    return [shot.frame for shot in shots(count, **options)]


def test_the_plane_and_its_noise_are_found() -> None:
    """Normal within a tenth of a degree, height within 0.1 mm, noise within a fifth, spacing of the pixels."""
    made = fit_geometry(frames(noise_mm=0.1))
    truth = station_plane()
    assert made.method == "plane" and made.plane is not None
    assert np.dot(made.plane.normal, truth.normal) > np.cos(np.radians(0.1))
    assert made.plane.offset_mm == pytest.approx(truth.offset_mm, abs=0.1)
    assert made.plane_noise_mm == pytest.approx(0.1, rel=0.2)
    assert made.mm_per_px == pytest.approx(120 / 120, rel=0.1)  # 120 mm of view on 120 rows
    assert made.plane_noise_mm * 5 < made.plane_cut_mm < PART_HEIGHT_MM / 4
    assert (made.height_px, made.width_px, made.unit) == (120, 160, "m")
    assert "%" in made.why


@pytest.mark.parametrize("noise_mm", [0.0, 0.5])
def test_parts_are_cut_from_the_table_at_any_noise(noise_mm: float) -> None:
    """The fitted geometry finds each part's own pixels, from a perfect camera to a coarse one."""
    normal = shots(noise_mm=noise_mm)
    made = fit_geometry([shot.frame for shot in normal])
    for shot in normal:
        found = find_part(shot.frame, made)
        assert (found.filled & shot.part).sum() > 0.97 * (found.filled | shot.part).sum()


def test_of_large_frames_fewer_are_held_and_the_first_always(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(list[Frame]):
        taken: list[int]

        def __getitem__(self, index: int) -> Frame:  # type: ignore[override]
            self.taken.append(int(index))
            return super().__getitem__(index)

    normal = Counted(frames(8))
    for sample_px, expected in ((10**9, list(range(8))), (3 * 120 * 160, [0, 3, 7]), (1, [0])):
        monkeypatch.setattr("asperity.calibration.frames.geometry.SAMPLE_PX", sample_px)
        normal.taken = []
        fit_geometry(normal)
        assert normal.taken == expected
    assert SAMPLE_PX >= SAMPLE_FRAMES * 2448 * 2048, "ordinary frames as ever"


def test_the_cut_follows_the_noise() -> None:
    """A coarser camera gets a higher cut."""
    fine, coarse = (fit_geometry(frames(noise_mm=noise)) for noise in (0.02, 0.8))
    assert coarse.plane_cut_mm > 3 * fine.plane_cut_mm


def test_the_window_holds_the_largest_part_of_all_frames() -> None:
    """1.1 times the larger side of its box; every frame then prepares, none is refused."""
    normal = [*frames(6, radius_mm=20.0), shoot(50, radius_mm=30.0).frame]
    made = fit_geometry(normal, method="plane")
    small = fit_geometry(normal[:-1], method="plane")
    assert made.side_px == pytest.approx(1.1 * 60, abs=3) and small.side_px == pytest.approx(1.1 * 40, abs=3)
    assert all(prepare(frame, made, small_network()).cloud.any() for frame in normal)


def test_where_little_of_the_view_would_be_judged_calibration_asks() -> None:
    """A sheet with a logo gives such frames too, and a defect beside the logo would get ok."""
    small, large = frames(radius_mm=14.0), frames(radius_mm=30.0)
    with pytest.raises(CalibrationError, match="--geometry plane if this region is the whole part, --geometry none"):
        fit_geometry(small)
    assert fit_geometry(small, method="plane").method == "plane"
    assert fit_geometry(large).method == "plane"


@pytest.mark.parametrize(("unit", "warned"), [("m", False), ("mm", True), ("um", True)])
def test_a_unit_that_puts_the_camera_into_the_part_is_doubted(
    unit: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    normal = [replace(frame, unit=None) for frame in frames(4)]
    assert fit_geometry(normal, unit=unit, method="plane").unit == unit  # type: ignore[arg-type]
    assert ("only m would make that" in caplog.text) == warned


def test_a_frame_that_shows_another_surface_widens_no_limit_for_the_others() -> None:
    """It is refused anyway; as a part it would be as large as the view, and the border might then show anything."""
    normal = frames(24)
    usual = fit_geometry(normal)
    odd = [*normal[:-1], shoot(50, moved_mm=-60.0, centre_mm=(500.0, 0.0)).frame]
    made = fit_geometry(odd)
    assert made.side_px <= usual.side_px and made.moved_share == pytest.approx(usual.moved_share, abs=0.01)
    with pytest.raises(FrameRefused) as refusal:
        prepare(odd[-1], made, small_network())
    assert refusal.value.reason is Reason.CAMERA_MOVED


def test_a_large_tilted_view_in_metres_without_unit() -> None:
    """Shape of MVTec 3D-AD: 800 x 800, metres that nobody names, a part that reaches into the border."""
    normal = frames(3, height_px=800, width_px=800, radius_mm=45.0, field_mm=110.0, noise_mm=0.08)
    touching = shoot(7, height_px=800, width_px=800, radius_mm=45.0, field_mm=110.0, centre_mm=(14.0, 0.0)).frame
    made = fit_geometry([*normal, touching])
    assert (made.method, made.unit) == ("plane", "m")
    assert made.cluster_gap_px == 16 and made.point_spacing_mm == pytest.approx(110 / 800, rel=0.2)
    prepared = prepare(touching, made, small_network())
    assert prepared.silhouette.height_mm == pytest.approx(PART_HEIGHT_MM, abs=0.3)
    assert prepared.silhouette.length_mm == pytest.approx(90, rel=0.05)


def test_the_unit_is_told_by_the_depth_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """From the header, else as asked, else by the median depth."""
    with caplog.at_level(logging.INFO):
        assert fit_geometry(frames(3, unit="mm")).unit == "mm"
    assert "unit mm, derived from the median depth" in caplog.text
    assert fit_geometry(frames(3, unit="mm", named_unit="mm"), unit="m").unit == "mm"
    scaled = [replace(frame, xyz=frame.xyz * 10) for frame in frames(3)]  # type: ignore[operator]
    assert fit_geometry(scaled, unit="m").mm_per_px == pytest.approx(10, rel=0.1)


def test_a_unit_that_cannot_be_told_is_refused() -> None:
    """12 could be neither metres, millimetres nor micrometres."""
    strange = [replace(frame, xyz=frame.xyz * 25) for frame in frames(3)]  # type: ignore[operator]
    with pytest.raises(FrameRefused, match="--unit") as info:
        fit_geometry(strange)
    assert info.value.reason is Reason.REFUSED_UNIT


def test_a_background_that_is_empty_already_is_left_alone_and_said() -> None:
    """Preprocessed MVTec 3D-AD: nothing but the part has points."""
    normal = shots(background=False, missing=0.0)
    made = fit_geometry([shot.frame for shot in normal])
    assert made.method == "none" and made.plane is None
    assert "empty already" in made.why
    np.testing.assert_array_equal(find_part(normal[0].frame, made).part, normal[0].part)


def test_a_part_that_fills_the_view_is_not_taken_for_background() -> None:
    """A flat top that reaches every border, and a domed one."""
    flat = fit_geometry(frames(4, radius_mm=500.0))
    assert flat.method == "none" and "own surface" in flat.why
    domed = []
    for frame in frames(4, radius_mm=500.0):
        rows, columns = np.mgrid[-60:60, -80:80] / 1000.0
        xyz = frame.xyz.copy()  # type: ignore[union-attr]
        xyz[..., 2] += 6 * (rows**2 + columns**2)
        domed.append(replace(frame, xyz=xyz))
    made = fit_geometry(domed)
    assert made.method == "none", made.why
    assert find_part(domed[0], made).part.mean() > 0.95


def test_a_border_that_is_mostly_empty_still_gives_the_plane() -> None:
    """Only every twentieth border point was measured."""
    sparse = []
    for frame in frames():
        lost = np.random.default_rng(frame.seq).random(frame.shape_px) < 0.95
        lost[10:-10, 10:-10] = False
        sparse.append(replace(frame, xyz=np.where(lost[..., None], 0, frame.xyz).astype(np.float32)))
    made = fit_geometry(sparse)
    assert made.method == "plane" and made.plane is not None
    assert made.plane.offset_mm == pytest.approx(station_plane().offset_mm, abs=0.2)


def test_methods_can_be_asked_for() -> None:
    """Each with the reason that it was; a plane that is not there is an error."""
    normal = frames(4)
    assert fit_geometry(normal, method="none").why == "none was asked for"
    published = fit_geometry(normal, method="published")
    assert (published.method, published.side_px, published.plane) == ("published", 200, None)
    with pytest.raises(CalibrationError, match="empty already"):
        fit_geometry(frames(4, background=False), method="plane")


def test_normal_frames_pass_the_moved_check_and_moved_ones_do_not() -> None:
    """Also where the part covers some of the border in every normal frame."""
    normal = [shoot(seed, centre_mm=(-55.0, 0.0)).frame for seed in range(6)]
    made = fit_geometry(normal)
    assert 0.0 < made.moved_share < 1.0
    for frame in normal:
        prepare(frame, made, small_network())
    with pytest.raises(FrameRefused) as info:
        prepare(shoot(9, centre_mm=(-55.0, 0.0), moved_mm=5.0).frame, made, small_network())
    assert info.value.reason is Reason.CAMERA_MOVED


def test_one_empty_frame_is_left_out_and_many_are_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """The log and the error name them."""
    empty = shoot(77, radius_mm=0.0).frame
    with caplog.at_level(logging.WARNING):
        made = fit_geometry([*frames(12), empty])
    assert "part77" in caplog.text and made.min_points > 64
    with pytest.raises(CalibrationError, match="part77"):
        fit_geometry([*frames(3), empty])


def test_what_cannot_be_fitted_is_an_error() -> None:
    """No frame, frames of two sizes, frames without any point."""
    with pytest.raises(CalibrationError, match="no normal frame"):
        fit_geometry([])
    with pytest.raises(CalibrationError, match="one size"):
        fit_geometry([*frames(2), shoot(5, height_px=100).frame])
    nothing = [replace(frame, xyz=np.zeros_like(frame.xyz)) for frame in frames(2)]
    with pytest.raises(CalibrationError, match="valid point"):
        fit_geometry(nothing)


def test_the_robust_plane_survives_what_misleads_least_squares() -> None:
    """Four of ten border points lie on a slanted box."""
    random = np.random.default_rng(0)
    points = np.c_[random.uniform(-60, 60, (5000, 2)), 500 + random.normal(0, 0.1, 5000)]
    points[:2000, 2] -= 20 + 0.3 * points[:2000, 0]
    fit = fit_border_plane(points)
    assert fit.plane.offset_mm == pytest.approx(500, abs=0.05) and fit.noise_mm == pytest.approx(0.1, rel=0.15)
    assert fit.on_plane_share == pytest.approx(0.6, abs=0.02)
    assert abs(fit_plane(points).offset_mm - 500) > 3


def test_the_fit_is_deterministic() -> None:
    """The same frames give the same geometry, digit for digit."""
    assert fit_geometry(frames(4)) == fit_geometry(frames(4))
