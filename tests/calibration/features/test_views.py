"""Views of a frame: light, exposure, turn, half a patch and noise change; the part does not."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.calibration.features import views as module
from asperity.calibration.features.views import VIEWS, make_views
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


def made(network: Network, seed: int = 0) -> list[Prepared]:
    return list(make_views(frame(), GEOMETRY, network, None, seed))


def filled(prepared: Prepared) -> np.ndarray:
    return (prepared.cloud != 0).any(axis=2)


def test_equal_seeds_give_equal_views_and_all_differ(network: Network):
    first, again, other = made(network), made(network), made(network, 1)
    assert len(first) == VIEWS
    for one, same, else_ in zip(first, again, other, strict=True):
        assert np.array_equal(one.cloud, same.cloud)
        assert np.array_equal(one.image, same.image)
        assert not np.array_equal(one.image, else_.image)
    assert len({one.image.tobytes() for one in first}) == VIEWS


def test_each_level_of_exposure_is_in_half_of_the_views(network: Network):
    original = prepare(frame(), GEOMETRY, network)
    usual = original.image[original.image.any(axis=2)].mean()
    brightness = [one.image[one.image.any(axis=2)].mean() / usual for one in made(network)]
    assert sum(one > 1.03 for one in brightness) == sum(one < 0.97 for one in brightness) == VIEWS // 2


def test_points_turn_with_the_picture(network: Network, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TURN_DEG", 20.0)
    for view in made(network):
        rows, columns = np.nonzero(filled(view))
        window, side = view.window, network.cloud_px
        pixels = np.stack([
            (columns + 0.5) * window.side_px / side + window.x_px,
            (rows + 0.5) * window.side_px / side + window.y_px, np.ones(len(rows)),
        ], axis=1)  # fmt: skip
        across = np.linalg.lstsq(pixels, view.cloud[rows, columns, :2].astype(np.float64), rcond=None)[0]
        assert across[:2] == pytest.approx(np.eye(2), abs=0.02)
