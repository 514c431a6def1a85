"""One file that a program overwrites endlessly: each exposure once at most, in order, none half, over kills."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.runtime.cameras.folder.hot_folders import Hot, content, shown

NAME = "latest.npy"


class OverwrittenMachine(RuleBasedStateMachine):
    """A writer and a source. Each exposure shows a larger number than the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hot-"))
        self.hot = Hot(self.folder)
        self.value = 0
        self.rest = b""
        """Of the exposure that is being written in place."""
        self.handed: list[int] = []

    @initialize(
        renamed=st.booleans(), after=st.sampled_from(["keep", "move", "delete"]),
        before=st.sampled_from(["skip", "take"]),
    )  # fmt: skip
    def begin(self, renamed: bool, after: str, before: str) -> None:
        self.renamed = renamed
        self.hot.options = {
            "overwritten": True, "order": "time", "complete": "renamed" if renamed else "stable", "after": after,
            "before": before, "record": str(self.folder / "record"), "max_age_ms": 0,
        }  # fmt: skip
        self.hot.open()

    @rule(nbytes=st.integers(0, 68))
    def write(self, nbytes: int) -> None:
        """The next exposure; what was being written before is given up."""
        self.value += 1
        self.rest = b""
        self.hot.tick(5)  # files that were written within one tick of the system's clock look the same
        if self.renamed:
            self.hot.put(NAME, self.value)
        else:
            self.hot.write(NAME, content(self.value)[:nbytes])
            self.rest = content(self.value)[nbytes:]

    @rule(nbytes=st.integers(1, 68))
    def go_on(self, nbytes: int) -> None:
        if self.rest and (self.folder / NAME).exists():
            self.hot.write(NAME, self.rest[:nbytes], append=True)
            self.rest = self.rest[nbytes:]

    @rule()
    def touch(self) -> None:
        if (self.folder / NAME).exists():
            os.utime(self.folder / NAME, ns=(self.hot.wall_ns, self.hot.wall_ns))

    @rule(timeout_ms=st.sampled_from([0, 60, 400, 2500]))
    def shot(self, timeout_ms: int) -> None:
        assert self.hot.source is not None
        shot = self.hot.source.shot(timeout_ms)
        if shot is not None:
            self.handed.append(shown(shot)[0])
            assert shot.number is not None and shot.number <= self.value

    @rule(ms=st.sampled_from([1, 60, 400, 2500]))
    def time_passes(self, ms: int) -> None:
        self.hot.tick(ms)

    @rule()
    def killed(self) -> None:
        self.hot.open()

    @invariant()
    def once_and_in_order(self) -> None:
        assert self.handed == sorted(set(self.handed))

    def teardown(self) -> None:
        if self.hot.source is not None:
            self.write(68)
            self.shot(2500)
            assert self.handed[-1] == self.value
        self.hot.close()
        shutil.rmtree(self.folder)


def test_each_exposure_of_an_overwritten_file_comes_once_in_order_and_whole() -> None:
    run_state_machine_as_test(OverwrittenMachine, settings=settings(max_examples=40, stateful_step_count=25))
