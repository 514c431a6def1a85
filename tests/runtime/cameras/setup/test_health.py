"""The check of a camera on scenes with known faults: each is found, and a good scene has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asperity.runtime.cameras.setup.check_picture import GAP_PX, OUTLINE, check_picture
from asperity.runtime.cameras.setup.depth_noise import depth_step, measure
from asperity.runtime.cameras.setup.exposures import Taken
from asperity.runtime.cameras.setup.health import Health
from asperity.runtime.cameras.setup.look import look_at
from asperity.runtime.cameras.source import Shot
from asperity.runtime.cameras.virtual.sensor import Sensor, measure_depth
from asperity.runtime.clock import Now
from tests.runtime.cameras.setup.scene import COLUMNS, ROWS, Scene, as_xyz

FRAMES = 6


def taken(shot: Shot, wall_us: int = 0, missed: int = 0) -> Taken:
    return Taken(shot, missed, Now(10**10 + 10**8 * (shot.number or 0), wall_us), None)


def health_of(scene: Scene, frames: int = FRAMES, *, xyz: bool = False, missed: int = 0, number: bool = True) -> Health:
    health = Health()
    for index in range(frames):
        frame = scene.frame(index)
        shot = Shot(as_xyz(frame) if xyz else frame, index if number else None)
        health.add(taken(shot, frame.t_exposure_us + 20_000, missed))
    return health


def bad(health: Health) -> dict[str, str]:
    return {one.name: one.value for one in health.findings() if not one.good}


@pytest.mark.parametrize("xyz", [False, True])
def test_nothing_stands_out_in_a_good_scene(xyz: bool) -> None:
    health = health_of(Scene(fields={"clock": "realtime"}), xyz=xyz)
    assert not bad(health)
    figures = health.figures()
    assert figures["part_mm"] == pytest.approx([91.2, 52.8, 20.1], rel=0.03)  # between the outermost points, at 480 mm
    assert figures["age_ms"] == [20.0, 20.0]
    assert figures["plane"] and not figures["moved"]
    assert health.look is not None and health.look.part is not None
    assert health.look.part.filled[Scene().box(0)].all()
    assert health.look.part.filled.sum() == 240


@pytest.mark.parametrize("noise_mm", [0.02, 0.2])
@pytest.mark.parametrize("frames", [4, 10])
def test_noise_is_recovered(noise_mm: float, frames: int) -> None:
    """The oracle: the standard deviation, in float64, of what was added to the known depth."""
    scene = Scene(noise_mm=noise_mm)
    added = np.stack([scene.frame(index).depth.astype(np.float64) - scene.depth(index) for index in range(frames)])
    oracle = float(np.sqrt(added.var(axis=0, ddof=1).mean()))
    assert oracle == pytest.approx(noise_mm, rel=0.05)
    assert health_of(scene, frames).figures()["noise_mm"] == pytest.approx(oracle, rel=0.1)


def test_noise_of_the_virtual_camera_is_recovered() -> None:
    """Its sensor's noise, rounding and lost points, on a scene that stands still."""
    sensor, rng = Sensor(noise_mm=0.06, step_mm=0.02, lost=0.01), np.random.default_rng(5)
    health, scene = Health(), Scene()
    for index in range(8):
        flat = scene.depth(index).astype(np.float32)
        depth = measure_depth(sensor, flat, np.ones_like(flat), np.ones(flat.shape, bool), rng)
        health.add(taken(Shot(replace(scene.frame(index), depth=depth), index)))
    assert health.figures()["noise_mm"] == pytest.approx(np.hypot(0.06, 0.02 / np.sqrt(12)), rel=0.1)


def test_noise_of_a_camera_that_rounds() -> None:
    """Noise far below the step: no pixel changes, and the rounding is what is not known."""
    health = health_of(Scene(noise_mm=0.02, step_mm=1.0))
    assert health.figures()["noise_mm"] == pytest.approx(1 / np.sqrt(12), rel=0.1)
    assert "rounded to 1 mm" in next(one.value for one in health.findings() if one.name == "depth noise")
    fine = health_of(Scene(noise_mm=0.05, step_mm=0.01))
    assert fine.figures()["noise_mm"] == pytest.approx(0.05, rel=0.1)


def test_noise_as_large_as_the_part_is_said() -> None:
    assert "depth noise" in bad(health_of(Scene(noise_mm=1.0, box_mm=8.0)))


def test_a_scene_that_moves_has_no_noise_figure() -> None:
    health = health_of(Scene(shift_px=lambda index: 3 * index))
    assert health.figures()["noise_mm"] is None
    assert "the scene moved" in bad(health)["depth noise"]


def test_a_scene_that_shifts_as_a_whole_has_no_noise_figure() -> None:
    scenes = [Scene(fields={"offset": 0.5 * index}) for index in range(FRAMES)]
    health = Health()
    for index, scene in enumerate(scenes):
        health.add(taken(Shot(scene.frame(index), index)))
    assert "the scene moved" in bad(health)["depth noise"]


def test_noise_is_of_the_frames_that_stood_still() -> None:
    health = health_of(Scene(shift_px=lambda index: 12 * (index >= 4)), 8)
    assert "before frames 5" in bad(health)["motion"]
    assert health.figures()["noise_mm"] == pytest.approx(0.05, rel=0.1)


def test_a_view_in_which_everything_changes_moved() -> None:
    """A textured surface that passes by: each pixel changes, so the change itself looks like noise."""
    rng = np.random.default_rng(0)
    relief = 5 * np.sin(np.arange(400) / 7.0)[None] + np.zeros((40, 1))
    depths = np.stack([500 + relief[:, 50 * k : 50 * k + 60] for k in range(5)]).astype(np.float32)
    depths += rng.normal(0, 0.02, depths.shape).astype(np.float32)
    found = measure(depths, np.ones(depths.shape, bool), np.zeros(depths.shape, np.float32))
    assert np.isnan(found.noise_mm) and len(found.moved) == 4
    still = np.stack([depths[0] + rng.normal(0, 0.02, depths[0].shape) for _ in range(5)]).astype(np.float32)
    assert not measure(still, np.ones(still.shape, bool), np.zeros(still.shape, np.float32)).moved


def test_motion_in_the_colour_alone_is_motion() -> None:
    flat = Scene(box_mm=0.001, shift_px=lambda index: 4 * index)
    assert health_of(flat).figures()["moved"]


def test_saturated_and_dark_colour() -> None:
    assert "saturation" in bad(health_of(Scene(rgb_level=255)))
    assert "brightness" in bad(health_of(Scene(rgb_level=4)))


def test_holes() -> None:
    found = bad(health_of(Scene(holes=0.6)))
    assert "points" in found and "points on the part" in found
    steady = health_of(Scene(steady_hole=True))
    assert steady.figures()["never_valid_share"] == pytest.approx(16 / (ROWS * COLUMNS))
    assert "points on the part" in bad(steady)


def test_without_a_part_or_a_plane() -> None:
    assert "part" in bad(health_of(Scene(box_mm=0)))
    rng = np.random.default_rng(2)
    waves = 500 + 40 * rng.normal(size=(ROWS // 4, COLUMNS // 4)).repeat(4, 0).repeat(4, 1)
    health = Health()
    for index in range(3):
        frame = replace(Scene().frame(index), depth=waves.astype(np.float32))
        health.add(taken(Shot(frame, index)))
    assert "no plane" in bad(health)["background"]


def test_a_part_cut_by_the_edge() -> None:
    assert "cut by the picture's edge" in bad(health_of(Scene(shift_px=lambda _: -30)))["part"]


def test_an_undeclared_missing_point_is_named() -> None:
    scene = Scene()
    health = Health()
    for index in range(3):
        frame = scene.frame(index)
        depth = frame.depth.copy()
        depth[10:14, 60:70] = 20_000
        health.add(taken(Shot(replace(frame, depth=depth), index)))
    assert "invalid = 20000" in bad(health)["missing points"]


def test_gaps_repeats_clock_and_unit() -> None:
    assert "missed" in bad(health_of(Scene(), missed=1))["count"]
    assert "does not count" in bad(health_of(Scene(), number=False))["count"]
    late = health_of(Scene(fields={"clock": "realtime"}))
    late.ages_ms = [900.0]
    assert "age" in bad(late)
    late.ages_ms = [-50.0]
    assert "PTP" in next(one.remedy for one in late.findings() if one.name == "age")
    assert "unit not said, mm by the distance" in bad(health_of(Scene(fields={"unit": None})))["size"]
    assert "unit um, mm by the distance" in bad(health_of(Scene(fields={"unit": "um"})))["size"]
    frame = Scene().frame(0)
    frozen = Health()
    for index in range(3):
        frozen.add(taken(Shot(frame, index)))
    assert "2 frames equal" in bad(frozen)["repeats"]
    uneven = health_of(Scene())
    uneven.exposed_us[-1] += 500_000
    assert "rate" in bad(uneven)
    uneven.triggers = "hard_wired"  # parts come when they come
    assert not bad(uneven)
    timeless = health_of(Scene(fields={"t_exposure_us": 0}))
    assert not bad(timeless)
    timeless.triggers = "hard_wired"
    assert "no exposure time" in bad(timeless)["age"]


def test_a_frame_that_cannot_be_used_is_said() -> None:
    assert "unusable" in bad(health_of(Scene(fields={"intrinsics": None})))


def test_a_step_is_seen_only_where_there_is_one() -> None:
    rng = np.random.default_rng(1)
    assert depth_step(rng.normal(500, 5, 4000)) == 0
    assert depth_step(np.round(rng.normal(500, 20, 4000) / 0.25) * 0.25) == pytest.approx(0.25)
    assert depth_step(np.full(10, 500.0)) == 0
    assert depth_step(np.repeat([0.0, 41.0, 45.0], 1000)) == 0


def test_the_picture_shows_four_views() -> None:
    frame = Scene(steady_hole=True).frame(0)
    look = look_at(frame, "mm")
    share = look.valid.astype(np.float32)
    shown = check_picture(frame.rgb, look, share)
    assert shown.shape == (2 * ROWS + GAP_PX, 2 * COLUMNS + GAP_PX, 3)
    assert np.array_equal(shown[:ROWS, :COLUMNS], frame.rgb)
    outlined = (shown[:ROWS, COLUMNS + GAP_PX :] == OUTLINE).all(axis=2)
    rows, columns = Scene().box(0)
    assert outlined.any() and not outlined[rows, columns].any() and outlined[rows.start - 1, columns.start]
    depth, valid = shown[ROWS + GAP_PX :, :COLUMNS], shown[ROWS + GAP_PX :, COLUMNS + GAP_PX :]
    assert not depth[27, 41].any() and not valid[27, 41].any()
    assert (valid[0, 0] == 255).all()
    assert depth[30, 32, 0] > depth[2, 2, 0]  # the box is nearer
