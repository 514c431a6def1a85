"""The reader of Eyecandies: a class written here in its layout, points against the published conversion in loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asperity.benchmarks.accuracy.material import products_of
from asperity.calibration.frames import eyecandies
from asperity.calibration.frames.datasets import open_dataset
from asperity.runtime.errors import DataError

SIDE = 64
LOW, HIGH = 0.9, 2.9
POSE = np.array([[1.0, 0, 0, 0.05], [0, 0.8, -0.6, 0.1], [0, 0.6, 0.8, 0.2], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 64 x 64 instead of 512 x 512: the focal length and the ranks for the ground shrink with them."""
    monkeypatch.setattr(eyecandies, "FOCAL_PX", eyecandies.FOCAL_PX * SIDE / 512)
    monkeypatch.setattr(eyecandies, "SIDE_PX", SIDE)
    monkeypatch.setattr(eyecandies, "_LEVEL_AT", SIDE // 2)


def depth_values(rng: np.random.Generator) -> np.ndarray:
    """A ground that recedes upwards, a box on it, and one pixel far away; 0 to 65535."""
    v, _ = np.mgrid[:SIDE, :SIDE]
    depth = 2.2 - 0.6 * v / SIDE + rng.normal(0, 1e-3, (SIDE, SIDE))
    depth[20:40, 24:44] -= 0.35
    depth[30, 30] = 2.89
    return np.asarray(np.round((depth - LOW) / (HIGH - LOW) * 65535).astype(np.uint16))


def write_sample(folder: Path, stem: str, masks: tuple[str, ...] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(map(ord, stem)))
    for light in range(6):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{stem}_image_{light}.png")
    Image.fromarray(depth_values(rng)).save(folder / f"{stem}_depth.png")
    (folder / f"{stem}_info_depth.yaml").write_text(f"normalization:\n  max: {HIGH}\n  min: {LOW}\n")
    np.savetxt(folder / f"{stem}_pose.txt", POSE)
    if masks is not None:
        for kind in (*eyecandies.KINDS, ""):
            mask = np.zeros((SIDE, SIDE), np.uint8)
            if kind in masks or (kind == "" and masks):
                mask[22:26, 30:34] = 255
            Image.fromarray(mask).save(folder / (f"{stem}_{kind}_mask.png" if kind else f"{stem}_mask.png"))


@pytest.fixture
def candy(tmp_path: Path) -> Path:
    folder = tmp_path / "GummyBear"
    for stem in ("000", "001", "010"):
        write_sample(folder / "train/data", stem)
    write_sample(folder / "val/data", "000")
    for stem, masks in (("00", ()), ("01", ("dents",)), ("02", ("bumps", "colors"))):
        write_sample(folder / "test_public/data", stem, masks)
    write_sample(folder / "test_private/data", "000")
    return folder


def test_official_splits_and_kinds(candy: Path) -> None:
    assert products_of(candy.parent) == products_of(candy) == [candy]
    dataset = open_dataset(candy)
    assert [item.name for item in dataset.normal()] == [
        "train/data/000", "train/data/001", "train/data/010", "val/data/000"
    ]  # fmt: skip
    assert dataset.validation() == (False, False, False, True)
    assert [(item.name, item.defect) for item in dataset.test()] == [
        ("test_public/data/00", "good"), ("test_public/data/01", "dents"), ("test_public/data/02", "combined")
    ]  # fmt: skip
    frame, mask = dataset.test()[1].frame(seq=3), dataset.test()[1].mask((SIDE, SIDE))
    assert (frame.seq, frame.unit, frame.shape_px) == (3, "m", (SIDE, SIDE))
    np.testing.assert_array_equal(frame.rgb, np.asarray(Image.open(candy / "test_public/data/01_image_4.png")))
    assert mask is not None and mask.sum() == 16
    assert len(open_dataset(candy, exclude=["train/data/001"]).normal()) == 3


def published(values: np.ndarray) -> np.ndarray:
    """The conversion that M3DM publishes, written again pixel by pixel from its description (lsfa 1.4)."""
    depth = values.astype(np.float32) / 65535.0 * (HIGH - LOW) + LOW
    focal = eyecandies.FOCAL_PX
    camera = np.array([[focal, 0, SIDE / 2, 0], [0, focal, SIDE / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ POSE
    points = np.array(
        [
            depth[j, i] * (np.linalg.inv(camera) @ np.array([i, j, 1, 1 / depth[j, i]]))[:3]
            for j in range(SIDE) for i in range(SIDE)
        ]
    )  # fmt: skip
    first, last = points[SIDE // 2], points[-(SIDE // 2)]
    rise, run = first[1] - last[1], first[2] - last[2]
    angle = np.arctan2(rise, run)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    start = np.array([0, last[1], last[2]])
    result = []
    for point in points:
        level = turn @ (point - start)
        if level[1] > -0.02 or level[2] > 1.8 or abs(level[0]) > 1:
            level = turn @ -start
        x, y, z = turn.T @ level + start
        result.append((0.1 * x, -0.1 * z, 0.1 * y))
    return np.array(result).reshape(SIDE, SIDE, 3)


def test_points_are_those_of_the_published_conversion(candy: Path) -> None:
    found = eyecandies.read_xyz(candy / "train/data/000_depth.png")
    expected = published(np.asarray(Image.open(candy / "train/data/000_depth.png")))
    np.testing.assert_allclose(found, expected, atol=2e-7)
    shown = (found != 0).any(axis=-1)
    assert 300 < shown.sum() < 1200 and shown[25, 30] and not shown[2, 2] and not shown[30, 30]
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("000_info_depth.yaml", "normalization:\n  max: 2\n", "normalization.min"),
        ("000_info_depth.yaml", "normalization:\n  max: 0.5\n  min: 0.9\n", "not a depth range"),
        ("000_pose.txt", "1 0 0\n", "no 4 x 4 pose"),
        ("000_pose.txt", "one\n", "table of numbers"),
        ("000_depth.png", "", "cannot be read as a PNG"),
    ],
)
def test_damaged_files_are_named(candy: Path, name: str, content: str, said: str) -> None:
    (candy / "train/data" / name).write_text(content)
    with pytest.raises(DataError, match=said):
        open_dataset(candy).normal()[0].frame()


def test_pictures_of_another_size_have_another_focal_length_and_are_refused(
    candy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eyecandies, "SIDE_PX", 512)
    with pytest.raises(DataError, match=r"000_depth\.png is 64 x 64 pixels; .* 512 x 512: download it again"):
        open_dataset(candy).normal()[0].frame()


@pytest.mark.parametrize("name", ["000\n", " 000", "000\u200b"])
def test_names_that_no_report_can_hold_are_refused(candy: Path, name: str) -> None:
    for path in list((candy / "train/data").glob("000_*")):
        path.rename(path.with_name(name + path.name.removeprefix("000")))
    with pytest.raises(DataError, match="rename it"):
        open_dataset(candy)


def test_half_downloads_are_refused(candy: Path) -> None:
    (candy / "test_public/data/01_mask.png").unlink()
    with pytest.raises(DataError, match="needs its mask"):
        open_dataset(candy)
    (candy / "train/data/001_pose.txt").unlink()
    with pytest.raises(DataError, match=r"001_pose\.txt"):
        open_dataset(candy)
    bits8 = np.zeros((SIDE, SIDE, 3), np.uint8)
    Image.fromarray(bits8).save(candy / "train/data/000_depth.png")
    with pytest.raises(DataError, match="16 bits"):
        eyecandies.read_xyz(candy / "train/data/000_depth.png")
    (candy / "empty/train/data").mkdir(parents=True)
    with pytest.raises(DataError, match="no frames of Eyecandies"):
        open_dataset(candy / "empty")
