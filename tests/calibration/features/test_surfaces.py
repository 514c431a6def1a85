"""Constants of the surface's modalities: the box follows the noise, and only parts of one shape get a mean part."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.calibration.features.height_model import KNOWN_SHARE, fit_heights
from asperity.calibration.features.surfaces import NORMALS_NOISE, WIDTHS, choose_width, depth_noise_mm, normals_noise
from asperity.runtime.errors import CalibrationError
from asperity.runtime.vision.surface_grid import SurfaceGrid, surface_of
from tests.runtime.vision.surfaces import CELL_MM, SIDE, part


def bodies(seed: int, *, alike: bool) -> SurfaceGrid:
    """Plates with a boss each: at one place of the part, or at any, and as high as it likes."""
    grid, rng = part(seed), np.random.default_rng([1, seed])
    rows, columns = np.mgrid[:SIDE, :SIDE]
    row, column, high = (12, 18, 2.0) if alike else (*rng.uniform(8, 22, 2), rng.uniform(-4, 4))
    rise = high * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 30)
    points = grid.points.copy()
    points[:, :, 2] -= (rise * grid.valid).astype(np.float32)
    return SurfaceGrid(points, grid.valid, grid.filled, grid.cell_mm, grid.up)


def test_the_noise_of_points_is_found_and_chooses_the_box() -> None:
    widths = []
    for noise_mm in (0.0, 0.02, 0.13, 0.18, 1.0):
        grids = [part(seed, noise_mm=noise_mm) for seed in range(4)]
        found = depth_noise_mm(grids)
        assert found == pytest.approx(noise_mm, rel=0.15, abs=0.01)
        widths.append(choose_width(grids, found))
    assert widths == sorted(widths) and widths[0] == WIDTHS[0] and widths[-1] == WIDTHS[-1]
    assert len(set(widths)) >= 3


def test_normals_are_as_noisy_as_is_reckoned() -> None:
    noise_mm, width = 0.05, 5
    one, other = (surface_of(part(seed, noise_mm=noise_mm), width) for seed in (1, 2))
    both = one.sloped & other.sloped
    seen = float((one.normals - other.normals)[:2, both].std()) / np.sqrt(2)
    assert seen == pytest.approx(normals_noise(noise_mm / CELL_MM, width), rel=0.35)
    assert NORMALS_NOISE > 0


def test_parts_of_one_shape_have_a_mean_and_others_are_refused() -> None:
    alike = [bodies(seed, alike=True) for seed in range(12)]
    noise_mm = depth_noise_mm(alike)
    surfaces = [surface_of(grid, 3) for grid in alike]
    model = fit_heights(alike, surfaces, noise_mm)
    shown = np.mean([surface.placed(surface.present) for surface in surfaces], axis=0) >= KNOWN_SHARE
    # No round may lose the cells at the border: parts would have patches there "where good ones have nothing".
    assert model.known.sum() > 0.95 * shown.sum() > 300
    assert (model.spread > 0).all() and np.isfinite(model.heights).all()
    assert float(np.median(model.spread[0][model.known])) < 2 * noise_mm
    unlike = [bodies(seed, alike=False) for seed in range(12)]
    with pytest.raises(CalibrationError, match="without height among --modalities"):
        fit_heights(unlike, [surface_of(grid, 3) for grid in unlike], noise_mm)
