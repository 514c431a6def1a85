"""Defects on source frames: one modality is touched, on the part, by as much as was asked."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from asperity.calibration.frames.geometry import fit_geometry
from asperity.calibration.tuning.frame_defects import (
    COLOUR_KINDS,
    GEOMETRY_KINDS,
    FrameDefect,
    Kind,
    changed_patches,
    depth_noise_mm,
    draw_defect,
    spoil_frame,
)
from asperity.runtime.frame import Frame, Window
from asperity.runtime.manifest import Geometry
from asperity.runtime.vision.preprocess import find_part
from tests.flat_products import PITCH_MM, frames, sheet

PLATE = sheet(8.0, (80.0, 70.0), shift_mm=4.0)
VIEWS = {
    "camera": {"axes": "camera"},
    "opengl in metres": {"axes": "opengl", "unit": "m", "to_unit": 1e-3},
    "profiler": {"axes": "height"},
}


@cache
def station(view: str) -> tuple[Frame, Geometry]:
    options = VIEWS[view]
    taken = frames(PLATE, **options)
    return taken[0], fit_geometry(taken, z="height" if view == "profiler" else "auto", unit=options.get("unit", "mm"))


def millimetres(frame: Frame) -> np.ndarray:
    assert frame.xyz is not None
    return frame.xyz.astype(np.float64) * (1e3 if frame.unit == "m" else 1.0)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", GEOMETRY_KINDS)
def test_points_of_the_part_move_towards_the_camera_or_away_by_what_was_asked(view: str, kind: Kind) -> None:
    frame, geometry = station(view)
    part = find_part(frame, geometry).part
    for seed in range(4):
        made = spoil_frame(frame, geometry, FrameDefect(kind, 16.0, 0.8), np.random.default_rng(seed))
        before, after = millimetres(frame), millimetres(made.frame)
        assert np.array_equal(made.frame.rgb, frame.rgb)
        assert np.array_equal((before == 0).all(axis=2), (after == 0).all(axis=2)), "no point appears or is lost"
        moved = np.linalg.norm(after - before, axis=2)
        assert not (moved > 1e-3)[~part].any()
        assert 0.7 < moved.max() < 0.801
        deepest = np.unravel_index(moved.argmax(), moved.shape)
        if view == "profiler":
            towards = after[deepest][2] - before[deepest][2]
        else:
            assert np.abs(np.cross(before, after)).max() < 0.1, "every point stays on its ray"
            towards = np.linalg.norm(before[deepest]) - np.linalg.norm(after[deepest])
        assert (towards > 0) == (kind == "bump")
        assert made.changed.any() and (moved[made.changed & (before != 0).any(axis=2)] > 0.15).all()


@pytest.mark.parametrize("kind", COLOUR_KINDS)
def test_colours_of_the_part_change_and_points_stay(kind: Kind) -> None:
    frame, geometry = station("camera")
    filled = find_part(frame, geometry).filled
    for seed in range(4):
        made = spoil_frame(frame, geometry, FrameDefect(kind, 16.0, 0.1), np.random.default_rng(seed))
        assert np.array_equal(made.frame.xyz, frame.xyz)
        difference = np.abs(made.frame.rgb.astype(int) - frame.rgb).max(axis=2)
        assert not difference[~filled].any()
        assert difference.max() >= 5 and difference[made.changed].mean() > 2.0


def test_the_noise_of_the_depth_is_found_again_and_strengths_begin_at_a_fifth_of_it() -> None:
    _, geometry = station("camera")
    taken = frames(PLATE, 3, noise_mm=0.2)
    noise = depth_noise_mm(taken, geometry)
    assert noise == pytest.approx(0.2, rel=0.1)
    drawn = [draw_defect("bump", geometry, noise, np.random.default_rng(seed)).strength for seed in range(300)]
    assert 0.2 * noise <= min(drawn) < 0.3 * noise
    assert 7.0 * noise < max(drawn) <= 10.0 * noise


def test_a_size_is_what_was_asked_and_equal_seeds_make_equal_defects() -> None:
    frame, geometry = station("camera")
    one, same = (
        spoil_frame(frame, geometry, FrameDefect("dent", 20.0, 0.5), np.random.default_rng(7)) for _ in range(2)
    )
    assert np.array_equal(one.frame.xyz, same.frame.xyz) and np.array_equal(one.changed, same.changed)
    across_mm = 2.0 * np.sqrt(one.changed.sum() / np.pi) * PITCH_MM
    # A cap has a quarter of its height at .87 of its radius.
    assert across_mm == pytest.approx(0.87 * 20.0, rel=0.15)


def test_a_patch_is_defective_where_half_of_its_part_is_changed() -> None:
    changed, part = np.zeros((2, 8, 8), bool)
    part[:, 2:] = True
    changed[0:2, 2:4] = True
    changed[4, 4:6] = True
    changed[6, 6] = True
    patches = changed_patches(changed, part, Window(0, 0, 8), 4)
    assert np.argwhere(patches).tolist() == [[0, 1], [2, 2]]
    assert np.argwhere(changed_patches(changed, part, Window(2, -2, 8), 4)).tolist() == [[1, 0], [3, 1]]
