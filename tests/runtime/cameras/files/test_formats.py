"""A frame is the same to the last bit, whichever format its files have."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from asperity.runtime.cameras.files.read import ExposureFiles, FileOptions, read_exposure
from asperity.runtime.cameras.virtual.open3d_scene import load_open3d
from asperity.runtime.errors import DataError
from asperity.runtime.frame import Frame, Intrinsics
from asperity.runtime.vision.units import points_in, points_mm
from tests.runtime.cameras.files import writers

SHAPE = (18, 7)
LENS = Intrinsics(20.0, 21.0, 3.0, 8.5)


def colour(shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)


def cloud(shape: tuple[int, int] = SHAPE) -> NDArray[np.float32]:
    xyz = np.random.default_rng(2).normal(0, 300, (*shape, 3)).astype(np.float32)
    xyz[0, 0], xyz[1, 2], xyz[2, 1] = np.nan, 0, np.inf
    return xyz


def depth() -> NDArray[np.uint16]:
    return np.random.default_rng(3).integers(0, 2**16, SHAPE, np.uint16)


def lens_file(folder: Path, **more: Any) -> Path:
    path = folder / "intrinsics.json"
    path.write_text(json.dumps({"fx": LENS.fx, "fy": LENS.fy, "cx": LENS.cx, "cy": LENS.cy, **more}))
    return path


@pytest.mark.parametrize("name", writers.CLOUDS)
def test_points_and_colour_are_those_that_were_written(tmp_path: Path, name: str) -> None:
    rgb, xyz = colour(), cloud()
    frame = read_exposure(writers.CLOUDS[name](tmp_path, rgb, xyz))
    assert frame.depth is None and frame.intrinsics is None and frame.unit is None
    np.testing.assert_array_equal(frame.rgb, rgb)
    np.testing.assert_array_equal(frame.xyz, xyz)
    assert frame.xyz is not None and frame.xyz.dtype == np.float32 and frame.xyz.flags.c_contiguous
    assert frame.rgb.flags.c_contiguous and frame.xyz.dtype.isnative


@pytest.mark.parametrize("name", writers.DEPTHS)
def test_depth_stays_depth_as_stored(tmp_path: Path, name: str) -> None:
    file, content = writers.DEPTHS[name](depth())
    files = writers.two(tmp_path, file, content, colour())
    options = FileOptions(intrinsics=lens_file(tmp_path, unit="m", scale=0.001, invalid=65535))
    frame = read_exposure(files, options)
    assert frame.xyz is None and frame.intrinsics == LENS
    assert (frame.unit, frame.scale, frame.invalid) == ("m", 0.001, 65535)
    np.testing.assert_array_equal(frame.depth, depth())
    assert frame.depth is not None and frame.depth.dtype in (np.uint16, np.float32) and frame.depth.dtype.isnative


def test_depth_and_its_lens_in_one_file(tmp_path: Path) -> None:
    matrix = np.array([[LENS.fx, 0, LENS.cx], [0, LENS.fy, LENS.cy], [0, 0, 1]])
    files = writers.one(tmp_path, "a.npz", writers.npz(depth=depth(), rgb=colour(), intrinsics=matrix))
    assert read_exposure(files).intrinsics == LENS
    with pytest.raises(DataError, match="say different things of the lens"):
        read_exposure(files, FileOptions(intrinsics=lens_file(tmp_path, cy=8.0)))


@given(data=st.data(), shape=st.tuples(st.integers(2, 5), st.integers(1, 5)), name=st.sampled_from([*writers.CLOUDS]))
@settings(max_examples=60, deadline=None)
def test_any_numbers_survive(data: st.DataObject, shape: tuple[int, int], name: str) -> None:
    xyz = data.draw(arrays(np.float32, (*shape, 3), elements=st.floats(width=32)))
    rgb = data.draw(arrays(np.uint8, (*shape, 3)))
    with TemporaryDirectory() as folder:
        frame = read_exposure(writers.CLOUDS[name](Path(folder), rgb, xyz))
    np.testing.assert_array_equal(frame.rgb, rgb)
    np.testing.assert_array_equal(frame.xyz, xyz)


def test_half_floats_and_grey_colour(tmp_path: Path) -> None:
    xyz = cloud().astype(np.float16)
    files = writers.two(tmp_path, "a.exr", writers.exr(writers.xyz_planes(xyz)), colour())
    np.testing.assert_array_equal(read_exposure(files).xyz, xyz)
    grey = colour()[..., 0]
    frame = read_exposure(writers.one(tmp_path, "a.npz", writers.npz(xyz=cloud(), rgb=grey)))
    np.testing.assert_array_equal(frame.rgb, np.repeat(grey[..., None], 3, axis=2))


def test_doubles_that_no_float_can_hold_are_missing(tmp_path: Path) -> None:
    xyz = cloud().astype(np.float64)
    xyz[3, 3] = 1e300
    frame = read_exposure(writers.one(tmp_path, "a.ply", writers.ply(colour(), xyz, kind="f8")))
    assert frame.xyz is not None and np.isposinf(frame.xyz[3, 3]).all()
    assert not points_mm(frame, "mm")[1][3, 3]


def test_colour_of_a_multiple_of_the_size_is_the_mean_of_each_area(tmp_path: Path) -> None:
    small = colour()
    large = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)
    large[0, 0, 0], small[0, 0, 0] = 0, 100
    large[0, 1, 0] = large[1, 0, 0] = 199
    large[1, 1, 0] = 0  # the mean is 99.5
    files = writers.two(tmp_path, "a.tiff", writers.tiff(depth()), large)
    options = FileOptions(intrinsics=lens_file(tmp_path, width=SHAPE[1], height=SHAPE[0]))
    np.testing.assert_array_equal(read_exposure(files, options).rgb, small)
    with pytest.raises(DataError, match="pixel-aligned"):
        read_exposure(files, FileOptions(intrinsics=options.intrinsics, resample=False))
    (tmp_path / "colour.png").write_bytes(writers.png(large[1:]))
    with pytest.raises(DataError, match=r"35 x 14 pixels but .* is 18 x 7"):
        read_exposure(files, options)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_colour_of_more_than_8_bits_needs_a_white_level(tmp_path: Path, suffix: str) -> None:
    stored = np.random.default_rng(5).integers(0, 4096, SHAPE, np.uint16)
    stored[0, :3] = 0, 4095, 60_000
    picture = tmp_path / f"c.{suffix}"
    picture.write_bytes(writers.png(stored) if suffix == "png" else writers.tiff(stored))
    (tmp_path / "a.npy").write_bytes(writers.npy(cloud()))
    files = ExposureFiles(tmp_path / "a.npy", picture)
    with pytest.raises(DataError, match="16 bits per channel"):
        read_exposure(files)
    frame = read_exposure(files, FileOptions(white_level=4095))
    exact = np.minimum(stored.astype(np.float64), 4095) / 4095 * 255
    assert np.abs(frame.rgb - exact[..., None]).max() <= 0.5 and list(frame.rgb[0, :3, 0]) == [0, 255, 255]
    (tmp_path / "intrinsics.json").write_text('{"white_level": 4095}')
    said = read_exposure(files, FileOptions(intrinsics=tmp_path / "intrinsics.json"))
    np.testing.assert_array_equal(said.rgb, frame.rgb)


def test_what_is_said_twice_must_agree(tmp_path: Path) -> None:
    files = writers.two(tmp_path, "a.tiff", writers.tiff(depth()), colour())
    said = lens_file(tmp_path, unit="mm", scale=0.1)
    assert read_exposure(files, FileOptions(unit="mm", scale=0.1, intrinsics=said)).scale == 0.1
    for options in (FileOptions(unit="m", intrinsics=said), FileOptions(scale=1.0, intrinsics=said)):
        with pytest.raises(DataError, match=r"intrinsics\.json says .* they must agree"):
            read_exposure(files, options)


def test_missing_points_as_stored(tmp_path: Path) -> None:
    stored = depth()
    stored[0, :2] = 7, 9
    files = writers.two(tmp_path, "a.png", writers.png(stored), colour())
    options = FileOptions(unit="mm", intrinsics=lens_file(tmp_path, invalid=9), invalid=((None, None, 7.0),))
    frame = read_exposure(files, options)
    assert frame.depth is not None and frame.depth[0, 0] == 0
    valid = points_mm(frame, "mm")[1]
    assert not valid[0, :2].any()
    points = points_in(frame, "m")
    np.testing.assert_allclose(points[valid] * 1000, points_mm(frame, "mm")[0][valid], rtol=1e-6)
    assert not points[~valid].any()


def test_points_in_the_own_unit_are_the_stored_ones() -> None:
    frame = Frame("c", "", 0, colour(), xyz=cloud(), unit="m")
    assert points_in(frame, "m") is frame.xyz


@pytest.mark.parametrize("form", ["text", "binary", "compressed"])
def test_clouds_of_open3d(tmp_path: Path, form: str) -> None:
    """A foreign writer. It knows no grid, so the header is made to say one."""
    o3d = load_open3d()
    xyz, rgb = cloud().astype(np.float64), colour()
    xyz[~np.isfinite(xyz)] = 0
    points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(xyz.reshape(-1, 3)))
    points.colors = o3d.utility.Vector3dVector(rgb.reshape(-1, 3) / 255)
    path = tmp_path / "a.pcd"
    assert o3d.io.write_point_cloud(str(path), points, write_ascii=form == "text", compressed=form == "compressed")
    content = path.read_bytes()
    with pytest.raises(DataError, match="is not organised: 126 points in one row"):
        read_exposure(ExposureFiles(path))
    path.write_bytes(content.replace(b"WIDTH 126\nHEIGHT 1\n", b"WIDTH 7\nHEIGHT 18\n"))
    frame = read_exposure(ExposureFiles(path))
    np.testing.assert_array_equal(frame.rgb, rgb)
    np.testing.assert_allclose(frame.xyz, xyz, rtol=0, atol=0 if form != "text" else 1e-4)
    if form == "compressed":
        return
    path = tmp_path / "a.ply"
    assert o3d.io.write_point_cloud(str(path), points, write_ascii=form == "text")
    frame = read_exposure(ExposureFiles(path), FileOptions(size_px=SHAPE))
    np.testing.assert_array_equal(frame.rgb, rgb)
    np.testing.assert_allclose(frame.xyz, xyz, rtol=1e-5, atol=1e-3)  # it writes 6 digits
    with pytest.raises(DataError, match="does not say of how many rows and columns"):
        read_exposure(ExposureFiles(path))


def test_a_ply_that_says_no_size_takes_that_of_the_intrinsics(tmp_path: Path) -> None:
    files = writers.one(tmp_path, "a.ply", writers.ply(colour(), cloud(), size=""))
    said = tmp_path / "intrinsics.json"
    said.write_text(json.dumps({"width": SHAPE[1], "height": SHAPE[0], "unit": "mm"}))
    frame = read_exposure(files, FileOptions(intrinsics=said))
    np.testing.assert_array_equal(frame.xyz, cloud())
    assert frame.unit == "mm" and frame.intrinsics is None
    said.write_text(json.dumps({"width": SHAPE[0], "height": 8}))
    with pytest.raises(DataError, match="holds 126 points, not those of 8 rows of 18"):
        read_exposure(files, FileOptions(intrinsics=said))
    (tmp_path / "a.ply").write_bytes(writers.ply(colour(), cloud()))
    said.write_text(json.dumps({"width": SHAPE[0], "height": SHAPE[1]}))
    with pytest.raises(DataError, match="says that it has 18 x 7 points, and 7 x 18 was expected"):
        read_exposure(files, FileOptions(intrinsics=said))


def test_depth_in_16_bits_is_not_cut_to_8(tmp_path: Path) -> None:
    Image.fromarray(depth()).save(tmp_path / "a.png")
    files = writers.two(tmp_path, "b.png", (tmp_path / "a.png").read_bytes(), colour())
    frame = read_exposure(files, FileOptions(intrinsics=lens_file(tmp_path)))
    np.testing.assert_array_equal(frame.depth, depth())
    for content in (writers.png(colour()), writers.png(colour()[..., 0])):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(DataError, match=r"b\.png has 8 bits per channel"):
            read_exposure(files, FileOptions(intrinsics=lens_file(tmp_path)))
