"""The virtual camera: what it says of its frames is exactly so."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import util

import numpy as np
import pytest

from asperity.runtime.cameras.virtual import open3d_scene as virtual_open3d
from asperity.runtime.cameras.virtual.camera import VirtualCamera, VirtualShot
from asperity.runtime.cameras.virtual.defects import DEFECTS
from asperity.runtime.cameras.virtual.products import ALL_PRODUCTS, PRODUCTS
from asperity.runtime.cameras.virtual.sensor import PERFECT, Sensor, measure_depth
from asperity.runtime.errors import CameraError, UsageError

if util.find_spec("open3d") is None:
    pytest.skip("the virtual camera needs the calibrate extra", allow_module_level=True)

GEOMETRY = ("bump", "dent", "scratch", "hole", "missing_material")
SIZE_PX = 128
ALL = [(product, defect) for product in ALL_PRODUCTS for defect in DEFECTS]


@cache
def shot(product: str, defect: str | None = None, index: int = 3, perfect: bool = False) -> VirtualShot:
    camera = VirtualCamera(product, 5, SIZE_PX, unit="mm", sensor=PERFECT if perfect else None)
    return camera.frame(index, defect)


def xyz(taken: VirtualShot) -> np.ndarray:
    assert taken.frame.xyz is not None
    return taken.frame.xyz


@pytest.mark.parametrize("product", ALL_PRODUCTS)
def test_frame_is_one_the_wire_takes(product: str) -> None:
    frame = shot(product).frame
    assert frame.rgb.shape == xyz(shot(product)).shape == (SIZE_PX, SIZE_PX, 3)
    assert frame.rgb.dtype == np.uint8 and xyz(shot(product)).dtype == np.float32
    assert frame.rgb.flags.c_contiguous and xyz(shot(product)).flags.c_contiguous
    assert frame.unit == "mm" and 0 < len(frame.part_id) <= 64 and frame.part_id.isdigit()
    assert 300 < np.median(xyz(shot(product))[..., 2]) < 410


@pytest.mark.parametrize("product", PRODUCTS)
def test_same_arguments_same_frame(product: str) -> None:
    again = VirtualCamera(product, 5, SIZE_PX, unit="mm").frame(3, "combined")
    first = shot(product, "combined")
    np.testing.assert_array_equal(again.frame.rgb, first.frame.rgb)
    np.testing.assert_array_equal(again.frame.xyz, first.frame.xyz)
    np.testing.assert_array_equal(again.mask, first.mask)
    assert again.defect == first.defect and again.frame.part_id == first.frame.part_id


def test_other_index_or_seed_is_another_part() -> None:
    first, later = shot("roll"), shot("roll", index=4)
    other = VirtualCamera("roll", 6, SIZE_PX, unit="mm").frame(3)
    assert len({s.frame.part_id for s in (first, later, other)}) == 3
    for s in (later, other):
        assert (s.part_mask != first.part_mask).mean() > 0.005


def test_one_part_can_be_seen_twice() -> None:
    camera = VirtualCamera("roll", 5, SIZE_PX, unit="mm", sensor=PERFECT)
    first, again, other = camera.frame(1, part=9), camera.frame(2, part=9), camera.frame(2, part=8)
    assert first.frame.part_id == again.frame.part_id != other.frame.part_id
    assert (first.frame.rgb != again.frame.rgb).any()
    # The same body in another pose covers about the same area; another body does not.
    assert abs(int(first.part_mask.sum()) - int(again.part_mask.sum())) < 0.01 * first.part_mask.sum()


def test_unit_is_as_stated() -> None:
    metres = VirtualCamera("nameplate", 5, SIZE_PX, unit="m").frame(3)
    assert metres.frame.unit == "m"
    np.testing.assert_allclose(np.asarray(metres.frame.xyz) * 1000, xyz(shot("nameplate")), rtol=1e-6)


def test_oblong_pictures() -> None:
    taken = VirtualCamera("bracket", 5, (96, 160)).frame(0)
    assert taken.frame.shape_px == taken.mask.shape == taken.part_mask.shape == (96, 160)
    assert taken.part_mask.any() and not taken.part_mask[:, 0].any()


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("index", range(4))
def test_border_shows_the_plane(product: str, index: int) -> None:
    # Calibration fits the background plane on the 10-pixel border of a 256-pixel frame.
    taken = shot(product, index=index, perfect=True)
    border = np.ones_like(taken.part_mask)
    border[5:-5, 5:-5] = False
    assert not (taken.part_mask & border).any()
    points = xyz(taken)[~taken.part_mask].astype(np.float64)
    normal = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][2]
    assert np.abs((points - points.mean(axis=0)) @ normal).max() < 0.01
    assert 4.0 < np.degrees(np.arccos(abs(normal[2]))) < 6.0


def test_points_lie_on_their_pixels_rays() -> None:
    camera = VirtualCamera("roll", 5, SIZE_PX, unit="mm")
    points, lens = xyz(camera.frame(0)), camera.intrinsics
    rows, columns = np.nonzero(points[..., 2])
    x, y, z = points[rows, columns].T
    np.testing.assert_allclose(x / z * lens.fx + lens.cx, columns, atol=1e-3)
    np.testing.assert_allclose(y / z * lens.fy + lens.cy, rows, atol=1e-3)


def test_depths_are_multiples_of_the_step() -> None:
    steps = xyz(shot("roll"))[..., 2] / Sensor().step_mm
    assert np.abs(steps - np.round(steps)).max() < 0.01
    smooth = xyz(shot("roll", perfect=True))[..., 2] / Sensor().step_mm
    assert np.abs(smooth - np.round(smooth)).max() > 0.3


@pytest.mark.parametrize("product", PRODUCTS)
def test_lost_points_are_zero_and_nothing_else_is(product: str) -> None:
    points = xyz(shot(product))
    lost = (points == 0).any(axis=2)
    assert (points[lost] == 0).all() and np.isfinite(points).all()
    assert 0.002 < lost.mean() < 0.2
    assert not (xyz(shot(product, perfect=True))[..., 2] == 0).any()


@pytest.mark.parametrize("product", PRODUCTS)
def test_projector_throws_a_shadow_to_the_far_side(product: str) -> None:
    shadowed = VirtualCamera(product, 5, SIZE_PX, sensor=replace(PERFECT, shadows=True)).frame(3)
    lost = xyz(shadowed)[..., 2] == 0
    columns = np.nonzero(shadowed.part_mask.any(axis=0))[0]
    # The projector stands to the right, so the shadow on the plane falls to the left of the part.
    plane = lost & ~shadowed.part_mask
    assert plane[:, : columns.mean().astype(int)].sum() > 20 > plane[:, columns.max() + 1 :].sum()


def test_noise_grows_with_incidence() -> None:
    spreads = []
    for cosine in (1.0, 0.7, 0.4):
        depth = np.full(20_000, 400.0, np.float32)
        measured = measure_depth(
            Sensor(lost=0.0), depth, np.full_like(depth, cosine), np.ones(depth.shape, bool), np.random.default_rng(1)
        )
        assert (measured > 0).all()
        spreads.append(float((measured - depth).std()))
    np.testing.assert_allclose(spreads, [0.035, 0.05, 0.0875], rtol=0.05)


def test_noise_grows_with_incidence_in_whole_frames() -> None:
    errors, cosines = [], []
    for index in range(3):
        noisy, clean = shot("roll", index=index), shot("roll", index=index, perfect=True)
        seen = (xyz(noisy)[..., 2] > 0) & noisy.part_mask
        errors.append((xyz(noisy) - xyz(clean))[seen][:, 2])
        cosines.append(noisy.incidence_cos[seen])
    error, cosine = np.concatenate(errors), np.concatenate(cosines)
    assert error[cosine < 0.6].std() > 1.5 * error[cosine > 0.95].std()


def test_grazing_points_are_lost() -> None:
    depth = np.full(10_000, 400.0, np.float32)
    lit = np.ones(depth.shape, bool)
    shares = [
        float((measure_depth(Sensor(), depth, np.full_like(depth, c), lit, np.random.default_rng(1)) == 0).mean())
        for c in (1.0, 0.25, 0.2, 0.1)
    ]
    assert shares[0] < 0.005 < shares[1] < shares[2] < shares[3] == 1.0
    assert (measure_depth(Sensor(), depth, np.ones_like(depth), ~lit, np.random.default_rng(1)) == 0).all()


@pytest.mark.parametrize(("product", "defect"), ALL)
def test_every_defect_shows_on_every_product(product: str, defect: str) -> None:
    spoiled, good = shot(product, defect), shot(product)
    assert spoiled.kind == defect and spoiled.defect is not None and spoiled.frame.part_id == good.frame.part_id
    assert spoiled.mask.sum() >= 5
    if defect == "wrong_part":
        np.testing.assert_array_equal(spoiled.mask, spoiled.part_mask)
    else:
        assert not (spoiled.mask & ~(good.part_mask | spoiled.part_mask)).any()
        assert spoiled.mask.sum() < 0.2 * good.part_mask.sum()
    assert good.kind == "good" and not good.mask.any()


@pytest.mark.parametrize("product", PRODUCTS)
def test_stain_leaves_the_points_alone(product: str) -> None:
    spoiled, good = shot(product, "stain"), shot(product)
    np.testing.assert_array_equal(spoiled.frame.xyz, good.frame.xyz)
    change = np.abs(spoiled.frame.rgb.astype(int) - good.frame.rgb).max(axis=2)
    assert np.median(change[spoiled.mask]) > 12


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("defect", ["stain", "combined"])
def test_colour_mask_is_exact(product: str, defect: str) -> None:
    # Without lens blur and noise, the colour changes inside the mask and (but for the stain's faint rim) nowhere else.
    spoiled, good = shot(product, defect, perfect=True), shot(product, perfect=True)
    change = np.abs(spoiled.frame.rgb.astype(int) - good.frame.rgb).max(axis=2)
    assert change[~spoiled.mask].max() <= 6
    assert (change[spoiled.mask] > 0).mean() > 0.95


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("defect", [*GEOMETRY, "combined"])
def test_geometry_mask_is_exact(product: str, defect: str) -> None:
    spoiled, good = shot(product, defect, perfect=True), shot(product, perfect=True)
    change = np.abs(xyz(spoiled) - xyz(good)).max(axis=2)
    assert change[~spoiled.mask].max() < 0.006
    seen = change > 0.006
    if defect == "combined":
        seen |= (spoiled.frame.rgb != good.frame.rgb).any(axis=2)
    assert seen[spoiled.mask].mean() > 0.9
    assert spoiled.defect is not None
    assert change.max() > 0.5 * spoiled.defect.strength_mm


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("defect", GEOMETRY)
def test_twin_shares_all_noise_outside_mask_and_shadow(product: str, defect: str) -> None:
    spoiled, good = shot(product, defect), shot(product)
    changed = (xyz(spoiled) != xyz(good)).any(axis=2) & ~spoiled.mask
    # Only what a defect shades or uncovers may change: points lost on one of the two.
    lost = (xyz(spoiled)[..., 2] == 0) | (xyz(good)[..., 2] == 0)
    step = np.abs(xyz(spoiled) - xyz(good)).max(axis=2) > 1.5 * Sensor().step_mm
    assert not (changed & ~lost & step).any()
    assert changed.sum() <= 0.03 * good.part_mask.sum()


@pytest.mark.parametrize("product", PRODUCTS)
def test_geometry_defects_are_faint_in_colour(product: str) -> None:
    def change(defect: str) -> float:
        spoiled, good = shot(product, defect, perfect=True), shot(product, perfect=True)
        return float(np.abs(spoiled.frame.rgb.astype(int) - good.frame.rgb).max(axis=2)[spoiled.mask].mean())

    assert max(change(defect) for defect in ("bump", "dent")) < 0.35 * change("stain")


@pytest.mark.parametrize("defect", ["bump", "dent", "scratch", "hole", "combined"])
def test_severity_scales_a_defect_and_moves_nothing(defect: str) -> None:
    whole = shot("nameplate", defect, perfect=True)
    faint = VirtualCamera("nameplate", 5, SIZE_PX, unit="mm", sensor=PERFECT, severity=0.4).frame(3, defect)
    assert whole.defect is not None and faint.defect is not None
    assert faint.defect == replace(whole.defect, strength_mm=faint.defect.strength_mm)
    assert faint.defect.strength_mm == pytest.approx(0.4 * whole.defect.strength_mm)
    good = xyz(shot("nameplate", perfect=True))[..., 2]
    change = [np.abs(xyz(one)[..., 2] - good)[whole.mask].max() for one in (faint, whole)]
    assert 0 < change[0] < 0.7 * change[1]


def test_a_faint_stain_changes_less_colour() -> None:
    good = shot("nameplate", perfect=True).frame.rgb.astype(int)
    faint = VirtualCamera("nameplate", 5, SIZE_PX, unit="mm", sensor=PERFECT, severity=0.4).frame(3, "stain")
    whole = shot("nameplate", "stain", perfect=True)
    change = [np.abs(one.frame.rgb - good)[whole.mask].mean() for one in (faint, whole)]
    assert 0.2 < change[0] / change[1] < 0.6


def test_arguments_that_cannot_be() -> None:
    for arguments, word in (
        ({"product": "bolt"}, "bracket, roll, nameplate"), ({"seed": -1}, "seed is -1"), ({"size_px": 8}, "32 to 4096"),
        ({"size_px": (256, 9000)}, "9000"), ({"unit": "inch"}, "m, mm, um"), ({"severity": -1.0}, "severity is -1"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=word):
            VirtualCamera(**{"product": "roll", **arguments})  # type: ignore[arg-type]
    camera = VirtualCamera("roll", 1, 32)
    for arguments, word in (({"index": -1}, "count from 0"), ({"index": 0, "defect": "rust"}, "choose from bump"),
                            ({"index": 0, "part": 1_000_000}, "count from 0")):  # fmt: skip
        with pytest.raises(UsageError, match=word):
            camera.frame(**arguments)  # type: ignore[arg-type]


def test_missing_open3d_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_open3d.util, "find_spec", lambda name: None)
    with pytest.raises(CameraError, match=r"pip install .*open3d>="):
        VirtualCamera("roll", 1, 32).frame(0)
