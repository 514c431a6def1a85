"""Means and normals on the organised grid, against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.runtime.vision.surface_grid import LEAST_MEMBERS, LEVEL_CELLS, TANGENT_STEP, SurfaceGrid, surface_of
from tests.runtime.vision.surfaces import CELL_MM, SIDE, part


def plain_means(grid: SurfaceGrid, width: int) -> tuple[np.ndarray, np.ndarray]:
    half, level_mm = width // 2, LEVEL_CELLS * width * grid.cell_mm
    means, present = np.zeros((SIDE, SIDE, 3)), np.zeros((SIDE, SIDE), bool)
    points = grid.points.astype(np.float64)
    for row, column in np.argwhere(grid.filled):
        window = np.s_[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1]
        members = points[window][grid.valid[window]]
        if len(members) < LEAST_MEMBERS * width * width:
            continue
        if np.ptp(members[:, 2]) > level_mm:
            if not grid.valid[row, column]:
                continue
            members = members[np.abs(members[:, 2] - points[row, column, 2]) <= 0.5 * level_mm]
        means[row, column], present[row, column] = members.mean(axis=0), True
    return means, present


def plain_normal(points: np.ndarray, present: np.ndarray, row: int, column: int) -> np.ndarray | None:
    tangents = []
    for down, right in ((0, TANGENT_STEP), (TANGENT_STEP, 0)):
        tangent, here = np.zeros(3), points[row, column]
        joined = 0
        for sign in (-1, 1):
            at = row + sign * down, column + sign * right
            if not (0 <= at[0] < SIDE and 0 <= at[1] < SIDE and present[at] and present[row, column]):
                continue
            if abs(points[at][2] - here[2]) <= LEVEL_CELLS * TANGENT_STEP * CELL_MM:
                tangent, joined = tangent + sign * (points[at] - here), joined + 1
        if not joined:
            return None
        tangents.append(tangent)
    normal = np.cross(*tangents)
    return normal / np.linalg.norm(normal)


@pytest.mark.parametrize("height_map", [False, True])
@pytest.mark.parametrize("step_mm", [0.0, 4.0])
@pytest.mark.parametrize("width", [3, 5, 9])
def test_means_and_normals_equal_plain_ones(width: int, step_mm: float, height_map: bool) -> None:
    grid = part(width, height_map=height_map, step_mm=step_mm)
    surface = surface_of(grid, width)
    sloped, points, normals = (
        surface.placed(one)
        for one in (surface.sloped, surface.points.transpose(1, 2, 0), surface.normals.transpose(1, 2, 0))
    )
    means, present = plain_means(grid, width)
    assert np.array_equal(surface.placed(surface.present), present)
    np.testing.assert_allclose(points[present], means[present], atol=1e-4)
    assert not points[~present].any()
    for row in range(SIDE):
        for column in range(SIDE):
            wanted = plain_normal(means, present, row, column) if present[row, column] else None
            assert sloped[row, column] == (wanted is not None)
            if wanted is not None:
                towards = wanted if wanted @ grid.up > 0 else -wanted
                np.testing.assert_allclose(normals[row, column], towards, atol=2e-4)
    assert not normals[~sloped].any()


def test_nothing_is_averaged_or_sloped_across_a_step() -> None:
    flat, stepped = part(1, noise_mm=0.0), part(1, step_mm=4.0, noise_mm=0.0)
    one, other = surface_of(flat, 5), surface_of(stepped, 5)
    apart = np.abs(one.normals - other.normals)[:, one.sloped & other.sloped]
    # One-sided slopes of a bent plate differ a little from central ones; a slope across the step would differ by 1.
    assert apart.max() < 0.1 and other.sloped.sum() > 0.9 * one.sloped.sum()


def test_a_frame_without_a_part_has_no_surface() -> None:
    grid = part(1)
    nothing = np.zeros((SIDE, SIDE), bool)
    surface = surface_of(SurfaceGrid(np.zeros_like(grid.points), nothing, nothing, CELL_MM, grid.up), 5)
    assert not surface.present.any() and not surface.sloped.any() and np.isfinite(surface.normals).all()
