"""The published way to find the part: RANSAC on the border, then DBSCAN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asperity.runtime.errors import FrameRefused
from asperity.runtime.manifest import Plane
from asperity.runtime.vision.preprocess import find_part, prepare
from asperity.runtime.vision.ransac_dbscan import dbscan, fit_plane, published_foreground, ransac_plane
from tests.synthetic_station import heights_of, plane_geometry, shoot, small_network

NETWORK = small_network()


def test_published_method_finds_the_part_and_pads_the_whole_frame() -> None:
    """RANSAC on the border, 5 mm cut, DBSCAN, largest label; window as the published padding."""
    shot = shoot(missing=0.0)
    geometry = plane_geometry(shot, method="published", plane=None, side_px=200)
    found = find_part(shot.frame, geometry)
    np.testing.assert_array_equal(found.part, shot.part)
    window = prepare(shot.frame, geometry, NETWORK).window
    assert (window.x_px, window.y_px, window.side_px) == (-20, -40, 200)
    empty = replace(shot.frame, xyz=np.zeros_like(shot.frame.xyz))
    with pytest.raises(FrameRefused, match="border"):
        find_part(empty, geometry)


def test_ransac_finds_the_plane_among_outliers_where_least_squares_does_not() -> None:
    """A third of the points lies 40 mm above the table."""
    random = np.random.default_rng(0)
    flat = np.c_[random.uniform(-50, 50, (600, 2)), 500 + random.normal(0, 0.3, 600)]
    flat[:200, 2] -= 40 + flat[:200, 0]
    plane = ransac_plane(flat, 4.0, 8, 1000)
    assert plane.normal[2] == pytest.approx(-1, abs=1e-3) and plane.offset_mm == pytest.approx(500, abs=0.3)
    assert abs(fit_plane(flat).offset_mm - 500) > 5
    assert ransac_plane(flat, 4.0, 8, 1000) == plane


def test_fit_plane_points_to_the_camera() -> None:
    """Heights above the table are positive."""
    points = np.array([[0, 0, 500.0], [10, 0, 500], [0, 10, 500], [10, 10, 500]])
    plane = fit_plane(points)
    assert plane == Plane(plane.normal, plane.offset_mm)
    assert heights_of(np.array([0, 0, 490.0]), plane) == pytest.approx(10)


@pytest.mark.parametrize("seed", range(4))
def test_dbscan_equals_scikit_learn(seed: int) -> None:
    """Clusters, chains, border points in reach of two clusters, and noise."""
    cluster = pytest.importorskip("sklearn.cluster")
    random = np.random.default_rng(seed)
    blobs = [random.normal(centre, 2.5, (120, 3)) for centre in random.uniform(-25, 25, (5, 3))]
    chain = np.c_[np.linspace(-30, 30, 150), np.zeros((150, 2))] + random.normal(0, 0.5, (150, 3))
    points = random.permutation(np.concatenate([*blobs, chain, random.uniform(-40, 40, (150, 3))]))
    for eps, least in ((2.0, 6), (3.0, 12), (6.0, 30)):
        expected = cluster.DBSCAN(eps=eps, min_samples=least).fit_predict(points)
        np.testing.assert_array_equal(dbscan(points, eps, least), expected)
        assert len(np.unique(expected)) > 1
    assert dbscan(np.zeros((0, 3)), 1.0, 2).shape == (0,)


def test_noise_competes_like_any_other_label() -> None:
    """Scattered points can outnumber the cluster, and then they are what the published code keeps."""
    points = np.zeros((60, 60, 3), np.float32)
    valid = np.ones((60, 60), bool)
    rows, columns = np.mgrid[:60, :60]
    points[..., 0], points[..., 1], points[..., 2] = columns * 30.0 + 1, rows * 30.0 + 1, 2000.0
    points[20:40, 20:40, 2] = 1500.0
    points[20:26, 20:26] = (500.0, 500.0, 1400.0)
    kept = published_foreground(points, valid)
    assert kept.sum() == 400 - 36 and not kept[20:26, 20:26].any()
