"""Replaying recorded frames, and keeping a rate."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asperity.runtime.cameras.mvtec_files import write_frame
from asperity.runtime.cameras.replay import ReplayCamera
from asperity.runtime.cameras.schedule import Schedule
from asperity.runtime.cameras.stream import replay_exposures
from asperity.runtime.cameras.virtual import dataset
from asperity.runtime.cameras.virtual.camera import VirtualCamera
from asperity.runtime.errors import CameraError, DataError, UsageError

MS = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for value, name in enumerate(("9", "10", "11")):
        cloud = np.full((3, 4, 3), value + 1, np.float32)
        write_frame(tmp_path, name, np.full((3, 4, 3), value, np.uint8), cloud)
    return tmp_path


def test_plays_in_natural_order_once(folder: Path) -> None:
    camera = ReplayCamera(folder, unit="mm", name="cam1")
    shots = list(camera)
    assert len(camera) == 3 and [shot.sample.name for shot in shots] == ["9", "10", "11"]
    assert [shot.frame.seq for shot in shots] == [0, 1, 2]
    assert [int(shot.frame.rgb[0, 0, 0]) for shot in shots] == [0, 1, 2]
    assert {(shot.frame.camera, shot.frame.unit, shot.frame.part_id) for shot in shots} == {("cam1", "mm", "")}


def test_a_true_mask_of_another_size_than_its_frame_is_refused(tmp_path: Path) -> None:
    leaf = tmp_path / "test/hole"
    write_frame(leaf, "0", np.zeros((3, 4, 3), np.uint8), np.ones((3, 4, 3), np.float32), np.ones((3, 4), bool))
    assert [shot.mask is not None for shot in replay_exposures(ReplayCamera(tmp_path))] == [True]
    Image.fromarray(np.ones((4, 3), np.uint8)).save(leaf / "gt/0.png")
    with pytest.raises(DataError, match=r"0\.png has \(4, 3\) pixels but its frame \(3, 4\)"):
        list(replay_exposures(ReplayCamera(tmp_path)))


def test_loop_goes_on_counting(folder: Path) -> None:
    (folder / "parts.csv").write_text("name,part_id\n9,a\n10,b\n11,c\n")
    shots = list(islice(ReplayCamera(folder, loop=True), 7))
    assert [shot.frame.seq for shot in shots] == list(range(7))
    assert [shot.frame.part_id for shot in shots] == list("abcabca")


def test_half_a_folder_is_refused_before_anything_plays(folder: Path) -> None:
    (folder / "xyz/10.tiff").unlink()
    with pytest.raises(DataError, match=r"lack their xyz.*: 10;"):
        ReplayCamera(folder)


class FakeClock:
    """Time that passes only in sleep, or when a slow frame says so."""

    def __init__(self) -> None:
        self.now_ns = 5_000
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)


def test_a_late_frame_does_not_delay_the_next() -> None:
    clock = FakeClock()
    schedule = Schedule(10, clock, clock.sleep)
    started, lateness = [], []
    for work_ms in (0, 30, 250, 10, 10, 10):
        lateness.append(schedule.wait() // MS)
        started.append((clock.now_ns - 5_000) // MS)
        clock.now_ns += work_ms * MS
    # The third frame takes 250 ms: the fourth is 150 ms late, the fifth 60, the sixth is on time again.
    assert started == [0, 100, 200, 450, 460, 500]
    assert lateness == [0, 0, 0, 150, 60, 0]


def test_sleep_that_ends_early_is_slept_again() -> None:
    clock = FakeClock()
    schedule = Schedule(10, clock, lambda seconds: clock.sleep(max(seconds / 2, 1e-6)))
    schedule.wait()
    schedule.wait()
    assert clock.now_ns >= 5_000 + 100 * MS and len(clock.slept) > 2


@pytest.mark.parametrize("rate_hz", [0, -1, float("nan"), float("inf"), 1e-9])
def test_rates_that_cannot_be(rate_hz: float) -> None:
    with pytest.raises(UsageError, match="the rate is"):
        Schedule(rate_hz)


def test_a_data_set_that_cannot_be_rendered_leaves_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The next try, with open3d, would be refused: nothing is overwritten."""

    def absent() -> None:
        raise CameraError("no open3d")

    monkeypatch.setattr(dataset, "load_open3d", absent)
    with pytest.raises(CameraError):
        dataset.write_dataset(VirtualCamera("roll", 1, 32), tmp_path / "new", dataset.Counts(1, 0, 0), [])
    assert not (tmp_path / "new").exists()
