"""Which files of a folder form an exposure: by folders, by words in their names, by suffix; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from asperity.calibration.frames.datasets import open_dataset
from asperity.runtime.cameras.files.folders import list_samples, one_sample
from asperity.runtime.cameras.files.grouping import Group, Pattern, find_pattern, group_files, parse_name
from asperity.runtime.cameras.files.parts import read_parts
from asperity.runtime.cameras.replay import ReplayCamera
from asperity.runtime.errors import DataError
from asperity.runtime.wire import decode_frame, encode_frame
from tests.runtime.cameras.files import writers


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def listed(folder: Path) -> list[tuple[str, str, str]]:
    samples = list_samples(folder)
    return [(s.name, s.rgb.relative_to(folder).as_posix(), s.xyz.relative_to(folder).as_posix()) for s in samples]


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as refused:
        list_samples(folder)
    return str(refused.value)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["a.ply", "b.ply"], Pattern("*.ply")),
        (["a.PCD", "b.PCD", "notes.txt", "._a.pcd", "Thumbs.db"], Pattern("*.pcd")),
        (["a.npz", "intrinsics.json"], Pattern("*.npz")),
        (["rgb/1.png", "depth/1.png"], Pattern("depth/*.png", "rgb/*.png")),
        (["Color/1.png", "Depth/1.tif", "Depth/old"], Pattern("Depth/*.tif", "Color/*.png")),
        (["rgb/1_rgb.png", "depth/1_depth.png"], Pattern("depth/*_depth.png", "rgb/*_rgb.png")),
        (["color_0.png", "depth_0.npy", "segmask_0.png"], Pattern("depth_*.npy", "color_*.png")),
        (["p1-color.png", "p1-depth.exr"], Pattern("*-depth.exr", "*-color.png")),
        (["a.png", "a.ply"], Pattern("*.ply", "*.png")),
        (["a.png", "a.tiff"], Pattern("*.tiff", "*.png")),
        (["a.png", "a_depth.png"], Pattern("*_depth.png", "*.png")),
        (["cloud/a.ply", "gt/a.png"], Pattern("cloud/*.ply")),
        (["color_a.ply"], Pattern("*.ply")),  # the suffix says more than the word
        (["depth_image_1.png", "rgb_image_1.png"], Pattern("depth_*.png", "rgb_*.png")),
        (["scan_rgb_1.png", "scan_depth_1.png"], Pattern("scan_depth_*.png", "scan_rgb_*.png")),
        (["a.png", "b.png"], None),
        (["a.jpg", "readme.md"], None),
        (["other/a.ply"], None),
    ],
)
def test_patterns_are_found(names: list[str], pattern: Pattern | None) -> None:
    assert find_pattern(names) == pattern


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.ply", "b.pcd"], "holds points in more than one form (*.pcd, *.ply)"),
        (["a.ply", "a_depth.png", "a_rgb.png"], "points in more than one form"),
        (["depth_1.npy", "2.npy"], "points in more than one form"),
        (["a_depth_1.npy", "b_depth_1.npy"], "points in more than one form"),
        (["a.ply", "a_rgb.png", "rgb/a.png"], "colour in more than one form"),
        (["depth/a.png"], "no colour pictures for them; put them into rgb/"),
        (["a.npy"], "no colour pictures"),
        (["a.ply", "overview.png", "a_rgb.tif", "b_color.tif"], "colour in more than one form"),
    ],
)
def test_a_choice_is_not_made(names: list[str], words: str) -> None:
    with pytest.raises(DataError) as refused:
        find_pattern(names)
    assert words in str(refused.value)


def test_files_are_grouped_by_what_they_have_in_common() -> None:
    names = ["rgb/2.png", "rgb/10.png", "depth/10.PNG", "depth/.2.png", "depth/3.png", "other/4.png", "2.png"]
    assert group_files(names, Pattern("depth/*.png", "rgb/*.png")) == [
        Group("2", "", "rgb/2.png", "depth/2.png"),
        Group("3", "depth/3.png", "", "rgb/3.png"),
        Group("10", "depth/10.PNG", "rgb/10.png", ""),
    ]
    # Both patterns match a_depth.png; it is what the more exact one says.
    assert group_files(["a.png", "a_depth.png"], Pattern("*_depth.png", "*.png")) == [
        Group("a", "a_depth.png", "a.png", "")
    ]
    assert group_files(["a.ply", "b.ply.part"], Pattern("*.ply")) == [Group("a", "a.ply", "", "")]
    with pytest.raises(DataError, match=r"a\.PLY and a\.ply are both the points of a"):
        group_files(["a.ply", "a.PLY"], Pattern("*.ply"))
    with pytest.raises(DataError, match=r"d1c\.png may be points"):
        group_files(["d1.png", "2c.png", "d1c.png"], Pattern("d*.png", "*c.png"))


@pytest.mark.parametrize(
    ("points", "colour", "words"),
    [
        ("a.ply", "", "must have one *"),
        ("*/*.ply", "", "must have one *"),
        ("*/a.ply", "", "must have one *"),
        ("/data/*.ply", "", "below the folder"),
        ("../*.ply", "", "below the folder"),
        ("a\\*.ply", "", "below the folder"),
        (".*.ply", "", "below the folder"),
        ("*.jpg", "", "must end in one of .ply"),
        ("*", "", "must end in one of"),
        ("*.ply", "*.ply", "must end in one of .png"),
        ("*.png", "*.png", "for both points and colour"),
        ("*" * 300 + ".ply", "", "must have one *"),
        ("*\n.ply", "", "must have one *"),
    ],
)
def test_patterns_that_are_refused(points: str, colour: str, words: str) -> None:
    with pytest.raises(DataError) as refused:
        Pattern(points, colour)
    assert words in str(refused.value)


def test_names_of_pictures_say_what_they_hold() -> None:
    assert parse_name("depth/x.png") == ("points", "depth/*.png", "x")
    assert parse_name("rgb/x.ply") == ("colour", "rgb/*.ply", "x")
    assert parse_name("rgbd.png") == ("", "*.png", "rgbd")
    assert parse_name("some/x.png") is None and parse_name(".x.png") is None and parse_name("png") is None


def test_a_product_of_other_formats(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"train/good/cloud/{name}.ply" for name in ("10", "2")),
        "test/bump/cloud/0.ply",
        "test/bump/gt/0.png",
    )
    put(tmp_path, "test/good/1.pcd", "test/color/rgb/1.png", "test/color/xyz/1.pcd", "test/hole/rgb/0.png")
    put(tmp_path, "test/hole/depth/0.png", "intrinsics.json", "reference.ply", "test/notes/readme.txt")
    samples = {sample.name: sample for sample in list_samples(tmp_path)}
    assert list(samples) == [
        "train/good/2",
        "train/good/10",
        "test/good/1",
        "test/bump/0",
        "test/color/1",
        "test/hole/0",
    ]
    assert samples["test/bump/0"].gt == tmp_path / "test/bump/gt/0.png"
    assert samples["train/good/2"].rgb == samples["train/good/2"].xyz == tmp_path / "train/good/cloud/2.ply"
    assert (
        samples["test/color/1"].xyz == tmp_path / "test/color/xyz/1.pcd" and samples["test/color/1"].defect == "color"
    )
    assert {sample.intrinsics for sample in samples.values()} == {(tmp_path / "intrinsics.json").absolute()}
    assert [(s.name, s.split) for s in list_samples(tmp_path / "test/hole")] == [("0", "test")]


def test_the_layout_of_mvtec_stays_what_it_was(tmp_path: Path) -> None:
    put(tmp_path, "rgb/0.png", "xyz/0.tiff", "depth/0.png", "0.ply", "xyz/0.png", "xyz/0.npy", "intrinsics.json")
    assert listed(tmp_path) == [("0", "rgb/0.png", "xyz/0.tiff")]
    assert list_samples(tmp_path)[0].is_pair and list_samples(tmp_path)[0].intrinsics is None
    put(tmp_path, "xyz/1.tiff")
    assert "lack their rgb/*.png: 1" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["rgb/0.png", "rgb/1.png", "depth/0.png"], "1 frame(s) lack their depth/1.png"),
        (["a.ply", "A.ply"], "differ only in case"),
        (["a .ply"], "begins or ends with a blank"),
        (["a.ply", "b.pcd"], "more than one form"),
        (["depth/0.png"], "no colour pictures"),
        (["a.ply", "intrinsics.json", "phoxi.intr"], "holds intrinsics.json, phoxi.intr; keep"),
        (["a.jpg"], "holds no frames"),
        (["learn/train/good/a.ply"], "several products (learn)"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    put(tmp_path, *names)
    assert words in refusal(tmp_path) and str(tmp_path) in refusal(tmp_path)


def test_the_nearest_intrinsics_are_taken(tmp_path: Path) -> None:
    put(
        tmp_path, "a/b/c/train/good/a.npz", "a/b/c/train/bad/a.npz", "a/b/c/train/bad/camera_info.json", "a/b/lens.intr"
    )
    found = [sample.intrinsics for sample in list_samples(tmp_path / "a/b/c")]
    assert found == [tmp_path / "a/b/lens.intr", tmp_path / "a/b/c/train/bad/camera_info.json"]
    (tmp_path / "a/b/lens.intr").rename(tmp_path / "lens.intr")  # too far above
    assert list_samples(tmp_path / "a/b/c")[0].intrinsics is None


def test_one_file_of_any_format(tmp_path: Path) -> None:
    put(tmp_path, "color_0.png", "depth_0.npy", "color_1.png", "depth_1.npy", "depth_2.npy", "b.ply", "c.pcd", "x.json")
    sample = one_sample(tmp_path / "depth_1.npy")
    assert one_sample(tmp_path / "color_1.png") == sample
    assert (sample.name, sample.rgb.name, sample.xyz.name) == ("1", "color_1.png", "depth_1.npy")
    assert one_sample(tmp_path / "b.ply").xyz.name == "b.ply" and one_sample(tmp_path / "c.pcd").xyz.name == "c.pcd"
    for name, words in (
        ("depth_2.npy", "no colour pictures"),
        ("x.json", "not of a format"),
        ("a.jpg", "not of a format"),
    ):
        with pytest.raises(DataError, match=words):
            one_sample(tmp_path / name)
    put(tmp_path, "rgb/7.png")
    with pytest.raises(DataError, match="its points or depth cannot be found"):
        one_sample(tmp_path / "rgb/7.png")
    put(tmp_path, "depth/7.png")
    assert one_sample(tmp_path / "rgb/7.png") == one_sample(tmp_path / "depth/7.png")


def test_parts_of_files_of_other_formats(tmp_path: Path) -> None:
    put(tmp_path, "color_0.png", "depth_0.npy", "color_1.png", "depth_1.npy")
    (tmp_path / "parts.csv").write_text("name,part_id\n0,A\n1,B\n")
    assert read_parts(tmp_path, list_samples(tmp_path)) == {"0": "A", "1": "B"}


def test_replay_and_data_sets_read_depth(tmp_path: Path) -> None:
    depth = np.arange(1000, 1030, dtype=np.uint16).reshape(5, 6)
    for name in ("depth", "rgb"):
        (tmp_path / name).mkdir()
    (tmp_path / "depth/0.png").write_bytes(writers.png(depth))
    (tmp_path / "rgb/0.png").write_bytes(writers.png(np.ones((10, 12, 3), np.uint8)))
    lens = {"fx": 9, "fy": 9, "cx": 3, "cy": 2, "width": 6, "height": 5, "unit": "mm"}
    (tmp_path / "intrinsics.json").write_text(json.dumps(lens))
    (shot,) = ReplayCamera(tmp_path, name="cam7")
    item = open_dataset(tmp_path, invalid=((None, None, 1003.0),)).items[0].frame(seq=3)
    assert (shot.frame.camera, item.seq, item.unit, shot.frame.unit) == ("cam7", 3, "mm", "mm")
    np.testing.assert_array_equal(shot.frame.depth, depth)
    sent = decode_frame(encode_frame(replace(shot.frame, camera_session=str(uuid4()), clock="realtime")))
    np.testing.assert_array_equal(sent.depth, depth)
    assert (sent.intrinsics, sent.unit, sent.scale) == (shot.frame.intrinsics, "mm", 1.0)
    assert item.depth is not None and item.depth[0, 3] == 0
    with pytest.raises(DataError, match="says unit mm and m was given"):
        open_dataset(tmp_path, unit="m").items[0].frame()
