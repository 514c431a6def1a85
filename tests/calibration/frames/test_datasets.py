"""Data sets as calibration and evaluation see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asperity.calibration.frames.datasets import check_exclude, open_dataset
from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.errors import DataError, UsageError

RNG = np.random.default_rng(3)


def write(folder: Path, *names: str, mask: bool = False, size: tuple[int, int] = (4, 6)) -> None:
    for name in names:
        rgb = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
        write_frame(folder, name, rgb, RNG.random((*size, 3), np.float32), np.ones(size, bool) if mask else None)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    write(tmp_path / "train/good", "10", "9")
    write(tmp_path / "validation/good", "9")
    write(tmp_path / "test/good", "0", mask=True)
    write(tmp_path / "test/dent", "0", mask=True)
    return tmp_path


def test_official_splits(product: Path) -> None:
    dataset = open_dataset(product, unit="m")
    assert [item.name for item in dataset.normal()] == ["train/good/9", "train/good/10", "validation/good/9"]
    assert dataset.validation() == (False, False, True)
    assert [(item.name, item.defect, item.is_normal) for item in dataset.test()] == [
        ("test/good/0", "good", True), ("test/dent/0", "dent", False)
    ]  # fmt: skip
    frame = dataset.normal()[0].frame(seq=4)
    assert (frame.seq, frame.unit, frame.part_id, frame.shape_px) == (4, "m", "", (4, 6))
    assert dataset.normal()[0].mask((4, 6)) is None
    mask = dataset.test()[1].mask((4, 6))
    assert mask is not None and mask.all()


def test_recorded_folder_is_all_normal(tmp_path: Path) -> None:
    write(tmp_path / "monday", "b", "a")
    dataset = open_dataset(tmp_path / "monday")
    assert [item.name for item in dataset.normal()] == ["a", "b"] and all(i.is_normal for i in dataset.items)
    assert dataset.items[0].unit is None
    with pytest.raises(DataError, match="no test frames"):
        dataset.test()


def test_part_ids(product: Path) -> None:
    names = [item.name for item in open_dataset(product).items]
    (product / "parts.csv").write_text("name,part_id\n" + "".join(f"{n},p{i}\n" for i, n in enumerate(names)))
    assert [item.part_id for item in open_dataset(product).items] == ["p0", "p1", "p2", "p3", "p4"]
    assert open_dataset(product / "test").items[1].frame().part_id == "p4"


def test_excluded_frames(product: Path) -> None:
    assert [i.name for i in open_dataset(product, exclude=["train/good/9", "10"]).normal()] == ["validation/good/9"]
    with pytest.raises(DataError, match="may mean train/good/9 or validation/good/9"):
        open_dataset(product, exclude=["9"])
    for name in ("77", "0", "good", "test/good/0", "test/dent/0"):
        with pytest.raises(DataError, match=f"--exclude {name}: .* no such normal frame; names look like train/good/9"):
            open_dataset(product, exclude=[name])


def test_names_of_frames_are_of_one_product() -> None:
    check_exclude(["3"], 1, "")
    check_exclude([], 2, "")
    with pytest.raises(UsageError, match="--exclude names frames of one product and there are 2; name one"):
        check_exclude(["3"], 2, "name one")


def test_bad_frames_are_never_normal(product: Path) -> None:
    with pytest.raises(DataError, match="no normal frames"):
        open_dataset(product / "test").normal()
    with pytest.raises(DataError, match="no normal frames"):
        open_dataset(product / "test/dent").normal()
    write(product / "train/odd", "0")
    with pytest.raises(DataError, match="holds train/odd: only good frames"):
        open_dataset(product).normal()


def test_mask_of_another_size(product: Path) -> None:
    write(product / "test/dent", "1", mask=True)
    write(product / "other", "1", mask=True, size=(5, 6))
    (product / "other/gt/1.png").replace(product / "test/dent/gt/1.png")
    item = open_dataset(product).test()[2]
    with pytest.raises(DataError, match="must agree"):
        item.mask(item.frame().shape_px)
