"""Point cloud to groups, and group features to patches, on the CPU (lsfa 2.2 points 1-2, 2.3, 10.2 point 4).

All distances are direct differences in float64: expanding |a|^2 + |b|^2 - 2ab loses them (lsfa 2.3). Ties go to the
lowest index everywhere, so every engine can be held to the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from asperity.runtime.errors import EngineError
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Network

Points = NDArray[np.float64]
Indices = NDArray[np.int64]

INTERPOLATION_EPS_MM2 = 1e-2
"""The published 1e-8 m^2 that keeps an inverse squared distance finite."""

FILLED_MIN = 0.9
"""``valid_mean``: a patch with a smaller share of its cells filled is empty. A part's rim and the walls of its holes
give patches of few and mixed points that differ more from each other than a dent does from its surroundings; with them
the worst patch of every normal part lies on its rim, and no defect is worse. What a rim lacks is the silhouette's."""

NEIGHBOURS = 3
"""Centres that a point takes its feature from."""


@dataclass(frozen=True, slots=True)
class PointGroups:
    """The point encoder's inputs, and how its tokens become patches."""

    groups: FloatArray  # G x K x 3, relative to the centre / group_scale_mm
    centres: FloatArray  # G x 3, position / position_scale_mm
    to_patches: Any  # sparse CSR grid^2 x G: patch features = to_patches @ tokens
    nonempty: BoolArray  # grid x grid


def valid_points(cloud: FloatArray) -> tuple[Points, Indices]:
    """The points of an organised cloud P x P x 3 in row-major order: (N, 3) float64 and their flat pixel indices."""
    flat = cloud.reshape(-1, 3)
    pixels = np.flatnonzero((flat[:, 0] != 0) | (flat[:, 1] != 0) | (flat[:, 2] != 0))
    return flat[pixels].astype(np.float64), pixels


def farthest_points(points: Points, count: int) -> Indices:
    """Farthest point sampling: ``count`` indices into ``points`` (N, 3), the first one 0 (lsfa 2.2 point 1).

    Each next index is the point farthest from all chosen so far, ties to the lowest. With fewer distinct points than
    ``count`` every distance is 0 in the end, and index 0 is repeated. Raises EngineError when there is no point.
    """
    if len(points) == 0:
        raise EngineError("no points to sample; too few valid points should have been refused before")
    axes = np.ascontiguousarray(points.T)
    nearest = np.full(len(points), np.inf)
    difference = np.empty_like(axes)
    squared = np.empty(len(points))
    chosen = np.zeros(count, dtype=np.int64)
    for step in range(1, count):
        np.subtract(axes, axes[:, chosen[step - 1], None], out=difference)
        np.multiply(difference, difference, out=difference)
        np.add(difference[0], difference[1], out=squared)
        np.add(squared, difference[2], out=squared)
        np.minimum(nearest, squared, out=nearest)
        chosen[step] = nearest.argmax()
    return chosen


def nearest_neighbours(points: Points, queries: Points, k: int) -> tuple[Indices, Points]:
    """The ``k`` nearest of ``points`` (N, 3) for each of ``queries`` (M, 3), nearest first, ties to the lowest index.

    Returns (M, k) indices and (M, k) squared distances. With fewer than k points the list is repeated from its start.
    """
    available = min(k, len(points))
    # One more than needed is asked for: only where it ties with the last one needed can the tree have left out a
    # lower index, and there everything at that distance is looked at.
    asked = min(available + 1, len(points))
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    found = tree.query(queries, k=np.arange(1, asked + 1))[1].astype(np.int64)
    squared = _squared(points[found] - queries[:, None])
    order = np.lexsort((found, squared))
    found = np.take_along_axis(found, order, axis=1)
    squared = np.take_along_axis(squared, order, axis=1)
    if asked > available:
        limit = squared[:, available - 1] * (1 + 1e-12)
        for row in np.flatnonzero(squared[:, -1] <= limit):
            everything = _squared(points - queries[row])
            near = np.flatnonzero(everything <= limit[row])
            best = near[np.lexsort((near, everything[near]))[:available]]
            found[row, :available], squared[row, :available] = best, everything[best]
    cycle = np.arange(k) % available
    return found[:, cycle], squared[:, cycle]


def interpolation_weights(points: Points, centres: Points) -> tuple[Indices, Points]:
    """For each point its 3 nearest centres and their weights, inverse squared distance, summing to 1 (lsfa 2.3).

    ``points`` (N, 3) and ``centres`` (G, 3) in mm; returns (N, 3) indices and (N, 3) weights.
    """
    index, squared = nearest_neighbours(centres, points, min(NEIGHBOURS, len(centres)))
    weights = 1.0 / (squared + INTERPOLATION_EPS_MM2)
    return index, weights / weights.sum(axis=1, keepdims=True)


def patch_map(
    points: Points,
    pixels: Indices,
    centres: Points,
    cloud_px: int,
    grid: int,
    pooling: Literal["published", "valid_mean"],
) -> tuple[Any, BoolArray]:
    """Interpolation, scatter and pooling as one sparse map grid^2 x G (lsfa 10.2 point 4), and the non-empty patches.

    ``published``: 3x3 mean without padding, then adaptive mean to the grid, zeros of empty pixels included; a patch is
    non-empty when any point lies under its window. ``valid_mean``: mean over the patch's own valid points, where at
    least ``FILLED_MIN`` of its cells hold one.
    """
    index, weights = interpolation_weights(points, centres)
    rows = np.repeat(np.arange(len(points)), index.shape[1])
    by_point = sparse.csr_matrix((weights.ravel(), (rows, index.ravel())), shape=(len(points), len(centres)))
    pooled = _pooling(cloud_px, grid, pooling)[:, pixels]
    if pooling == "valid_mean":
        counts = np.asarray(pooled.sum(axis=1)).ravel()
        filled = counts >= FILLED_MIN * _cells(cloud_px, grid)
        pooled = sparse.diags(np.where(filled, 1.0 / np.maximum(counts, 1.0), 0.0)) @ pooled
        pooled.eliminate_zeros()
    nonempty = np.diff(pooled.tocsr().indptr) > 0
    return (pooled @ by_point).tocsr(), nonempty.reshape(grid, grid)


def filled_patches(cloud: FloatArray, network: Network) -> BoolArray:
    """The non-empty patches (grid x grid) as ``group`` finds them, where nothing else of it is needed."""
    pixels = np.flatnonzero((cloud.reshape(-1, 3) != 0).any(axis=1))
    counts = np.asarray(_pooling(network.cloud_px, network.grid, network.pooling)[:, pixels].sum(axis=1)).ravel()
    least = FILLED_MIN * _cells(network.cloud_px, network.grid) if network.pooling == "valid_mean" else 0.0
    nonempty: BoolArray = (counts > 0) & (counts >= least)
    return nonempty.reshape(network.grid, network.grid)


def group(cloud: FloatArray, network: Network) -> PointGroups:
    """An organised cloud (cloud_px x cloud_px x 3, mm, (0, 0, 0) where empty) as the point encoder's inputs."""
    points, pixels = valid_points(cloud)
    centres = points[farthest_points(points, network.groups)]
    members, _ = nearest_neighbours(points, centres, network.group_size)
    relative = (points[members] - centres[:, None]) / network.group_scale_mm
    origin = points.mean(axis=0) if network.centre_positions else np.zeros(3)
    to_patches, nonempty = patch_map(points, pixels, centres, network.cloud_px, network.grid, network.pooling)
    return PointGroups(
        groups=relative.astype(np.float32),
        centres=((centres - origin) / network.position_scale_mm).astype(np.float32),
        to_patches=to_patches.astype(np.float32),
        nonempty=nonempty,
    )


def _squared(difference: Points) -> Points:
    """Sum of squares over the last axis of x, y, z, always in that order, so that equal points tie exactly."""
    x, y, z = difference[..., 0], difference[..., 1], difference[..., 2]
    squared: Points = x * x + y * y + z * z
    return squared


@lru_cache(maxsize=8)
def _cells(cloud_px: int, grid: int) -> Any:
    """How many of the cloud's cells each patch (grid^2) has."""
    return np.asarray(_pooling(cloud_px, grid, "valid_mean").sum(axis=1)).ravel()


@lru_cache(maxsize=8)
def _pooling(cloud_px: int, grid: int, pooling: str) -> Any:
    """Pixels to patches, grid^2 x cloud_px^2 CSC: the published pooling's weights, or 1 where a pixel is in a patch."""
    axis = np.zeros((grid, cloud_px))
    if pooling == "published":
        averaged = cloud_px - 2
        for cell in range(grid):
            start, stop = cell * averaged // grid, -((cell + 1) * averaged // -grid)
            for pixel in range(start, stop):
                axis[cell, pixel : pixel + 3] += 1.0 / (3 * (stop - start))
    elif pooling == "valid_mean":
        axis[np.arange(cloud_px) * grid // cloud_px, np.arange(cloud_px)] = 1.0
    else:
        raise EngineError(f"network.pooling {pooling!r} is not known; calibrate again with this version")
    return sparse.kron(axis, axis, format="csc")
