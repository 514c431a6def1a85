"""Frames that real cameras' programs wrote. They are fetched, and no copy of them is kept in the repository.

A machine without network: ``ASPERITY_RECORDINGS`` names a folder with the files at their paths in the repositories.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from asperity.export.cli import register
from asperity.runtime.cameras.files.folders import list_samples, one_sample
from asperity.runtime.cameras.files.read import ExposureFiles, read_exposure
from asperity.runtime.cameras.files.samples import read_sample
from asperity.runtime.commands.score import command as score
from asperity.runtime.errors import CalibrationError, DataError
from asperity.runtime.frame import Intrinsics
from asperity.runtime.vision.units import infer_unit, median_depth, points_mm
from tests.command_line import commands_of
from tests.conftest import LiteBundle

pytestmark = pytest.mark.foreign
PCL = "PointCloudLibrary/data/5c26bdd0591ba150b91858b5c9fe5e91cb39ae86/segmentation/mOSD"
GQCNN = "BerkeleyAutomation/gqcnn/499a609fe9dfb074bdfb6c4e6e33667ea50f4c21/data"
DIGESTS = {
    f"{PCL}/learn/learn0.pcd": "e103378b01afaa96bc6f40760074e578f9f65da0c1f8db2b8e078cfa880e0f51",
    f"{PCL}/learn/learn1.pcd": "06d66e51160967205b4098b759676ce94d825260337c60456ee2e801b2b9f483",
    f"{PCL}/learn/learn2.pcd": "3b78d9fc340e91128484a2e547dd4a73d38254d31e53871142d1be9eb1f2cc9b",
    f"{PCL}/learn/learn3.pcd": "698c80f4a2e16322c03d1d4962007148b8e4663d8b57be363f423a6cd5edb65a",
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


def calibrated(source: Path, lite: LiteBundle) -> None:
    """`asperity calibrate`. Raises what it raises."""
    words = ["calibrate", str(source), "-o", str(source.parent / "station"), "--keys", str(lite.trust.folder)]
    CliRunner().invoke(commands_of(register), words, catch_exceptions=False)


def scored(source: Path, lite: LiteBundle) -> list[dict[str, object]]:
    """`asperity score` with the bundle of a bracket. Raises what it raises."""
    app = typer.Typer()
    app.command()(score)
    words = [str(lite.path), str(source), "--keys", str(lite.trust.folder)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_clouds_of_a_kinect_through_calibrate_and_score(lite_bundle: LiteBundle, tmp_path: Path) -> None:
    """Several things on a table, seen from the side: no parts of one product, which is what is said of them."""
    (clouds := tmp_path / "clouds").mkdir()
    for number in range(4):
        fetched(clouds, f"{PCL}/learn/learn{number}.pcd")
    with pytest.raises(CalibrationError, match="above the border's plane"):
        calibrated(clouds, lite_bundle)
    lines = scored(clouds, lite_bundle)
    assert [line["name"] for line in lines] == [f"learn{number}" for number in range(4)]
    assert {(line["accept"], line["reason"]) for line in lines} == {(False, "REFUSED_DATA")}
    fetched(clouds, f"{PCL}/test/test43.pcd")
    for command in (calibrated, scored):
        with pytest.raises(DataError, match=r"test43.pcd is not organised: 170986 points in one row"):
            command(clouds, lite_bundle)


def test_what_a_d435_recorded_through_calibrate_and_score(lite_bundle: LiteBundle, tmp_path: Path) -> None:
    """Its one pair is of two exposures, which the source realsense refuses; here it is saved as a person would."""
    emulation = pytest.importorskip("tests.runtime.cameras.realsense.realsense_emulation")
    recording = Path(emulation.__file__).parent / "recordings" / "single_depth_color_640x480.bag"
    camera = emulation.Emulated((480, 640)).open(serial="", play=str(recording), fps=6)
    camera._pairing._apart_us = float("inf")
    shot = camera.shot(60_000)
    camera.close()
    frame, folder = shot.frame, tmp_path / "d435"
    for half, picture in (("rgb", frame.rgb), ("depth", frame.depth)):
        (folder / half).mkdir(parents=True)
        Image.fromarray(picture).save(folder / half / "0.png")
    lens = frame.intrinsics
    (folder / "intrinsics.json").write_text(json.dumps(
        {"fx": lens.fx, "fy": lens.fy, "cx": lens.cx, "cy": lens.cy, "unit": "mm", "width": 640, "height": 480}
    ))  # fmt: skip
    (line,) = scored(folder, lite_bundle)
    assert (line["name"], line["accept"], line["reason"]) == ("0", False, "REFUSED_DATA")
    with pytest.raises(CalibrationError, match="seen from the side: let the camera look at the part from above"):
        calibrated(folder, lite_bundle)
