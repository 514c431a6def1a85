"""Recorded frames: whole, numbered on, never overwritten, and only those that calibration can use."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.parts import read_parts
from asperity.runtime.cameras.mvtec_files import read_frame
from asperity.runtime.cameras.setup.look import look_at
from asperity.runtime.cameras.setup.recording import DRAFTS, Recording, Worth
from asperity.runtime.errors import DataError
from asperity.runtime.frame import Frame
from tests.runtime.cameras.setup.scene import Scene, as_xyz


def add(recording: Recording, frame: Frame, part_id: str = "") -> str:
    return recording.add(frame, look_at(frame, frame.unit or "mm"), part_id)


def test_points_are_in_mm_and_missing_ones_are_zero(tmp_path: Path) -> None:
    frame = as_xyz(Scene().frame(0))
    xyz = frame.xyz.copy() / 1000
    xyz[3, 4] = (1.0, 2.0, -1.0)
    xyz[5, 6] = np.nan
    with Recording(tmp_path / "good") as recording:
        assert add(recording, replace(frame, xyz=xyz, unit="m", invalid=-1.0)) == "000"
    (sample,) = list_samples(tmp_path / "good")
    read = read_frame(sample.rgb, sample.xyz)
    assert np.array_equal(read.rgb, frame.rgb)
    assert not read.xyz[3, 4].any() and not read.xyz[5, 6].any()
    exact = xyz.astype(np.float64) * 1000
    exact[3, 4] = exact[5, 6] = 0
    assert np.allclose(read.xyz, exact, rtol=1e-6)
    assert not (tmp_path / "good" / DRAFTS).exists()


def test_a_folder_is_continued(tmp_path: Path) -> None:
    for index in range(2):
        with Recording(tmp_path) as recording:
            for at in range(2):
                assert add(recording, Scene().frame(2 * index + at)) == f"{2 * index + at:03d}"
    assert [sample.name for sample in list_samples(tmp_path)] == ["000", "001", "002", "003"]
    for sample, index in zip(list_samples(tmp_path), range(4), strict=True):
        assert np.array_equal(read_frame(sample.rgb, sample.xyz).rgb, Scene().frame(index).rgb)


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    with Recording(tmp_path) as recording:
        add(recording, Scene().frame(0))
        (tmp_path / "rgb" / "001.png").write_bytes(b"someone else's")
        with pytest.raises(DataError, match="another program"):
            add(recording, Scene().frame(1))
    assert (tmp_path / "rgb" / "001.png").read_bytes() == b"someone else's"


@pytest.mark.parametrize("name", ["train", "rgb/good.png", "notes.txt"])
def test_another_folder_is_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("rgb"):
        with Recording(tmp_path) as recording:
            add(recording, Scene().frame(0))
        for half, suffix in (("rgb", ".png"), ("xyz", ".tiff")):
            (tmp_path / half / f"000{suffix}").rename(tmp_path / half / f"good{suffix}")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="not recorded here"):
        Recording(tmp_path)


def test_half_a_frame_is_refused(tmp_path: Path) -> None:
    with Recording(tmp_path) as recording:
        add(recording, Scene().frame(0))
    (tmp_path / "xyz" / "000.tiff").unlink()
    with pytest.raises(DataError, match="lack"):
        Recording(tmp_path)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be used"):
        Recording(tmp_path / "file")


def test_without_a_frame_no_folder_is_left(tmp_path: Path) -> None:
    with Recording(tmp_path / "new"):
        pass
    assert not list(tmp_path.iterdir())


def test_one_program_per_folder(tmp_path: Path) -> None:
    with Recording(tmp_path / "new"), pytest.raises(DataError, match="another program"):
        Recording(tmp_path / "new")
    Recording(tmp_path / "new").close()


@pytest.mark.parametrize("renames", [0, 1])
@pytest.mark.parametrize("killed", [True, False])
def test_an_end_at_any_point_leaves_whole_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int, killed: bool
) -> None:
    """Ended before the first or between the two renames: the frame is not there, or is completed."""
    recording = Recording(tmp_path, 1)
    add(recording, Scene().frame(0))
    left = [renames]
    plain = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if DRAFTS in self.parts:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return plain(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            add(recording, Scene().frame(1))
    if killed:
        os.close(recording._lock)  # as the system does when a process ends; nothing is tidied up
    else:
        recording.close()
        assert len(list_samples(tmp_path)) == 1 + renames
    with Recording(tmp_path, 1) as again:
        assert len(list_samples(tmp_path)) == 1 + renames
        assert add(again, Scene().frame(2)) == f"{1 + renames:03d}"
    samples = list_samples(tmp_path)
    assert len(set(read_parts(tmp_path, samples).values())) == len(samples)
    for sample, index in zip(samples, (0, 1, 2) if renames else (0, 2), strict=True):
        assert np.array_equal(read_frame(sample.rgb, sample.xyz).rgb, Scene().frame(index).rgb)


def test_parts_are_named(tmp_path: Path) -> None:
    with Recording(tmp_path, 2) as recording:
        for index, part in enumerate(["", "", "", "A 7", "", "", "A 7"]):
            add(recording, Scene().frame(index), part)
        assert recording.parts == 4
    with Recording(tmp_path, 2) as recording:  # a part that was not finished may have been taken away
        add(recording, Scene().frame(7))
    parts = read_parts(tmp_path, list_samples(tmp_path))
    assert list(parts.values()) == ["part-001", "part-001", "part-002", "A 7", "A 7", "part-003", "A 7", "part-004"]
    with pytest.raises(DataError, match="give --parts"):
        Recording(tmp_path)


def test_parts_cannot_be_named_later(tmp_path: Path) -> None:
    with Recording(tmp_path) as recording:
        add(recording, Scene().frame(0))
    with pytest.raises(DataError, match="give no --parts"):
        Recording(tmp_path, 2)


def test_a_part_id_that_no_frame_may_have(tmp_path: Path) -> None:
    with Recording(tmp_path, 2) as recording:
        with pytest.raises(DataError, match="part id"):
            add(recording, Scene().frame(0), "a\tb")
        add(recording, Scene().frame(0), 'a,b"c')
    assert read_parts(tmp_path, list_samples(tmp_path)) == {"000": 'a,b"c'}


@pytest.mark.parametrize(
    "part_id",
    [
        "=cmd", "#REF!", " a", "a ", ",", '"', "#x", "a,b", "-1", "name", "part-" + "9" * 9, "x" * 64,
        "01\x1d10\u00e4",
    ],
)  # fmt: skip
def test_every_part_id_that_is_recorded_can_be_read(tmp_path: Path, part_id: str) -> None:
    with Recording(tmp_path, 1) as recording:
        try:
            add(recording, Scene().frame(0), part_id)
        except DataError as error:
            assert part_id in ("=cmd", "#REF!", " a", "a ") and repr(part_id) in str(error)
            part_id = "part-001"
            add(recording, Scene().frame(0))
        add(recording, Scene().frame(1))
    with Recording(tmp_path, 1) as recording:
        add(recording, Scene().frame(2))
    parts = read_parts(tmp_path, list_samples(tmp_path))
    assert parts["000"] == part_id and len(set(parts.values())) == 3


@pytest.mark.parametrize("instead", ["nothing", "another folder"])
def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path, instead: str) -> None:
    with Recording(tmp_path / "good", 2) as recording:
        add(recording, Scene().frame(0))
        (tmp_path / "good").rename(tmp_path / "moved")
        if instead == "another folder":
            (tmp_path / "good" / DRAFTS).mkdir(parents=True)
        with pytest.raises(DataError, match="check the folder"):
            add(recording, Scene().frame(1))
        assert not (tmp_path / "good" / "parts.csv").exists()
    assert len(list_samples(tmp_path / "moved")) == 1


def test_another_size_is_refused(tmp_path: Path) -> None:
    with Recording(tmp_path) as recording:
        add(recording, Scene().frame(0))
    with Recording(tmp_path) as recording:
        frame = as_xyz(Scene().frame(1))
        with pytest.raises(DataError, match="80 x 60 pixels and the camera gives 80 x 40"):
            add(recording, replace(frame, rgb=frame.rgb[:40], xyz=frame.xyz[:40]))


def test_what_is_not_worth_recording() -> None:
    def word(scene: Scene, frame: Frame | None = None, *, fills_view: bool = False) -> str:
        return Worth(fills_view=fills_view).refusal(frame or scene.frame(0), "mm")[0]

    assert word(Scene()) == ""
    assert word(Scene(box_mm=0)) == "no part"
    assert word(Scene(box_mm=0), fills_view=True) == ""
    assert word(Scene(holes=0.99)) == "few points"
    assert word(Scene(rgb_level=255)) == "saturated"
    assert word(Scene(), replace(Scene().frame(0), rgb=np.zeros((60, 80, 3), np.uint8))) == "dark"
    assert word(Scene(fields={"intrinsics": None})) == "unusable"
    rough = 500 + np.random.default_rng(0).normal(0, 60, (15, 20)).repeat(4, 0).repeat(4, 1)
    rough_frame = replace(Scene().frame(0), depth=rough.astype(np.float32))
    assert word(Scene(), rough_frame) == "no plane"
    assert word(Scene(), rough_frame, fills_view=True) == ""
    depth = Scene().frame(0).depth.copy()
    alone = np.zeros_like(depth)
    alone[Scene().box(0)] = depth[Scene().box(0)]
    assert word(Scene(), replace(Scene().frame(0), depth=alone)) == ""  # the background is empty already


def test_a_repeat_is_found_among_all_frames() -> None:
    worth = Worth()
    assert [worth.refusal(Scene().frame(index), "mm")[0] for index in (0, 1, 0, 1)] == ["", "", "repeat", "repeat"]
