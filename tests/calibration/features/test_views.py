"""Views of a frame: light, exposure, turn, half a patch and noise change; the part and its places do not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from asperity.calibration.features import views as module
from asperity.calibration.features.views import VIEWS, View, make_views
from asperity.calibration.profiles import network_for
from asperity.runtime.frame import Frame, Prepared
from asperity.runtime.manifest import Geometry, Network, Plane
from asperity.runtime.vision.preprocess import prepare
from tests.calibration.tiny_station import SIZE_PX, TINY, part

GEOMETRY = Geometry(
    method="plane", why="", unit="m", height_px=SIZE_PX, width_px=SIZE_PX,
    plane=Plane((0.0, 0.0, -1.0), 400.0), plane_cut_mm=4.0, point_spacing_mm=1.0, plane_noise_mm=0.03,
    cluster_gap_px=2, side_px=48, mm_per_px=1.0, min_points=10, moved_share=0.5, moved_mm=3.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Network:
    return network_for(TINY, GEOMETRY, "none")


def frame(seed: int = 3) -> Frame:
    rgb, xyz = part(seed)
    return Frame("c", "s", seed, rgb, xyz=xyz, unit="m")


def made(network: Network, seed: int = 0) -> list[View]:
    return list(make_views(frame(), GEOMETRY, network, None, seed))


def filled(prepared: Prepared) -> np.ndarray:
    return (prepared.cloud != 0).any(axis=2)


def test_equal_seeds_give_equal_views_and_all_differ(network: Network):
    first, again, other = made(network), made(network), made(network, 1)
    assert len(first) == VIEWS
    for one, same, else_ in zip(first, again, other, strict=True):
        assert np.array_equal(one.prepared.cloud, same.prepared.cloud)
        assert np.array_equal(one.prepared.image, same.prepared.image)
        assert not np.array_equal(one.prepared.image, else_.prepared.image)
    assert len({one.prepared.image.tobytes() for one in first}) == VIEWS


def test_each_level_of_exposure_is_in_half_of_the_views(network: Network):
    original = prepare(frame(), GEOMETRY, network)
    usual = original.image[original.image.any(axis=2)].mean()
    brightness = [one.prepared.image[one.prepared.image.any(axis=2)].mean() / usual for one in made(network)]
    assert sum(one > 1.03 for one in brightness) == sum(one < 0.97 for one in brightness) == VIEWS // 2


def test_points_turn_with_the_picture(network: Network, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TURN_DEG", 20.0)
    for view in made(network):
        rows, columns = np.nonzero(filled(view.prepared))
        window, side = view.prepared.window, network.cloud_px
        pixels = np.stack([
            (columns + 0.5) * window.side_px / side + window.x_px,
            (rows + 0.5) * window.side_px / side + window.y_px, np.ones(len(rows)),
        ], axis=1)  # fmt: skip
        across = np.linalg.lstsq(pixels, view.prepared.cloud[rows, columns, :2].astype(np.float64), rcond=None)[0]
        assert across[:2] == pytest.approx(np.eye(2), abs=0.02)


def test_cells_lead_back_to_the_same_place_of_the_part(network: Network):
    original = prepare(frame(), GEOMETRY, network)
    cells = network.grid
    height = lambda one: -one.cloud.reshape(cells, network.cloud_px // cells, cells, -1, 3)[..., 2]  # noqa: E731
    whole = (height(original) != 0).all(axis=(1, 3))
    before = height(original).mean(axis=(1, 3))
    for view in made(network):
        after = height(view.prepared)
        inside = (after != 0).all(axis=(1, 3))
        rows, columns = np.round(view.cells).astype(int).reshape(cells, cells, 2).clip(0, cells - 1).transpose(2, 0, 1)
        seen = inside & whole[rows, columns]
        assert seen.sum() > 5
        error = after.mean(axis=(1, 3))[seen] - before[rows, columns][seen]
        assert np.abs(error).mean() < 0.5  # a dome 1.5 mm high, over cells of 6 mm
        shift = view.cells.reshape(cells, cells, 2) - np.stack(np.meshgrid(*[np.arange(cells)] * 2, indexing="ij"), -1)
        assert np.abs(shift).max() < 0.5 + cells * math.sin(math.radians(module.TURN_DEG)) + 0.5
