"""Pseudo-defects: one modality is touched, where it says, by as much as it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asperity.calibration.tuning.pseudo_defects import DISPLACEMENT_MM, VISIBLE_LEVELS, VISIBLE_MM, make_pseudo_defect
from asperity.runtime.errors import DataError
from asperity.runtime.frame import Prepared, Silhouette, Window

GRID, CLOUD_PX, IMAGE_PX = 14, 56, 112


def disc(seed: int = 0) -> Prepared:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:CLOUD_PX, :CLOUD_PX]
    cloud = np.stack([columns - 28, rows - 28, np.full((CLOUD_PX, CLOUD_PX), 400.0)], axis=2).astype(np.float32)
    cloud[np.hypot(rows - 28, columns - 28) > 22] = 0
    image = rng.integers(60, 180, (IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8)
    image[~(cloud != 0).any(axis=2).repeat(2, 0).repeat(2, 1)] = 0
    return Prepared(image, cloud, np.ones((GRID, GRID), bool), Window(0, 0, 112), Silhouette(1, 1, 1, 1, 0))


def cells(mask: np.ndarray) -> np.ndarray:
    side = mask.shape[0] // GRID
    return mask.reshape(GRID, side, GRID, side).any(axis=(1, 3))


@pytest.mark.parametrize("seed", range(12))
def test_geometry_moves_points_along_their_rays_and_leaves_colour(seed: int) -> None:
    normal = disc()
    defect = make_pseudo_defect(normal, "geometry", np.random.default_rng(seed))
    assert np.array_equal(defect.prepared.image, normal.image)
    before, after = normal.cloud.astype(np.float64), defect.prepared.cloud.astype(np.float64)
    assert np.array_equal(before == 0, after == 0), "no point appears or is lost"
    moved_mm = np.linalg.norm(after - before, axis=2)
    assert DISPLACEMENT_MM[0] * 0.5 < moved_mm.max() < DISPLACEMENT_MM[1] + 1e-3
    assert np.abs(np.cross(before, after)).max() < 0.1, "every point stays on its ray"
    assert defect.defective.any()
    assert not (defect.defective & ~cells(moved_mm >= VISIBLE_MM - 1e-3)).any()


@pytest.mark.parametrize("seed", range(12))
def test_colour_changes_pixels_of_the_part_and_leaves_points(seed: int) -> None:
    normal = disc()
    defect = make_pseudo_defect(normal, "colour", np.random.default_rng(seed))
    assert np.array_equal(defect.prepared.cloud, normal.cloud)
    changed = np.abs(defect.prepared.image.astype(int) - normal.image).max(axis=2) >= VISIBLE_LEVELS
    part = (normal.cloud != 0).any(axis=2).repeat(2, 0).repeat(2, 1)
    assert changed.any() and not (changed & ~part).any(), "the background stays black"
    assert defect.defective.any()
    assert not (defect.defective & ~cells(changed)).any()
    assert not np.array_equal(defect.prepared.image, normal.image)


def test_equal_seeds_make_equal_defects_and_the_frame_is_left_alone() -> None:
    normal = disc()
    image, cloud = normal.image.copy(), normal.cloud.copy()
    for kind in ("geometry", "colour"):
        first, second = (make_pseudo_defect(normal, kind, np.random.default_rng(3)) for _ in range(2))
        assert np.array_equal(first.prepared.image, second.prepared.image)
        assert np.array_equal(first.prepared.cloud, second.prepared.cloud)
        assert np.array_equal(first.defective, second.defective)
    assert np.array_equal(image, normal.image) and np.array_equal(cloud, normal.cloud)


def test_a_frame_without_a_part_is_refused() -> None:
    with pytest.raises(DataError, match="without foreground points"):
        make_pseudo_defect(replace(disc(), cloud=np.zeros_like(disc().cloud)), "geometry", np.random.default_rng(0))


def test_where_z_is_a_height_points_move_up_or_down() -> None:
    normal = disc()
    points = normal.cloud.copy()
    points[..., 2] *= 0.01
    normal = replace(normal, cloud=points)
    moved = make_pseudo_defect(normal, "geometry", np.random.default_rng(0)).prepared.cloud
    np.testing.assert_array_equal(moved[..., :2], points[..., :2])
    assert VISIBLE_MM < np.abs(moved[..., 2] - points[..., 2]).max() <= DISPLACEMENT_MM[1] + 1e-4
