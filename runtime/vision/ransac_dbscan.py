"""The published per-frame cleaning (lsfa 1.2): RANSAC plane of the border, its removal, DBSCAN, the largest label.

Results equal those of the reference's library; slow, kept for comparison with published numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from asperity.runtime.errors import FrameRefused
from asperity.runtime.frame import BoolArray, FloatArray
from asperity.runtime.manifest import Plane
from asperity.runtime.reasons import Reason

BORDER_PX = 10
"""Width of the frame's border that shows background (lsfa 1.2 step 1)."""

RANSAC_DISTANCE_MM = 4.0
RANSAC_SAMPLE = 50
RANSAC_ROUNDS = 1000
PLANE_CUT_MM = 5.0
CLUSTER_EPS_MM = 6.0
CLUSTER_MIN_POINTS = 30
NOISE = -1

_SEED = 0
_RANSAC_BLOCK = 100

Points = NDArray[np.float64]
Labels = NDArray[np.int64]


def published_foreground(points: FloatArray, valid: BoolArray) -> BoolArray:
    """The part's points (H x W) of one frame by lsfa 1.2 steps 1, 2 and 4.

    ``points`` H x W x 3 mm. Raises FrameRefused REFUSED_DATA when the border has too few points for a plane.
    """
    # A published point has all three coordinates different from 0.
    valid = valid & (points != 0).all(axis=2)
    edge = np.concatenate([points[strip][valid[strip]] for strip in border_strips()]).astype(np.float64)
    plane = ransac_plane(edge, RANSAC_DISTANCE_MM, RANSAC_SAMPLE, RANSAC_ROUNDS)
    heights = points.astype(np.float64) @ np.asarray(plane.normal) + plane.offset_mm
    foreground: BoolArray = valid & ~(np.abs(heights) < PLANE_CUT_MM)
    labels = dbscan(points[foreground].astype(np.float64), CLUSTER_EPS_MM, CLUSTER_MIN_POINTS)
    if labels.size:
        names, counts = np.unique(labels, return_counts=True)
        foreground[foreground] = labels == names[counts.argmax()]
    return foreground


def border_strips() -> list[tuple[slice, slice]]:
    """The frame's outermost 10 pixels on all four sides as four index pairs that do not overlap."""
    whole, inner = slice(None), slice(BORDER_PX, -BORDER_PX)
    first, last = slice(None, BORDER_PX), slice(-BORDER_PX, None)
    return [(first, whole), (last, whole), (inner, first), (inner, last)]


def ransac_plane(points: Points, distance_mm: float, sample: int, rounds: int, seed: int = _SEED) -> Plane:
    """The plane with most points (N, 3) within ``distance_mm``, then refitted to them; normal towards the origin.

    Every round fits a plane to ``sample`` random points; ties go to the smaller residual. Deterministic for a seed.
    Raises FrameRefused REFUSED_DATA with fewer than ``sample`` points.
    """
    if len(points) < sample:
        raise FrameRefused(
            Reason.REFUSED_DATA,
            f"{len(points)} valid points in the frame's border are too few for a plane of {sample}; "
            "leave background in view, or calibrate with method none",
        )
    random = np.random.default_rng(seed)
    best, best_count, best_residual = None, -1, np.inf
    for _ in range(0, rounds, _RANSAC_BLOCK):
        picks = random.integers(0, len(points), size=(min(_RANSAC_BLOCK, rounds), sample))
        normals, centres = _fit(points[picks])
        distances = np.abs(points @ normals.T - np.einsum("pd,pd->p", normals, centres))
        inliers = distances < distance_mm
        counts = inliers.sum(axis=0)
        top = int(counts.max())
        for round_ in np.flatnonzero(counts == top):
            residual = float((distances[inliers[:, round_], round_] ** 2).sum())
            if (top, -residual) > (best_count, -best_residual):
                best, best_count, best_residual = inliers[:, round_].copy(), top, residual
    return fit_plane(points[best]) if best_count >= 3 else fit_plane(points)


def fit_plane(points: Points) -> Plane:
    """Least-squares plane of (N, 3) points in mm, N >= 3; the unit normal points to the camera (the origin's side)."""
    normals, centres = _fit(points[None])
    normal, offset = normals[0], -float(normals[0] @ centres[0])
    if offset < 0:
        normal, offset = -normal, -offset
    return Plane((float(normal[0]), float(normal[1]), float(normal[2])), offset)


def dbscan(points: Points, eps: float, min_points: int) -> Labels:
    """DBSCAN labels (N,) of (N, 3) points, -1 for noise; clusters are numbered by their first core point.

    A core point has at least ``min_points`` neighbours within ``eps``, itself included. A border point within reach of
    several clusters gets the lowest label. Exact, by cells of eps/sqrt(3), within which all points are neighbours.
    """
    labels = np.full(len(points), NOISE, dtype=np.int64)
    if len(points) == 0:
        return labels
    tree = cKDTree(points)
    cells = np.floor((points - points.min(axis=0)) / (eps / np.sqrt(3) * (1 - 1e-9))).astype(np.int64)
    _, cell, size = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    cell = cell.ravel()
    core = size[cell] >= min_points
    sparse_points = np.flatnonzero(~core)
    core[sparse_points] = tree.query_ball_point(points[sparse_points], eps, return_length=True) >= min_points
    cores = np.flatnonzero(core)
    if cores.size == 0:
        return labels
    cluster = _core_clusters(points[cores], cell[cores], eps)
    # Clusters are found in the order of their first core point.
    first = np.full(int(cluster.max()) + 1, len(points), dtype=np.int64)
    np.minimum.at(first, cluster, cores)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    labels[cores] = rank[cluster]
    others = np.flatnonzero(~core)
    for point, near in zip(others, cKDTree(points[cores]).query_ball_point(points[others], eps), strict=True):
        if near:
            labels[point] = labels[cores[near]].min()
    return labels


def _fit(samples: Points) -> tuple[Points, Points]:
    """Unit normals and centres (B, 3) of B sets of points (B, N, 3)."""
    centres = samples.mean(axis=1)
    relative = samples - centres[:, None]
    _, vectors = np.linalg.eigh(np.einsum("bni,bnj->bij", relative, relative))
    return vectors[:, :, 0], centres


def _core_clusters(points: Points, cell: Labels, eps: float) -> Labels:
    """Component of each core point, where points within ``eps`` are linked; points of one cell always are."""
    _, cell = np.unique(cell, return_inverse=True)
    count = int(cell.max()) + 1
    order = np.argsort(cell, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(cell, minlength=count))[:-1])
    # One point of each cell links most cells at once; only pairs that still lie in different components are searched.
    first = points[[own[0] for own in members]]
    linked = cKDTree(first).query_pairs(eps, output_type="ndarray")
    component = _components(linked, count)
    near = cKDTree(first).query_pairs(3 * eps, output_type="ndarray")
    links = [linked]
    for one, other in near[component[near[:, 0]] != component[near[:, 1]]]:
        if cdist(points[members[one]], points[members[other]]).min() <= eps:
            links.append(np.array([[one, other]]))
    return _components(np.concatenate(links), count)[cell]


def _components(links: Labels, count: int) -> Labels:
    graph = sparse.coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    labels: Labels = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels
