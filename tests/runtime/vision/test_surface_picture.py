"""The surface as a picture, and the surface of a frame whose window is larger than the grid."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from asperity.runtime.errors import EngineError
from asperity.runtime.manifest import SurfacePicture
from asperity.runtime.vision.surface_grid import surface_of
from asperity.runtime.vision.surface_picture import channels_of, local_heights, picture
from tests.runtime.vision.surfaces import SIDE, part

NORMALS = SurfacePicture("normals", 3, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RELIEF = SurfacePicture("relief", 3, (0.1, 0.0, 0.0), (0.5, 0.5, 0.2))


@pytest.mark.parametrize("width", [5, 9])
def test_heights_above_the_surroundings_equal_plain_plane_fits(width: int) -> None:
    grid = part(2)
    surface = surface_of(grid, 3)
    present = surface.placed(surface.present)
    heights = surface.placed(surface.points.transpose(1, 2, 0)).astype(np.float64) @ grid.up
    found = surface.placed(local_heights(surface.heights(grid.up), surface.present, width))
    half = width // 2
    for row, column in np.argwhere(present)[::7]:
        near = np.zeros_like(present)
        near[max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1] = True
        at = np.argwhere(near & present).astype(np.float64)
        offsets = at - at.mean(axis=0)
        spread = offsets.T @ offsets / len(at) + np.eye(2)
        mean = heights[near & present].mean()
        slopes = np.linalg.solve(spread, offsets.T @ (heights[near & present] - mean) / len(at))
        wanted = heights[row, column] - mean - slopes @ (np.array([row, column]) - at.mean(axis=0))
        assert found[row, column] == pytest.approx(wanted, abs=1e-3)
    assert not found[~present].any()


@pytest.mark.parametrize("height_map", [False, True])
@pytest.mark.parametrize("chosen", [NORMALS, RELIEF])
def test_a_pixel_says_how_far_its_channel_is_from_the_centre(chosen: SurfacePicture, height_map: bool) -> None:
    grid = part(5, height_map=height_map)
    surface = surface_of(grid, 3)
    channels = surface.placed(channels_of(grid, surface, chosen.kind).transpose(1, 2, 0)).astype(np.float64)
    sloped = surface.placed(surface.sloped)
    off, scale = channels - chosen.centre, np.array(chosen.scale)
    wanted = 127.5 * (1 + (np.clip(off / scale, -1, 1) if chosen is NORMALS else off / (np.abs(off) + scale)))
    made = picture(grid, surface, chosen, SIDE)
    assert made.dtype == np.uint8 and made.shape == (SIDE, SIDE, 3)
    assert np.abs(made[sloped] - wanted[sloped]).max() <= 0.51
    assert not made[~sloped].any()


def test_a_picture_of_an_unknown_kind_is_an_error() -> None:
    grid = part(5)
    with pytest.raises(EngineError, match="curvature"):
        picture(grid, surface_of(grid, 3), msgspec.structs.replace(NORMALS, kind="curvature"), SIDE)  # type: ignore[arg-type]
