"""Frames that real cameras' programs wrote. They are fetched, and no copy of them is kept in the repository.

A machine without network: ``ASPERITY_RECORDINGS`` names a folder with the files at their paths in the repositories.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.cameras.files.folders import list_samples, one_sample
from asperity.runtime.cameras.files.read import ExposureFiles, read_exposure
from asperity.runtime.cameras.files.samples import read_sample
from asperity.runtime.errors import DataError
from asperity.runtime.frame import Intrinsics
from asperity.runtime.vision.units import infer_unit, median_depth, points_mm

pytestmark = pytest.mark.foreign
PCL = "PointCloudLibrary/data/5c26bdd0591ba150b91858b5c9fe5e91cb39ae86/segmentation/mOSD"
GQCNN = "BerkeleyAutomation/gqcnn/499a609fe9dfb074bdfb6c4e6e33667ea50f4c21/data"
DIGESTS = {
    f"{PCL}/learn/learn0.pcd": "e103378b01afaa96bc6f40760074e578f9f65da0c1f8db2b8e078cfa880e0f51",
    f"{PCL}/test/test43.pcd": "cd2f7ec36d2c003ffafbed9fc741b0bfa4744b7c5863fc8ba3fd0b585d012c31",
    f"{GQCNN}/examples/clutter/phoxi/dex-net_4.0/color_0.png": (
        "104b1f58f5c7a4803315dbbdceff8fd8bb40c3af518bd974be3881f09e70a0bc"
    ),
    f"{GQCNN}/examples/clutter/phoxi/dex-net_4.0/depth_0.npy": (
        "1ec552937965636871fd9e9e600d26df56a7ceb4de827d7a6de7ae0b2e56b7ab"
    ),
    f"{GQCNN}/calib/phoxi/phoxi.intr": "f42a3a03899685889e8a17be58522780a085d4fdbfac47150e7ac687c05ee045",
}
MOST_BYTES = 8 * 2**20


def fetched(folder: Path, name: str) -> Path:
    path = folder / Path(name).name
    local = os.environ.get("ASPERITY_RECORDINGS")
    try:
        if local:
            owner, repository, _, *below = name.split("/")
            content = Path(local, owner, repository, *below).read_bytes()
        else:
            with urllib.request.urlopen(f"https://raw.githubusercontent.com/{name}", timeout=30) as reply:
                content = reply.read(MOST_BYTES)
    except (urllib.error.URLError, TimeoutError, FileNotFoundError) as error:
        pytest.skip(f"{name} cannot be fetched here: {error}")
    assert hashlib.sha256(content).hexdigest() == DIGESTS[name]
    path.write_bytes(content)
    return path


def test_a_kinect_cloud_of_pcl(tmp_path: Path) -> None:
    """640 x 480, compressed; its pixels lie on the rays of a Kinect, so that rows and columns are in their places."""
    fetched(tmp_path, f"{PCL}/learn/learn0.pcd")
    (sample,) = list_samples(tmp_path)
    frame = read_sample(sample)
    assert frame.shape_px == (480, 640) and infer_unit(median_depth(frame)) == "m"
    points, valid = points_mm(frame, "m")
    assert 0.5 < valid.mean() < 0.7
    rows, columns = np.nonzero(valid)
    for axis, pixels in ((0, columns), (1, rows)):
        rays = points[valid][:, axis] / points[valid][:, 2]
        slope, start = np.polyfit(pixels, rays, 1)
        assert abs(1 / slope) == pytest.approx(525, rel=0.01)
        assert np.abs(rays - slope * pixels - start).max() < 0.1 * slope
    red, _, blue = frame.rgb.mean(axis=(0, 1))
    assert red > blue + 10  # a table of light wood


def test_a_cloud_of_pcl_without_its_grid(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not organised: 170986 points in one row"):
        read_exposure(ExposureFiles(fetched(tmp_path, f"{PCL}/test/test43.pcd")))


def test_a_frame_of_photoneo(tmp_path: Path) -> None:
    """Depth of half the colour's size, next to the lens that the robot's program keeps."""
    for name in DIGESTS:
        if name.startswith(GQCNN):
            fetched(tmp_path, name)
    sample = one_sample(tmp_path / "color_0.png")
    assert [sample] == list_samples(tmp_path) and sample.name == "0"
    frame = read_sample(sample)
    assert frame.shape_px == (386, 516) and frame.xyz is None
    assert frame.intrinsics == Intrinsics(552.5, 552.5, 255.5, 191.75)
    assert infer_unit(median_depth(frame)) == "m" and 0.6 < points_mm(frame, "m")[1].mean() < 0.75
