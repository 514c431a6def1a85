"""A hot folder, case by case: order, completeness, and what is left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime.cameras.files.read import ExposureFiles, FileOptions
from asperity.runtime.cameras.sources.folder.arrivals import WAITING_MAX
from asperity.runtime.frame import Frame
from asperity.runtime.settings.log_lines import Rate, Repeats
from tests.runtime.cameras.folder.hot_folders import (
    PAIRS,
    START_NS,
    SUFFIXES,
    Hot,
    content,
    hot_folder,
    left_out,
    read,
    shown,
)


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[Hot]:
    yield from hot_folder(tmp_path)



@pytest.mark.parametrize(("order", "comes"), [("name", [9, 10, 100]), ("time", [100, 9, 10])])
def test_the_order_is_that_of_the_names_or_that_of_arrival(hot: Hot, order: str, comes: list[int]) -> None:
    hot.options = {"order": order}
    hot.open()
    for number, age_ms in ((100, 3), (9, 2), (10, 1)):
        hot.put(f"part{number}.npy", number, age_ms=age_ms)
    shots = hot.shots()
    assert [shown(shot)[0] for shot in shots] == comes
    assert [shot.number for shot in shots] == [1, 2, 3]
    assert {shot.frame.sensor for shot in shots} == {"folder in"}
    assert {(shot.frame.t_exposure_us, shot.frame.clock) for shot in shots} == {(0, "device")}


def test_an_exposure_that_is_still_written_holds_the_next_back(hot: Hot) -> None:
    hot.open()
    hot.write("1.npy", content(1)[:20])
    hot.put("2.npy", 2)
    assert hot.values(800) == []
    hot.write("1.npy", content(1)[20:], append=True)
    assert hot.values() == [1, 2]


@pytest.mark.parametrize("options", [PAIRS, SUFFIXES], ids=["folders", "suffixes"])
def test_colour_and_points_are_matched_by_their_names(hot: Hot, options: dict[str, Any]) -> None:
    hot.options = options
    points, colour = (options[half].replace("*", "part{}") for half in ("points", "colour"))
    hot.open()
    hot.put(colour.format(2), 2)
    hot.put(points.format(1), 1)
    hot.put(colour.format(1), 1)
    hot.put(points.format(2), 2)
    assert hot.values() == [1, 2]
    # The control: the program itself gives colour the name of another exposure.
    hot.put(colour.format(3), 4)
    hot.put(points.format(3), 3)
    assert [shown(shot) for shot in hot.shots()] == [(4, 3)]


def test_half_an_exposure_is_refused_and_counted(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = PAIRS
    hot.open()
    hot.put("rgb/1.png", 1)
    for half in ("rgb/2.png", "xyz/2.npy"):
        hot.put(half, 2)
    assert hot.values(1500) == []
    (shot,) = hot.shots()
    assert (shown(shot), shot.number) == ((2, 2), 2)
    assert "exposure 1 is left out: xyz/1.npy did not come" in left_out(caplog)
    hot.put("xyz/1.npy", 1)
    assert hot.values() == []
    assert "xyz/1.npy came or changed after its exposure was refused" in left_out(caplog)


def test_a_torn_file_is_tried_again_and_then_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    tries: list[Path] = []

    def counting(files: ExposureFiles, options: FileOptions) -> Frame:
        tries.append(files.points)
        return read(files, options)

    hot.options = {"complete": "renamed"}
    hot.open(reader=counting)
    hot.write("1.npy", content(1)[:30])
    assert hot.values(500) == []
    hot.write("1.npy", content(1)[30:60], append=True)
    assert hot.values(500) == []
    hot.write("1.npy", content(1)[60:], append=True)
    assert hot.values(500) == [1]
    assert len(tries) == 3  # once for each change, and not at every look
    hot.write("2.npy", content(2)[:30])
    hot.put("3.npy", 3)
    assert hot.values(1900) == []
    assert hot.values(500) == [3]
    assert "exposure 2 is left out" in left_out(caplog)
    assert "2.npy is cut off" in left_out(caplog)
    for piece in (content(2)[30:40], content(2)[40:]):  # a writer slower than settle_ms
        hot.write("2.npy", piece, append=True)
        assert hot.values(3000) == []
    hot.put("4.npy", 4)
    assert [shot.number for shot in hot.shots()] == [4]


def test_a_file_that_was_made_in_its_full_size_is_waited_for(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    def accepts_zeros(files: ExposureFiles, options: FileOptions) -> Frame:
        whole = hot.path.with_name("whole")
        whole.write_bytes(content(1))
        return read(ExposureFiles(whole), options)

    hot.open(reader=accepts_zeros)
    with (hot.path / "1.npy").open("wb") as file:
        file.write(b"1" * 100)
        file.truncate(100_000)
    assert hot.values(500) == []
    hot.write("1.npy", bytes(100_000))
    assert hot.values() == [1]
    with (hot.path / "2.npy").open("wb") as file:
        file.truncate(100_000)
    assert hot.values(5000) == []
    assert "2.npy has parts that were never written" in left_out(caplog)


def test_a_reader_that_fails_in_any_way_refuses_one_exposure(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    def fails(files: ExposureFiles, options: FileOptions) -> Frame:
        if files.points.name == "1.npy":
            raise ZeroDivisionError
        return read(files, options)

    hot.open(reader=fails)
    hot.put("1.npy", 1)
    hot.put("2.npy", 2)
    assert hot.values(5000) == [2]
    assert "exposure 1 is left out: it cannot be read: ZeroDivisionError" in left_out(caplog)


def test_a_marker_says_that_files_are_complete(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = {**SUFFIXES, "complete": "marker", "after": "move"}
    hot.open()
    for number in (1, 2, 3):
        hot.put(f"{number}_depth.npy", number)
        hot.put(f"{number}_color.png", number)
    assert hot.values(500) == []
    (hot.path / "1.done").touch()
    for name in ("2_depth.npy", "2_color.png"):
        (hot.path / f"{name}.done").touch()
    assert hot.values() == [1, 2]
    assert {path.name for path in hot.path.glob("*.*")} == {"3_depth.npy", "3_color.png"}
    assert len(list((hot.path / "taken").iterdir())) == 7
    assert hot.values() == []
    assert "exposure 3 is left out: .done did not come" in left_out(caplog)


def test_what_is_not_a_plain_file_is_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = {"file_max_mb": 1, "points": "*.npy"}
    hot.open()
    (hot.path / "1.npy").symlink_to("/etc/hostname")
    os.mkfifo(hot.path / "2.npy")
    (hot.path / "3.npy").mkdir()
    with (hot.path / "4.npy").open("wb") as file:
        file.truncate(2**20 + 1)
    hot.write("5.npy", content(5))
    hot.write("5.NPY", content(55))
    hot.put(os.fsdecode(b"6\xff.npy"), 6)
    hot.put("7.npy", 7)
    hot.put(".8.npy", 8)
    (shot,) = hot.shots(3000)
    assert (shown(shot), shot.number) == ((7, 7), 6)
    said = left_out(caplog)
    for line in (
        "1 is left out: 1.npy is a link", "2 is left out: 2.npy is a pipe", "4.npy has 1048577 bytes",
        "are both its points", "6\\udcff is left out: its name is not UTF-8",
    ):  # fmt: skip
        assert line in said
    assert "3" not in [record.getMessage().split()[1] for record in caplog.records]


def test_a_name_that_comes_again_is_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.open()
    hot.put("1.npy", 1)
    assert hot.values() == [1]
    hot.put("1.npy", 2)
    hot.put("2.npy", 3)
    (shot,) = hot.shots()
    assert (shown(shot), shot.number) == ((3, 3), 3)
    assert "exposure 1 is left out: an exposure of this name was taken before" in left_out(caplog)
    hot.write("1.npy", content(4))  # in place
    os.utime(hot.path / "2.npy")  # touched, as a network share does late: nothing new
    hot.put("3.npy", 5)
    (shot,) = hot.shots(3000)
    assert (shown(shot), shot.number) == ((5, 5), 4)


@pytest.mark.parametrize("touched", [["rgb/1.png"], ["xyz/1.npy"], ["rgb/1.png", "xyz/1.npy"]])
def test_a_pair_that_is_touched_is_not_an_exposure(hot: Hot, touched: list[str]) -> None:
    hot.options = PAIRS
    hot.open()
    for half in ("rgb/1.png", "xyz/1.npy"):
        hot.put(half, 1)
    assert hot.values() == [1]
    for half in touched:
        os.utime(hot.path / half, ns=(2**63, 2**63))
    assert hot.values() == []
    for half in ("rgb/2.png", "xyz/2.npy"):
        hot.put(half, 2)
    assert [shot.number for shot in hot.shots()] == [2]
    hot.put("rgb/1.png", 3)
    hot.put("rgb/3.png", 4)
    hot.put("xyz/3.npy", 4)
    assert [shot.number for shot in hot.shots(3000)] == [4]


def test_a_name_that_comes_late_is_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.open()
    hot.put("2.npy", 2)
    assert hot.values() == [2]
    hot.put("1.npy", 1)
    assert hot.values() == []
    assert "exposure 1 is left out: it came after exposures with later names" in left_out(caplog)


def test_a_copy_of_an_exposure_is_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.open()
    hot.put("1.npy", 1)
    assert hot.values() == [1]
    hot.open()
    hot.put("2.npy", 1)
    assert hot.values() == []
    assert "exposure 2 is left out: it holds the same picture as 1" in left_out(caplog)


@pytest.mark.parametrize("complete", ["stable", "renamed"])
def test_one_file_that_is_overwritten(hot: Hot, complete: str, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = {"overwritten": True, "order": "time", "complete": complete}
    hot.put("latest.npy", 1)
    hot.open()
    assert hot.values() == []
    numbers = []
    for value in (2, 3, 4):
        hot.write("latest.npy", content(value)) if complete == "stable" else hot.put("latest.npy", value)
        (shot,) = hot.shots()
        assert shown(shot) == (value, value)
        numbers.append(shot.number)
    os.utime(hot.path / "latest.npy")  # its time is set, or it is written again: the same exposure
    assert hot.values() == []
    hot.put("latest.npy", 5)
    (shot,) = hot.shots()
    assert [*numbers, shot.number] == [1, 2, 3, 4]
    hot.open()
    assert hot.values() == []
    assert "same picture" not in left_out(caplog)


def test_what_was_overwritten_before_it_was_read_is_counted(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = {"overwritten": True, "order": "time", "complete": "renamed"}

    def slow(files: ExposureFiles, options: FileOptions) -> Frame:
        frame = read(files, options)
        if shown_in(frame) == 1:
            hot.put("latest.npy", 2)
        return frame

    hot.open(reader=slow)
    hot.put("latest.npy", 1)
    (shot,) = hot.shots()
    assert (shown(shot), shot.number) == ((2, 2), 2)
    assert "1 exposures were overwritten before they could be read" in left_out(caplog)


def shown_in(frame: Frame) -> int:
    return int.from_bytes(frame.rgb.tobytes()[:4], "big")


def test_an_exposure_that_is_too_old_is_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    def stands_still(files: ExposureFiles, options: FileOptions) -> Frame:
        frame = read(files, options)
        if shown_in(frame) == 2:
            hot.tick(11_000)  # as after SIGSTOP
        return frame

    hot.open(reader=stands_still)
    hot.put("1.npy", 1, age_ms=5500)
    hot.put("2.npy", 2)
    assert hot.values() == []
    assert "1 is left out: it is 5500 ms old" in left_out(caplog)
    assert "exposure 2 is left out: it is 11" in left_out(caplog)
    hot.put("3.npy", 3)
    assert hot.values() == [3]


def test_of_many_that_wait_the_oldest_are_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.waiting_max = WAITING_MAX
    hot.open()
    for number in range(20):  # while the program stood still
        hot.put(f"{number}.npy", number)
    shots = hot.shots()
    assert [shown(shot)[0] for shot in shots] == list(range(4, 20))
    assert [shot.number for shot in shots] == list(range(5, 21))
    assert "exposure 3 is left out: more than 16 exposures wait" in left_out(caplog)


def test_exposure_times_come_from_names(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = {"name_time": "*_%U", "clock": "realtime"}
    hot.open("hard_wired")
    at_us = START_NS // 1000
    for name, value, offset_us in (("a", 1, 0), ("b", 2, 1000), ("c", 3, 1000), ("d", 4, -20_000_000)):
        hot.put(f"{name}_{at_us + offset_us}.npy", value)
    hot.put("e.npy", 5)
    shots = hot.shots()
    assert [(shot.frame.t_exposure_us - at_us, shot.frame.clock) for shot in shots] == [
        (0, "realtime"),
        (1000, "realtime"),
    ]
    said = left_out(caplog)
    assert said.count("its exposure time is not after") == 2
    assert "exposure e is left out: its name does not hold a time" in said


def test_an_exposure_time_that_is_too_old_is_refused(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = {"name_time": "%U", "clock": "realtime"}
    hot.open()
    hot.put(f"{START_NS // 1000 - 11_000_000}.npy", 1)
    assert hot.values() == []
    assert "longer ago than max_age_ms" in left_out(caplog)


def test_the_log_is_bounded(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.options = {"complete": "renamed"}
    hot.open()
    for number in range(50):
        (hot.path / f"{number}.npy").symlink_to("x")
    hot.values()
    assert len(caplog.records) == 20
    hot.tick(61_000)
    (hot.path / "99.npy").symlink_to("x")
    hot.values()
    assert "30 more of this kind before" in caplog.records[-1].getMessage()


def test_files_of_other_names_are_named_once_where_no_exposure_came(
    hot: Hot, caplog: pytest.LogCaptureFixture
) -> None:
    hot.put("old.txt", 1)
    hot.open()
    hot.put("1.npz", 1)
    hot.put("2.npz", 2)
    assert hot.values() == []
    assert left_out(caplog).count("1.npz is left alone: [folder] points and colour name other files") == 1
    assert "2.npz" not in left_out(caplog) and "old.txt" not in left_out(caplog)
    hot.put("3.npy", 3)  # the control: an exposure comes first, and what is next to it says nothing
    caplog.clear()
    hot.open()
    hot.put("4.npy", 4)
    hot.put("4.txt", 4)
    assert hot.values() == [4]
    assert "left alone" not in left_out(caplog)


def test_each_refusal_is_logged_by_the_program(hot: Hot) -> None:
    """Its log is bounded per place in the program; the source bounds its own lines."""
    from asperity.runtime.cameras.sources.folder import source as folder

    hot.open()
    rate = Rate(Repeats(60_000, 8))
    records: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    handler = Keep()
    handler.addFilter(rate)
    folder.log.addHandler(handler)
    try:
        for number in (1, 2, 3):
            hot.put(f"{number}.npy", 7)
        assert hot.values() == [7]
    finally:
        folder.log.removeHandler(handler)
    assert [text.partition(":")[0] for text in records] == [f"exposure {n} is left out" for n in (2, 3)]
