"""Point features that need no weights: the baseline for a trained encoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asperity.calibration.pretraining.clouds import CLOUD_PX
from asperity.calibration.pretraining.probe import ProbeFrame
from asperity.runtime.cameras.virtual.open3d_scene import load_open3d
from asperity.runtime.frame import FloatArray
from asperity.runtime.vision.points import valid_points

NORMAL_RADIUS, NORMAL_POINTS = 2.0, 30
FEATURE_RADIUS, FEATURE_POINTS = 5.0, 100
"""Cells. The proportions of BTF (lsfa 8): normals from 2 voxels, features from 5."""


def fpfh_features(frame: ProbeFrame) -> FloatArray:
    """Fast point feature histograms (Rusu 2009, Open3D's), meaned over each patch's points: (grid^2, 33).

    Raises CameraError where open3d does not load.
    """
    o3d = load_open3d()
    points, pixels = valid_points(frame.cloud)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(NORMAL_RADIUS, NORMAL_POINTS))
    cloud.orient_normals_towards_camera_location(np.zeros(3))
    search = o3d.geometry.KDTreeSearchParamHybrid(FEATURE_RADIUS, FEATURE_POINTS)
    histograms = o3d.pipelines.registration.compute_fpfh_feature(cloud, search).data
    return _patch_means(np.asarray(histograms).T, pixels, frame.label.shape[0])


def _patch_means(values: FloatArray, pixels: NDArray[np.int64], grid: int) -> FloatArray:
    """(N, C) at flat pixels of the cloud -> (grid^2, C): mean of each patch, 0 where it has no point."""
    cells = CLOUD_PX // grid
    row, column = pixels // CLOUD_PX // cells, pixels % CLOUD_PX // cells
    patch = row * grid + column
    total = np.zeros((grid * grid, values.shape[1]))
    np.add.at(total, patch, values)
    counts = np.bincount(patch, minlength=grid * grid)
    return (total / np.maximum(counts, 1)[:, None]).astype(np.float32)
