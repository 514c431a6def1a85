"""A hot folder over restarts, where files go to, and what ends the program."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime.cameras.sources.folder.hot_folder import BUSY_SHARE, IDLE_SHARE, HotFolder
from asperity.runtime.errors import CameraError, CameraLostError, ConfigError
from tests.runtime.cameras.folder.hot_folders import PAIRS, SUFFIXES, Hot, content, hot_folder, left_out


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[Hot]:
    yield from hot_folder(tmp_path)



@pytest.mark.parametrize(("before", "comes"), [("skip", [3]), ("take", [1, 3])])
def test_what_was_there_before_the_start(
    hot: Hot, before: str, comes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """What is left out is named: a folder of which nothing is taken looks like a camera that is gone."""
    hot.options = {"before": before}
    hot.put("1.npy", 1)
    hot.open()
    assert hot.values() == comes[:-1]
    hot.open()
    why = {"skip": "before = take takes such files", "take": "taken or refused before"}[before]
    assert "1 files" in left_out(caplog) and why in left_out(caplog)
    hot.put("3.npy", 3)
    assert hot.values() == comes[-1:]


def test_a_folder_that_is_gone_or_another_one_ends_the_program(hot: Hot) -> None:
    source = hot.open()
    hot.path.rename(hot.path.with_name("away"))
    with pytest.raises(CameraLostError, match="is gone or cannot be read"):
        source.shot(0)
    hot.path.mkdir()  # what a share leaves where it was mounted
    with pytest.raises(CameraLostError, match="was replaced or unmounted"):
        source.shot(0)
    hot.path.rmdir()
    with pytest.raises(CameraError, match=r"cannot be used \(No such file"):
        hot.open()


def test_taken_files_are_moved_and_none_is_replaced(hot: Hot, tmp_path: Path) -> None:
    hot.options = {**PAIRS, "after": "move", "move_to": str(tmp_path / "taken")}
    (tmp_path / "taken" / "rgb").mkdir(parents=True)
    (tmp_path / "taken" / "rgb" / "1.png").write_text("older")
    hot.open()
    for half in ("rgb/1.png", "xyz/1.npy", "rgb/2.png"):
        hot.put(half, int(half[4]))
    assert hot.values(3000) == [1]
    assert not any((hot.path / half).exists() for half in ("rgb/1.png", "xyz/1.npy", "rgb/2.png"))
    assert (tmp_path / "taken" / "rgb" / "1.png").read_text() == "older"
    assert (tmp_path / "taken" / "rgb" / "1~2.png").read_bytes() == content(1)
    assert (tmp_path / "taken" / "refused" / "rgb" / "2.png").read_bytes() == content(2)


def test_what_cannot_be_used_is_not_deleted(hot: Hot) -> None:
    hot.options = {"after": "delete"}
    hot.open()
    hot.put("1.npy", 1)
    hot.write("2.npy", b"half")
    assert hot.values(3000) == [1]
    assert [path.name for path in hot.path.glob("*.npy")] == ["2.npy"]


@pytest.mark.parametrize("after", ["move", "delete"])
def test_a_file_that_cannot_be_put_away_ends_the_program_and_is_never_sent(
    hot: Hot, after: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    hot.options = {"after": after, "before": "take"}
    source = hot.open()
    hot.put("1.npy", 1)
    with monkeypatch.context() as patch, pytest.raises(CameraLostError, match="No space left"):
        patch.setattr(Path, "rename" if after == "move" else "unlink", full)
        hot.tick(1000)
        source.shot(1000)
    hot.open()
    assert not (hot.path / "1.npy").exists()  # done now
    hot.put("2.npy", 2)
    assert hot.values() == [2]
    assert "exposure 1 was taken before the program ended and perhaps not sent" in left_out(caplog)


def test_what_was_passed_on_is_not_doubted(hot: Hot, caplog: pytest.LogCaptureFixture) -> None:
    hot.open()
    hot.put("1.npy", 1)
    assert hot.values() == [1]
    hot.open()
    assert left_out(caplog) == ""


def test_a_folder_is_taken_by_one_program(hot: Hot, tmp_path: Path) -> None:
    hot.open()
    other = Hot(hot.path, {"record": str(tmp_path / "other")})
    with pytest.raises(CameraError, match="another program takes the exposures"):
        other.open()


@pytest.mark.parametrize("damage", ["header", "cut", "removed"])
def test_without_its_record_nothing_is_taken(hot: Hot, damage: str) -> None:
    source = hot.open()
    hot.put("1.npy", 1)
    record = hot.path.with_name("in.taken")
    if damage == "removed":
        record.unlink()
        with pytest.raises(CameraLostError, match="was removed"):
            hot.values()
        return
    source.close()
    data = record.read_bytes()
    record.write_bytes(b"x" * 64 + data[64:] if damage == "header" else data[:-1])
    with pytest.raises(CameraError, match="move it away"):
        hot.open()


@pytest.mark.parametrize(
    ("options", "triggers", "why"),
    [
        ({"path": ""}, "free_run", "path is missing"),
        ({}, "software", "a folder cannot expose"),
        ({}, "hard_wired", "needs exposure times"),
        ({"settle_ms": 300}, "free_run", "settle_ms = 300 must be above"),
        ({"overwritten": True}, "free_run", "needs order = time"),
        ({"overwritten": True, "order": "time", **SUFFIXES}, "free_run", "of two exposures could be mixed"),
        ({"complete": "marker", "marker": ".png"}, "free_run", "not the ending of a marker"),
        ({"after": "move", "move_to": "{in}"}, "free_run", "in which files are looked for"),
        ({"after": "move", "move_to": "/proc/asperity"}, "free_run", "not on the disk"),
        ({"points": "*.doc"}, "free_run", "must end in one of"),
        ({"name_time": "%Y"}, "free_run", "does not give a whole time"),
        ({"sensor": "é"}, "free_run", "printable letters"),
        ({"rows": 3}, "free_run", "rows and columns"),
        ({"invalid": "1,2"}, "free_run", "has 2 numbers"),
        ({"intrinsics": "{in}/lens.json"}, "free_run", "lens.json"),
        ({"record": "/proc/asperity/x"}, "free_run", "record"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(hot: Hot, options: dict[str, Any], triggers: str, why: str) -> None:
    here = {"{in}": str(hot.path), "{in}/lens.json": str(hot.path / "lens.json")}
    hot.options = {key: here.get(str(value), value) for key, value in options.items()}
    with pytest.raises((ConfigError, CameraError), match=why):
        hot.open(triggers)


@pytest.mark.parametrize("after", ["move", "delete"])
def test_a_folder_in_which_it_may_not_write_is_refused_where_files_are_put_away(
    hot: Hot, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a service, to which nearly all of the disk is read-only."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    hot.options = {"after": after}
    with pytest.raises(ConfigError, match=f"after = {after}: this program may not write in .*ReadWritePaths="):
        hot.open()
    hot.options = {}
    hot.open()


def test_a_folder_cannot_be_triggered(hot: Hot) -> None:
    with pytest.raises(CameraError, match="a folder cannot expose"):
        hot.open().trigger()


def test_too_many_files_end_the_program(hot: Hot) -> None:
    hot.options = {"files_max": 10}
    source = hot.open()
    for number in range(12):
        hot.put(f"{number}.txt", 0)
    with pytest.raises(CameraLostError, match="more than 10 files"):
        source.shot(0)


def test_nothing_is_written_into_the_folder_unless_asked(hot: Hot) -> None:
    hot.open()
    hot.put("1.npy", 1)
    before = {path: path.stat().st_mtime_ns for path in [hot.path, *hot.path.iterdir()]}
    assert hot.values() == [1]
    assert before == {path: path.stat().st_mtime_ns for path in [hot.path, *hot.path.iterdir()]}


def test_listing_a_large_folder_takes_a_bounded_share_of_the_time(tmp_path: Path) -> None:
    ticks = iter(range(0, 10_000_000_000, 1_000_000))
    now_ns = 0

    def clock() -> int:
        nonlocal now_ns
        now_ns = next(ticks)
        return now_ns

    os.utime(tmp_path, ns=(0, 0))
    folder = HotFolder(tmp_path, [""], 10, clock)
    folder.names()  # costs one tick of the clock, and so does each look
    waited = 1
    while not folder.is_due(False):
        waited += 1
    assert waited == IDLE_SHARE - 1
    folder.names()
    (tmp_path / "new").touch()
    waited = 1
    while not folder.is_due(False):
        waited += 1
    assert waited == BUSY_SHARE - 1
    folder.close()


@pytest.mark.parametrize("options", [{"before": "take", "max_age_ms": 0}, {"before": "take"}, {}])
def test_a_half_of_an_earlier_exposure_of_the_same_name_is_not_paired(hot: Hot, options: dict[str, Any]) -> None:
    """Its other half was lost, and the camera's program has begun to count again."""
    hot.options = {**PAIRS, "complete": "renamed", **options}
    if options:
        hot.put("rgb/5.png", 1, age_ms=3_600_000)
        hot.open()
    else:  # copied with its time
        hot.open()
        hot.put("rgb/5.png", 1, age_ms=3_600_000)
    hot.put("xyz/5.npy", 2)
    assert hot.values(3000) == []
    hot.put("xyz/6.npy", 3)
    hot.put("rgb/6.png", 3, age_ms=500)
    assert hot.values() == [3]
