"""Every complete exposure of a hot folder once at most, in order, none half, whatever the writer does, over kills."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asperity.runtime.cameras.files.read import ExposureFiles, FileOptions
from asperity.runtime.cameras.sources.folder.hot_folder import HotFolder
from asperity.runtime.cameras.sources.folder.taken import Taken
from asperity.runtime.frame import Frame
from tests.runtime.cameras.folder.hot_folders import PAIRS, Hot, content, read, shown


class Killed(BaseException):
    """The program ended here."""


class FolderMachine(RuleBasedStateMachine):
    """A writer and a source. Each file shows a number that no other file ever showed."""

    reader = staticmethod(read)
    in_pieces_complete = "stable"
    """How completeness is decided where the writer writes in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hot-"))
        self.next_value, self.next_name = 1, 20
        self.whole: dict[int, str] = {}
        """Number -> name, of exposures that were written to their end, both halves."""
        self.sure: list[int] = []
        """Those that must come: put in place in one step, and not disturbed."""
        self.pieces: list[tuple[str, int, bytes]] = []
        """File, number, what is still to be written."""
        self.handed: list[int] = []
        self.names: list[str] = []
        self.late: set[int] = set()

    @initialize(
        order=st.sampled_from(["name", "time"]), after=st.sampled_from(["keep", "move", "delete"]),
        before=st.sampled_from(["skip", "take"]), pairs=st.booleans(), pieces=st.booleans(),
    )  # fmt: skip
    def begin(self, order: str, after: str, before: str, pairs: bool, pieces: bool) -> None:
        self.pairs, self.by_pieces = pairs, pieces
        for below in ("in", "in/xyz", "in/rgb"):
            (self.folder / below).mkdir()
        options: dict[str, Any] = {"order": order, "after": after, "before": before, "max_age_ms": 0, "settle_ms": 2000}
        options |= {"complete": self.in_pieces_complete if pieces else "renamed"} | (PAIRS if pairs else {})
        self.hot = Hot(self.folder / "in", options)
        self.hot.open(reader=self.reader)

    def files(self, name: str) -> list[str]:
        return [f"xyz/{name}.npy", f"rgb/{name}.png"] if self.pairs else [f"{name}.npy"]

    def value(self, name: str) -> int:
        self.next_value += 1
        self.whole[self.next_value] = name
        return self.next_value

    @rule(step=st.integers(1, 3), first=st.booleans(), gap_ms=st.sampled_from([0, 30, 500]))
    def expose(self, step: int, first: bool, gap_ms: int) -> None:
        """Whole files, one of them some time before the other."""
        self.next_name += step
        name = str(self.next_name)
        value = self.value(name)
        files = self.files(name)
        for file in files if first else reversed(files):
            self.hot.put(file, value)
            self.hot.tick(gap_ms)
        self.sure.append(value)

    @precondition(lambda self: self.by_pieces)
    @rule(at=st.integers(0, 67))
    def start_writing(self, at: int) -> None:
        self.next_name += 1
        name = str(self.next_name)
        value = self.value(name)
        for file in self.files(name):
            data = content(value)
            self.hot.write(file, data[:at])
            self.pieces.append((file, value, data[at:]))

    @precondition(lambda self: self.pieces)
    @rule(which=st.integers(0, 9), nbytes=st.integers(1, 68))
    def go_on_writing(self, which: int, nbytes: int) -> None:
        file, value, data = self.pieces.pop(which % len(self.pieces))
        if (self.hot.path / file).exists():  # a writer with an open file would write to where it was moved
            self.hot.write(file, data[:nbytes], append=True)
            if data[nbytes:]:
                self.pieces.append((file, value, data[nbytes:]))

    @rule(which=st.integers(0, 9))
    def write_an_old_name_again(self, which: int) -> None:
        name = str(self.next_name - which)
        value = self.value(name)
        self.disturb(name)
        for file in self.files(name):
            self.hot.put(file, value)
        self.late.add(value)

    @rule(which=st.integers(0, 9))
    def remove(self, which: int) -> None:
        name = str(self.next_name - which)
        self.disturb(name)
        for file in self.files(name)[: which % 2 + 1]:
            (self.hot.path / file).unlink(missing_ok=True)

    def disturb(self, name: str) -> None:
        self.sure = [value for value in self.sure if self.whole[value] != name]
        self.pieces = [piece for piece in self.pieces if Path(piece[0]).stem != name]

    @rule(ms=st.sampled_from([1, 60, 400, 2500]))
    def time_passes(self, ms: int) -> None:
        self.hot.tick(ms)

    @rule(timeout_ms=st.sampled_from([0, 60, 400, 2500]))
    def wait_for_a_shot(self, timeout_ms: int) -> None:
        self.shot(timeout_ms)

    def shot(self, timeout_ms: int) -> None:
        assert self.hot.source is not None
        shot = self.hot.source.shot(timeout_ms)
        if shot is not None:
            colour, points = shown(shot)
            assert colour == points, "colour and points of two exposures"
            self.handed.append(points)
            assert shot.number is not None and shot.number <= len(self.whole), "counted more than was written"

    @rule(where=st.sampled_from(["nowhere", "read", "before record", "after record", "move", "delete"]))
    def killed(self, where: str) -> None:
        """The program is killed, in the middle of taking an exposure where there is one, and starts again."""
        assert self.hot.source is not None
        with pytest.MonkeyPatch.context() as patch:
            self.break_at(where, patch)
            with suppress(Killed):
                self.shot(0 if where == "nowhere" else 400)
        self.sure = []  # what must come is said again after this: see what is handed out twice, not what is not
        self.hot.open(reader=self.reader)

    def break_at(self, where: str, patch: pytest.MonkeyPatch) -> None:
        def end(*_: Any, **__: Any) -> None:
            raise Killed

        add = Taken.add

        def add_and_end(*arguments: Any, **words: Any) -> None:
            add(*arguments, **words)
            raise Killed

        if where == "read":
            patch.setattr(self.hot.source, "_read", end)
        elif where.endswith("record"):
            patch.setattr(Taken, "add", end if where.startswith("before") else add_and_end)
        elif where != "nowhere":
            patch.setattr(HotFolder, where, end)

    @invariant()
    def none_twice_none_made_up(self) -> None:
        assert len(set(self.handed)) == len(self.handed), "twice"
        assert set(self.handed) <= set(self.whole), "a file that was never whole"

    @invariant()
    def in_order(self) -> None:
        if self.handed and self.hot.options["order"] == "name":
            names = [int(self.whole[value]) for value in self.handed]
            assert names == sorted(set(names)), "out of order"

    def teardown(self) -> None:
        if not hasattr(self, "hot"):
            return
        while self.pieces:
            self.go_on_writing(0, 68)
        assert self.hot.source is not None
        empty = 0
        while empty < 10:  # each exposure before may be waited for until it has settled
            before = len(self.handed)
            self.shot(400)
            self.hot.tick(2500)
            self.none_twice_none_made_up()
            self.in_order()
            empty = 0 if len(self.handed) > before else empty + 1
        lacking = set(self.sure) - set(self.handed)
        assert not lacking, f"never came: {lacking}"
        self.hot.close()
        shutil.rmtree(self.folder)


def test_each_exposure_once_in_order_and_whole() -> None:
    run_state_machine_as_test(FolderMachine, settings=settings(max_examples=60, stateful_step_count=30))


def test_without_the_record_an_exposure_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Taken, "add", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="twice"):
        run_state_machine_as_test(
            FolderMachine, settings=settings(max_examples=200, stateful_step_count=30, phases=[Phase.generate])
        )


def test_with_the_checks_off_a_torn_file_comes_through(tmp_path: Path) -> None:
    def careless(files: ExposureFiles, options: FileOptions) -> Frame:
        return read(ExposureFiles(whole), options)

    whole = tmp_path / "whole"
    whole.write_bytes(content(7))
    for complete, reader, torn in (("renamed", careless, True), ("stable", careless, False), ("renamed", read, False)):
        folder = tmp_path / f"{complete} {reader.__name__}"
        folder.mkdir()
        hot = Hot(folder, {"complete": complete})
        hot.open(reader=reader)
        hot.write("1.npy", content(7)[:50])
        assert bool(hot.shots(100)) == torn
        hot.write("1.npy", content(7)[50:], append=True)
        assert hot.values() == ([] if torn else [7])
        hot.close()
