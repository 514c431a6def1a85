"""Histograms of pairs on the grid, against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.runtime.vision.grid_descriptor import (
    BINS,
    DIMENSION,
    FIGURES,
    RADII,
    describe,
    pair_offsets,
    usual_figures,
)
from asperity.runtime.vision.surface_grid import Surface, surface_of
from tests.runtime.vision.surfaces import SIDE, part

GRID = 6


def plain(surface: Surface, usual: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    counts = np.zeros((len(RADII), FIGURES, GRID, GRID, BINS))
    sloped, points, normals = (
        surface.placed(one)
        for one in (surface.sloped, surface.points.transpose(1, 2, 0), surface.normals.transpose(1, 2, 0))
    )
    points, normals = points.astype(np.float64), normals.astype(np.float64)

    def count(at: int, figure: int, cell: tuple[int, int], value: float) -> None:
        squashed = value / (abs(value) + usual[at][figure])
        counts[at, figure, cell[0] * GRID // SIDE, cell[1] * GRID // SIDE, int((squashed * 0.4999 + 0.5) * BINS)] += 1

    for at, radius in enumerate(RADII):
        for row, column in np.argwhere(sloped):
            if radius > RADII[0] and (row + column) % 2:
                continue
            for down, right in pair_offsets(radius):
                other = row + down, column + right
                if not (0 <= other[0] < SIDE and 0 <= other[1] < SIDE and sloped[other]):
                    continue
                line = points[other] - points[row, column]
                line /= np.linalg.norm(line)
                near, far = normals[row, column], normals[other]
                between = row + down // 2, column + int(right / 2)
                count(at, 0, (row, column), line @ near)
                count(at, 0, other, -line @ far)
                count(at, 1, between, line @ far - line @ near)
                count(at, 2, between, line @ np.cross(near, far))
    shares = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return np.sqrt(shares).transpose(2, 3, 0, 1, 4).reshape(GRID * GRID, DIMENSION)


@pytest.mark.parametrize("height_map", [False, True])
def test_a_descriptor_equals_a_plain_one(height_map: bool) -> None:
    surface = surface_of(part(3, height_map=height_map), 3)
    usual = usual_figures([surface, surface_of(part(4, height_map=height_map), 3)])
    found, wanted = describe(surface, usual, GRID), plain(surface, usual)
    assert found.shape == (GRID * GRID, DIMENSION) and found.dtype == np.float32
    # A figure on the border of two bins may fall into either: one pair of some dozens in a patch.
    assert np.abs(found.astype(np.float64) ** 2 - wanted**2).max() < 0.05
    assert np.mean(np.abs(found - wanted) > 1e-6) < 0.01


def test_half_of_what_good_frames_show_lies_within_the_usual() -> None:
    surfaces = [surface_of(part(seed), 3) for seed in range(4)]
    usual = usual_figures(surfaces)
    shares = describe(surfaces[0], usual, 1)[0].reshape(len(RADII), FIGURES, BINS) ** 2
    # The usual lies at half of a histogram's range on either side.
    within = shares[:, :, BINS // 4 + 1 : BINS - BINS // 4 - 1].sum(axis=2)
    assert ((within > 0.25) & (within < 0.75)).all()


def test_a_patch_without_a_surface_has_zeros() -> None:
    described = describe(surface_of(part(1), 3), usual_figures([surface_of(part(2), 3)]), GRID)
    assert not described[0].any() and described[GRID * GRID // 2 + 3].any()


def test_a_bump_of_the_depths_noise_changes_the_descriptor_where_it_is() -> None:
    usual = usual_figures([surface_of(part(seed), 3) for seed in range(3)])
    normal, bumped = part(9), part(9)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    bumped.points[:, :, 2] -= (
        0.1 * np.clip(1 - np.hypot(rows - 12, columns - 12) ** 2 / 16, 0, 1) * bumped.valid
    ).astype(np.float32)
    change = np.abs(describe(surface_of(bumped, 3), usual, GRID) - describe(surface_of(normal, 3), usual, GRID))
    patch = int(change.max(axis=1).argmax())
    assert np.hypot(patch // GRID - 2, patch % GRID - 2) <= 1.5
