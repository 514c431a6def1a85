"""Sampling, grouping, interpolation and pooling against plain float64 loops (lsfa 2.2, 2.3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asperity.runtime.errors import EngineError
from asperity.runtime.vision.points import (
    FILLED_MIN,
    INTERPOLATION_EPS_MM2,
    farthest_points,
    group,
    interpolation_weights,
    nearest_neighbours,
    patch_map,
    valid_points,
)
from tests.synthetic_station import small_network

LATTICE = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(0, 3).map(float))


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a[:, None] - b[None]) ** 2).sum(axis=2)


def sampled(points: np.ndarray, count: int) -> list[int]:
    """Oracle: the definition of farthest point sampling; ``argmax`` takes the lowest index of equal ones."""
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(squared(points, points[chosen]).min(axis=1).argmax()))
    return chosen


def cloud_of(seed: int, size: int, share: float = 0.5) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    cloud = np.stack([columns, rows, 400 + 5 * np.sin(rows / 5) + random.normal(0, 0.1, rows.shape)], axis=2)
    cloud[random.random((size, size)) > share] = 0.0
    return cloud.astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(points=LATTICE, count=st.integers(1, 40))
def test_farthest_points_follow_the_definition_with_ties(points: np.ndarray, count: int) -> None:
    """On a lattice many points are equally far; with fewer distinct points than asked for, index 0 repeats."""
    assert farthest_points(points, count).tolist() == sampled(points, count)


def test_farthest_points_of_a_real_cloud() -> None:
    """Thousands of points, no ties."""
    points, _ = valid_points(cloud_of(0, 48))
    assert farthest_points(points, 100).tolist() == sampled(points, 100)


def test_sampling_nothing_is_an_error() -> None:
    """A frame without points must have been refused long before."""
    with pytest.raises(EngineError, match="no points"):
        farthest_points(np.zeros((0, 3)), 4)


@settings(max_examples=100, deadline=None)
@given(points=LATTICE, queries=LATTICE, k=st.integers(1, 12))
def test_neighbours_are_exact_with_ties_to_the_lowest_index(points: np.ndarray, queries: np.ndarray, k: int) -> None:
    """With fewer points than k the list starts over."""
    index, distances = nearest_neighbours(points, queries, k)
    for row, query in enumerate(queries):
        everything = ((points - query) ** 2).sum(axis=1)
        best = np.lexsort((np.arange(len(points)), everything))[:k]
        expected = best[np.arange(k) % len(best)]
        np.testing.assert_array_equal(index[row], expected)
        np.testing.assert_allclose(distances[row], everything[expected], rtol=1e-12)


def test_weights_are_inverse_squared_distances_with_the_published_eps() -> None:
    """Against section 2.3 written out in metres."""
    random = np.random.default_rng(4)
    points, centres = random.uniform(-40, 40, (200, 3)), random.uniform(-40, 40, (17, 3))
    index, weights = interpolation_weights(points, centres)
    metres = squared(points / 1000, centres / 1000)
    nearest = np.argsort(metres, axis=1)[:, :3]
    inverse = 1 / (np.take_along_axis(metres, nearest, axis=1) + 1e-8)
    np.testing.assert_array_equal(index, nearest)
    np.testing.assert_allclose(weights, inverse / inverse.sum(axis=1, keepdims=True), rtol=1e-9)
    wrong = 1 / np.take_along_axis(np.sqrt(metres), nearest, axis=1)
    assert not np.allclose(weights, wrong / wrong.sum(axis=1, keepdims=True), rtol=1e-2)
    assert pytest.approx(1e-8 * 1000**2) == INTERPOLATION_EPS_MM2


def adaptive_mean(image: np.ndarray, size: int) -> np.ndarray:
    """Oracle: AdaptiveAvgPool2d by its definition."""
    side = image.shape[0]
    edges = [(cell * side // size, -(-((cell + 1) * side) // size)) for cell in range(size)]
    return np.array([[image[a:b, c:d].mean(axis=(0, 1)) for c, d in edges] for a, b in edges])


def dense_chain(points: np.ndarray, pixels: np.ndarray, centres: np.ndarray, tokens: np.ndarray, size: int, grid: int):
    """Oracle: interpolate every point, scatter to a canvas, 3x3 mean without padding, adaptive mean."""
    index, weights = interpolation_weights(points, centres)
    canvas = np.zeros((size * size, tokens.shape[1]))
    canvas[pixels] = (weights[:, :, None] * tokens[index]).sum(axis=1)
    canvas = canvas.reshape(size, size, -1)
    mean = sum(canvas[a : a + size - 2, b : b + size - 2] for a in range(3) for b in range(3)) / 9
    return canvas, adaptive_mean(mean, grid)


@pytest.mark.parametrize(("size", "grid"), [(28, 7), (30, 7), (32, 8)])
def test_published_pooling_is_the_dense_chain(size: int, grid: int) -> None:
    """One sparse map equals scatter, 3x3 mean and adaptive mean; zeros of empty pixels count."""
    points, pixels = valid_points(cloud_of(5, size))
    centres = points[farthest_points(points, 20)]
    tokens = np.random.default_rng(6).normal(size=(20, 4))
    mapping, nonempty = patch_map(points, pixels, centres, size, grid, "published")
    _, expected = dense_chain(points, pixels, centres, tokens, size, grid)
    np.testing.assert_allclose((mapping @ tokens).reshape(grid, grid, -1), expected, atol=1e-12)
    np.testing.assert_array_equal(nonempty, (expected != 0).all(axis=2))


def test_valid_mean_pooling_averages_each_patch_own_points() -> None:
    """And differs from the published one, which dilutes by empty pixels."""
    size, grid, cell = 28, 7, 4
    cloud = cloud_of(7, size, share=0.93)
    cloud[:8, :8] = 0.0
    points, pixels = valid_points(cloud)
    centres = points[farthest_points(points, 12)]
    tokens = np.random.default_rng(8).normal(size=(12, 4))
    mapping, nonempty = patch_map(points, pixels, centres, size, grid, "valid_mean")
    assert 5 < nonempty.sum() < 40, "both kinds of patches are there"
    canvas, published = dense_chain(points, pixels, centres, tokens, size, grid)
    present = np.isin(np.arange(size * size), pixels).reshape(size, size)
    for row in range(grid):
        for column in range(grid):
            cut = np.s_[row * cell : row * cell + cell, column * cell : column * cell + cell]
            filled = present[cut].mean() >= FILLED_MIN
            assert nonempty[row, column] == filled
            expected = canvas[cut][present[cut]].mean(axis=0) if filled else np.zeros(4)
            np.testing.assert_allclose((mapping @ tokens).reshape(grid, grid, -1)[row, column], expected, atol=1e-12)
    assert not nonempty[:2, :2].any()
    assert not np.allclose((mapping @ tokens).reshape(grid, grid, -1), published)


def test_unknown_pooling_is_an_error() -> None:
    """A manifest of a later version."""
    points, pixels = valid_points(cloud_of(0, 28))
    with pytest.raises(EngineError, match="pooling"):
        patch_map(points, pixels, points[:4], 28, 7, "median")  # type: ignore[arg-type]


def test_groups_are_relative_to_their_centres_and_scaled() -> None:
    """Inputs of the point encoder by their definition, with and without centred positions."""
    cloud = cloud_of(9, 28)
    points, _ = valid_points(cloud)
    network = small_network()
    grouped = group(cloud, network)
    centres = points[farthest_points(points, network.groups)]
    index, _ = nearest_neighbours(points, centres, network.group_size)
    np.testing.assert_allclose(grouped.groups, (points[index] - centres[:, None]) / 10.0, atol=1e-6)
    np.testing.assert_allclose(grouped.centres, (centres - points.mean(axis=0)) / 50.0, atol=1e-6)
    raw = group(cloud, small_network(centre_positions=False)).centres
    np.testing.assert_allclose(raw, centres / 50.0, rtol=1e-6)
    assert grouped.groups.dtype == grouped.centres.dtype == np.float32


@pytest.mark.parametrize("count", [1, 2, 5])
def test_degenerate_clouds_still_give_full_shapes(count: int) -> None:
    """Fewer points than groups and neighbours: points repeat, weights still sum to 1, nothing is NaN."""
    cloud = np.zeros((28, 28, 3), np.float32)
    cloud.reshape(-1, 3)[np.arange(count) * 31 + 5] = np.random.default_rng(1).uniform(100, 200, (count, 3))
    network = small_network()
    grouped = group(cloud, network)
    assert grouped.groups.shape == (16, 8, 3)
    assert np.isfinite(grouped.groups).all() and np.isfinite(grouped.centres).all()
    sums = np.asarray(grouped.to_patches.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums, grouped.nonempty.ravel().astype(float), atol=1e-6)


def test_all_points_equal() -> None:
    """Every distance is 0: the eps keeps weights finite."""
    cloud = np.zeros((28, 28, 3), np.float32)
    cloud[4:8, 4:8] = (1.0, 2.0, 300.0)
    grouped = group(cloud, small_network())
    np.testing.assert_array_equal(grouped.groups, 0.0)
    np.testing.assert_allclose(np.asarray(grouped.to_patches.sum(axis=1)).ravel(), grouped.nonempty.ravel())
    assert grouped.nonempty.sum() == 1
