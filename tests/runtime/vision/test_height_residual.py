"""The posed part's residual: the pose is found again, a plane is taken out, and what is left lies where it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asperity.runtime.vision.height_residual import (
    DIMENSION,
    LARGEST,
    SCALES,
    HeightModel,
    Pose,
    describe_heights,
    find_pose,
    residuals,
    warped_back,
)

SIDE, GRID, NOISE_MM = 96, 12, 0.02


def posed(
    pose: Pose, *, tilt: float = 0.0, bump_mm: float = 0.0, seed: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Heights and outline of a plate with two bosses and a notch, turned about the grid's middle and shifted."""
    middle = 0.5 * (SIDE - 1)
    rows, columns = np.indices((SIDE, SIDE), dtype=np.float64) - middle
    down, right = rows - pose.down, columns - pose.right
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    x, y = sine * down + cosine * right, cosine * down - sine * right
    present = (np.abs(x) < 36) & (np.abs(y) < 22) & ~((x > 26) & (np.abs(y) < 5))
    heights = 2.0 * np.exp(-((x - 14) ** 2 + (y + 6) ** 2) / 40) + 1.2 * np.exp(-((x + 18) ** 2 + (y - 8) ** 2) / 60)
    heights += bump_mm * np.exp(-((x + 8) ** 2 + (y + 9) ** 2) / 18) + tilt * (rows + 0.5 * columns)
    if seed is not None:
        heights += np.random.default_rng(seed).normal(0, NOISE_MM, heights.shape)
    return np.where(present, heights, 0.0).astype(np.float32), present


@pytest.fixture(scope="module")
def model() -> HeightModel:
    heights, present = posed(Pose())
    return HeightModel(heights, present, np.full((len(SCALES), SIDE, SIDE), NOISE_MM, np.float32))


@pytest.mark.parametrize(
    "pose", [Pose(), Pose(math.radians(9), 2.5, -3.0), Pose(math.radians(-12), -4.0, 1.5), Pose(0.02, 6.0, 6.0)]
)
def test_the_pose_is_found_again(model: HeightModel, pose: Pose) -> None:
    found = find_pose(*posed(pose, seed=1), model)
    assert found.turn == pytest.approx(pose.turn, abs=math.radians(0.4))
    assert (found.down, found.right) == pytest.approx((pose.down, pose.right), abs=0.4)


def test_a_tilt_leaves_nothing_and_a_bump_what_it_is_high(model: HeightModel) -> None:
    pose = Pose(math.radians(7), 1.5, 2.0)
    left, both, _ = residuals(*posed(pose, tilt=0.02), model, pose)
    assert both.sum() > 2000 and np.abs(left[both]).max() < 0.05
    left, both, _ = residuals(*posed(pose, tilt=0.02, bump_mm=0.5), model, pose)
    assert left[both].max() == pytest.approx(0.5, abs=0.05)
    back, there = warped_back(left, both, pose)
    # In the model's pose the bump lies where it was made, x -8, y -9 off the middle.
    row, column = np.unravel_index(int(np.where(there, back, 0).argmax()), back.shape)
    assert (row, column) == pytest.approx((0.5 * SIDE - 9, 0.5 * SIDE - 8), abs=1.5)


def test_a_bump_of_some_noises_stands_out_in_its_patch(model: HeightModel) -> None:
    pose = Pose(math.radians(5), -2.0, 1.0)
    normal, bumped = (describe_heights(*posed(pose, seed=3, bump_mm=height), model, GRID) for height in (0.0, 0.2))
    assert normal.shape == (GRID * GRID, DIMENSION) and normal.dtype == np.float32
    rise = (bumped - normal)[:, 0::2].max(axis=1)
    sine, cosine = math.sin(pose.turn), math.cos(pose.turn)
    row = 0.5 * SIDE + pose.down - 9 * cosine + 8 * sine
    column = 0.5 * SIDE + pose.right - 8 * cosine - 9 * sine
    patch = int(rise.argmax())
    assert np.hypot(patch // GRID - row * GRID // SIDE, patch % GRID - column * GRID // SIDE) <= 1.5
    assert rise.max() > 5 and (np.abs(bumped) <= LARGEST).all()


def test_what_good_frames_do_not_have_is_as_strange_as_can_be(model: HeightModel) -> None:
    heights, present = posed(Pose())
    present = present.copy()
    present[:20, :20] = True
    described = describe_heights(heights, present, model, GRID)
    assert (described[0, 0::2] == LARGEST).all() and (described[0, 1::2] == -LARGEST).all()
    lying, across = posed(Pose(math.radians(90), 0.0, 0.0))
    foreign = describe_heights(lying, across, model, GRID)
    assert np.abs(foreign).max() == LARGEST, "a part in no pose of theirs does not fit anywhere"
    nothing = np.zeros((SIDE, SIDE), bool)
    assert not describe_heights(np.zeros((SIDE, SIDE), np.float32), nothing, model, GRID).any()
