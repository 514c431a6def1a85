"""Spoiled frames change one modality, within a bounded spot on the inspected part, and grow until they are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asperity.export.spoil import HEIGHT_SHARES, Kind, Spot, attempts, push, spoil, spots
from asperity.runtime.errors import CalibrationError
from asperity.runtime.frame import Frame
from asperity.runtime.vision.preprocess import Masks, find_part
from tests.bundle_factory import HEIGHT_PX, WIDTH_PX, toy_frame, toy_manifest

GEOMETRY = toy_manifest("none").geometry


@pytest.fixture
def frame() -> Frame:
    rgb, xyz = toy_frame(np.random.default_rng(3))
    return Frame(camera="c", camera_session="s", seq=0, rgb=rgb, xyz=xyz, unit="mm")


def test_spots_are_the_widest_places_and_apart() -> None:
    mask = np.zeros((60, 80), bool)
    mask[5:36, 5:36] = True  # centre 20, 20, radius 16
    mask[40:55, 60:75] = True  # centre 47, 67, radius 8
    first, second = spots(mask, 2)
    assert (first.row, first.column, first.radius_px) == (20, 20, 16)
    assert (second.row, second.column, second.radius_px) == (47, 67, 8)
    assert len(spots(mask, 5)) == 5
    assert spots(np.zeros((5, 5), bool)) == []


def test_geometry_attempts_leave_colour_and_background_alone_and_grow(frame: Frame) -> None:
    part = find_part(frame, GEOMETRY).part
    assert frame.xyz is not None
    heights: dict[str, list[float]] = {"bump": [], "dent": [], "rippled": []}
    for spoiled in attempts("spoiled_geometry", frame, GEOMETRY, Masks()):
        assert np.array_equal(spoiled.frame.rgb, frame.rgb)
        assert spoiled.frame.xyz is not None and spoiled.frame.xyz.dtype == np.float32
        moved = np.linalg.norm(spoiled.frame.xyz - frame.xyz, axis=2)
        assert 0 < (moved > 0).sum() < part.sum()
        assert not (moved > 0)[~part].any()
        heights[spoiled.what.split()[0]].append(float(moved.max()))
    side_mm = GEOMETRY.side_px * GEOMETRY.mm_per_px
    for kind in heights.values():
        assert np.allclose(kind, np.sort(kind), rtol=1e-3)
        assert kind[-1] == pytest.approx(HEIGHT_SHARES[-1] * side_mm, rel=1e-3)


@pytest.mark.parametrize("unit", ["mm", "m"])
def test_a_push_goes_along_the_view_ray_by_the_stated_length(frame: Frame, unit: str) -> None:
    from dataclasses import replace

    assert frame.xyz is not None
    per_unit = {"mm": 1.0, "m": 1000.0}[unit]
    stored = replace(frame, xyz=(frame.xyz / per_unit).astype(np.float32), unit=unit)  # type: ignore[arg-type]
    spot = Spot(12, 15, 6.0)
    pushed = push(stored, GEOMETRY, spot, 2.5).frame.xyz
    assert pushed is not None and stored.xyz is not None
    before, after = (v[12, 15].astype(np.float64) * per_unit for v in (stored.xyz, pushed))
    assert np.linalg.norm(before) - np.linalg.norm(after) == pytest.approx(2.5, abs=1e-3)
    assert np.allclose(np.cross(before, after) / np.linalg.norm(before) ** 2, 0, atol=1e-6)


def test_where_z_is_a_height_a_push_goes_up(frame: Frame) -> None:
    """The origin lies in the table there: along a ray to it nothing would become higher."""
    assert frame.xyz is not None
    flat = frame.xyz.copy()
    flat[..., 2] = 0.0
    seen = replace(frame, xyz=flat, unit="mm")
    moved = push(seen, toy_manifest("none").geometry, Spot(HEIGHT_PX // 2, WIDTH_PX // 2, 5.0), 2.0).frame.xyz
    assert moved is not None
    np.testing.assert_array_equal(moved[..., :2], flat[..., :2])
    assert moved[..., 2].max() == pytest.approx(2.0, abs=0.1) and moved[..., 2].min() == 0.0


def test_missing_points_stay_missing(frame: Frame) -> None:
    assert frame.xyz is not None
    frame.xyz[12, 14:17] = 0
    frame.xyz[11, 15] = np.nan
    pushed = push(frame, GEOMETRY, Spot(12, 15, 6.0), 2.0).frame.xyz
    assert pushed is not None
    assert (pushed[12, 14:17] == 0).all() and np.isnan(pushed[11, 15]).all()
    assert np.isfinite(np.delete(pushed.reshape(-1, 3), 11 * WIDTH_PX + 15, axis=0)).all()


def test_colour_attempts_leave_points_alone_and_grow(frame: Frame) -> None:
    changes = []
    for spoiled in attempts("spoiled_colour", frame, GEOMETRY, Masks()):
        assert spoiled.frame.xyz is frame.xyz
        change = np.abs(spoiled.frame.rgb.astype(int) - frame.rgb).sum()
        assert change > 0
        changes.append(change)
    assert changes[-1] > 3 * changes[0]


def test_masks_keep_spots_on_what_is_inspected(frame: Frame) -> None:
    inspect = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
    inspect[:12] = True
    ignore = np.zeros_like(inspect)
    ignore[:, :15] = True
    part = find_part(frame, GEOMETRY).part & inspect & ~ignore
    for spoiled in attempts("spoiled_colour", frame, GEOMETRY, Masks(inspect, ignore)):
        changed = (spoiled.frame.rgb != frame.rgb).any(axis=2)
        row, column = (int(np.median(v)) for v in np.nonzero(changed))
        assert part[max(0, row - 1) : row + 2, column - 1 : column + 2].any()
    with pytest.raises(CalibrationError, match="masks"):
        next(attempts("spoiled_colour", frame, GEOMETRY, Masks(ignore=np.ones_like(ignore))))


@pytest.mark.parametrize("kind", ["spoiled_geometry", "spoiled_colour"])
def test_the_first_that_is_seen_is_taken_and_blindness_is_an_error(frame: Frame, kind: Kind) -> None:
    judged = []

    def judge(candidate: Frame) -> tuple[bool, str]:
        judged.append(candidate)
        return len(judged) == 4, "score 0.1 of 0.7"

    assert spoil(kind, frame, GEOMETRY, Masks(), judge).frame is judged[3]
    with pytest.raises(CalibrationError, match="cannot detect gross defects") as caught:
        spoil(kind, frame, GEOMETRY, Masks(), lambda _: (False, "score 0.1 of 0.7"))
    assert "score 0.1 of 0.7" in str(caught.value)
