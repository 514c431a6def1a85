"""kill -9 of a program that takes exposures from a folder, again and again: none comes twice, none out of order."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from asperity.runtime.process.child import Child
from tests.places import ROOT
from tests.runtime.cameras.folder.hot_folders import Hot, content, shown

KILLS = 4
EXPOSURES = 240
PATIENCE_S = 60.0
PROGRAM = (
    sys.executable, "-c",
    f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.runtime.cameras.folder.test_folder_kill import main; "
    "main(*sys.argv[1:])",
)  # fmt: skip


def options(after: str) -> dict[str, object]:
    return {"before": "take", "after": after, "complete": "renamed", "max_age_ms": 0, "settle_ms": 600_000}


def main(folder: str, after: str, handed: str) -> None:
    """Write what comes into ``handed``, as the live loop would send it, endlessly."""
    source = Hot(Path(folder), options(after)).open()
    file = os.open(handed, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        shot = source.shot(0)
        if shot is not None:
            os.write(file, f"{shown(shot)[0]}\n".encode())  # in one piece


@pytest.mark.parametrize("after", ["keep", "move"])
def test_over_kills_each_exposure_comes_once_at_most_and_in_order(tmp_path: Path, after: str) -> None:
    folder, handed = tmp_path / "in", tmp_path / "handed"
    folder.mkdir()
    handed.touch()
    for number in range(EXPOSURES):
        (folder / ".part").write_bytes(content(number))
        (folder / ".part").rename(folder / f"{number}.npy")
    for kill in range(1, KILLS + 1):
        with Child([*PROGRAM, str(folder), after, str(handed)]) as program:
            ends_s = time.monotonic() + PATIENCE_S
            while len(lines(handed)) < kill * 40 and time.monotonic() < ends_s:
                assert program.poll() is None
                time.sleep(0.001)
            program.kill()
    hot = Hot(folder, options(after))
    hot.open()
    rest = hot.values(ms=30_000)
    hot.close()
    found = [*lines(handed), *rest]
    assert found == sorted(set(found))
    assert rest, "the kills came too late to be of use"
    assert EXPOSURES - KILLS <= len(found) <= EXPOSURES


def lines(handed: Path) -> list[int]:
    return [int(line) for line in handed.read_text().splitlines()]
