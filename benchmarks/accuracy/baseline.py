"""The baseline that every method here must beat: EfficientNet and Open3D's FPFH, all rows of all frames, cosine.

Nothing is trained, chosen or left out: colour tokens at strides 8 and 16, FPFH of every point at the camera's
resolution meaned over the same patches; a patch's distance is 1 - cosine to its nearest row of any frame, standardised
by frames the bank has not seen; modalities are added, and a frame's score is the mean of the top 1 % of its map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asperity.benchmarks.accuracy.rival import Seen
from asperity.calibration.networks.torch_networks import build
from asperity.calibration.profiles import profile
from asperity.runtime.cameras.virtual.open3d_scene import load_open3d
from asperity.runtime.frame import FloatArray
from asperity.runtime.manifest import Network
from asperity.runtime.vision.features import normalised_image
from asperity.runtime.vision.maps import pixel_map

NORMALS_PX, FEATURES_PX = 3.0, 7.5
"""Radii of Open3D's normals and histograms, in the camera's pixels on the part: 2 : 5, as BTF's."""
TOP = 0.01
FEW = 0.5
"""Of a whole patch's points: at the part's edge histograms of fewer are the strangest of all, on good parts as well."""
STRIDES_8_AND_16: dict[str, Any] = {"rgb_taps": (4, 10), "rgb_channels": 152}
"""Of EfficientNet-Lite0; what profile ``lite`` takes is its own matter."""


class ColourAndFpfh:
    """See above."""

    def __init__(self, network: Network, mm_per_px: float, seed: int) -> None:
        self.network, self.mm_per_px = network, mm_per_px
        self.networks = build(replace(profile("lite"), **STRIDES_8_AND_16))

    def fit(self, frames: Sequence[Seen], unseen: Sequence[Seen]) -> None:
        """``unseen``: further normal frames, whose distances say what is usual."""
        rows = [self._features(frame) for frame in frames]
        self.banks = [np.concatenate([row[kind] for row in rows]) for kind in (0, 1)]
        calm = [self._distances(frame) for frame in unseen]
        self.usual = [(np.mean(d), np.std(d)) for d in (np.concatenate([one[k] for one in calm]) for k in (0, 1))]

    def judge(self, frame: Seen) -> tuple[float, FloatArray]:
        """Score and map (224 x 224, of the window)."""
        z = sum((d - mean) / spread for d, (mean, spread) in zip(self._distances(frame), self.usual, strict=True))
        patches = np.full(frame.cells.shape, np.min(z), np.float32)
        patches[frame.cells] = z
        pixels = pixel_map(patches)
        inside = np.sort(pixels[pixel_map(frame.cells.astype(np.float32)) > 0.5])
        return float(inside[-max(1, round(TOP * inside.size)) :].mean()), pixels

    def _distances(self, frame: Seen) -> list[FloatArray]:
        found = zip(self._features(frame), self.banks, strict=True)
        return [np.where(f.any(axis=1), 1 - (f @ bank.T).max(axis=1), 0) for f, bank in found]

    def _features(self, frame: Seen) -> list[FloatArray]:
        """Unit rows of the part's patches, colour and FPFH; zero, and never strange, at the part's edge."""
        o3d, mm = load_open3d(), self.mm_per_px
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(frame.points.astype(np.float64)))
        cloud.estimate_normals(o3d.geometry.KDTreeSearchParamHybrid(NORMALS_PX * mm, 30))
        cloud.orient_normals_towards_camera_location(np.zeros(3))
        search = o3d.geometry.KDTreeSearchParamHybrid(FEATURES_PX * mm, 100)
        histograms = np.asarray(o3d.pipelines.registration.compute_fpfh_feature(cloud, search).data)
        sums = [np.bincount(frame.cell_of, row, frame.cells.size) for row in np.nan_to_num(histograms)]
        colour = self.networks.rgb(normalised_image(frame.prepared, self.network))
        found = np.split(np.hstack([colour, np.stack(sums, axis=-1)])[frame.cells.ravel()], [colour.shape[1]], axis=1)
        counts = np.bincount(frame.cell_of, minlength=frame.cells.size)[frame.cells.ravel()]
        few = counts < FEW * np.quantile(counts, 0.9)
        found = [np.where(few[:, None], 0, f) for f in found]
        norms = [np.linalg.norm(f, axis=1, keepdims=True) for f in found]
        return [np.asarray(f / np.where(n > 0, n, 1), np.float32) for f, n in zip(found, norms, strict=True)]
