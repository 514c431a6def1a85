"""Networks built by a child process: done, failed with its last words, too slow, stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from asperity.runtime.engines.tensorrt.build import BackgroundBuild, build_command
from asperity.runtime.errors import EngineError
from asperity.runtime.process.child import of_ours
from asperity.runtime.settings.station_toml import StationConfig

BUILD = "asperity.runtime.engines.tensorrt.build"


def config(**engine: object) -> StationConfig:
    whole = StationConfig()
    return msgspec.structs.replace(whole, engine=msgspec.structs.replace(whole.engine, **engine))


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a Python program in the place of the command."""

    def put(program: str) -> None:
        monkeypatch.setattr(f"{BUILD}.build_command", lambda *_: [sys.executable, "-c", program])

    return put


def wait(build: BackgroundBuild) -> None:
    end_s = time.monotonic() + 60
    while not build.done():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_the_command_says_all_that_the_station_says(tmp_path: Path) -> None:
    command = build_command(
        tmp_path, config(precision="int8", gpu=1, cache="/c", cache_max_mbytes=100, build_mbytes=200, trust="/k")
    )
    program = of_ours("asperity.runtime.cli", "engines", "build")
    assert command[: len(program)] == program
    told = " ".join(command[len(program) :])
    assert told == (
        f"{tmp_path} --precision int8 --gpu 1 --cache /c --cache-max-mbytes 100 --memory-mbytes 200 --nice 10 --keys /k"
    )


def test_done_is_told_once_the_child_has_ended_well(child: Callable[[str], None], tmp_path: Path) -> None:
    child("import sys; sys.stdin.read()")
    build = BackgroundBuild(tmp_path, config())
    wait(build)
    build.stop()


def test_a_failure_brings_the_childs_last_words(child: Callable[[str], None], tmp_path: Path) -> None:
    child("import sys; print('x' * 100000, file=sys.stderr); sys.exit('asperity: there is no bundle')")
    with pytest.raises(EngineError, match=r"failed \(asperity: there is no bundle\); run `asperity engines build`"):
        wait(BackgroundBuild(tmp_path, config()))
    child("import os; os._exit(3)")
    with pytest.raises(EngineError, match="exit code 3"):
        wait(BackgroundBuild(tmp_path, config()))


def test_a_child_that_takes_too_long_is_stopped(
    child: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child("import time; time.sleep(600)")
    build = BackgroundBuild(tmp_path, config(build_s=10))
    assert not build.done()
    later_s = time.monotonic() + 11
    monkeypatch.setattr(f"{BUILD}.time", type("Clock", (), {"monotonic": staticmethod(lambda: later_s)}))
    with pytest.raises(EngineError, match=r"longer than 10 s and was stopped; raise \[engine\] build_s"):
        build.done()
    assert build._child.poll() is not None


def test_it_can_be_stopped_at_any_time(child: Callable[[str], None], tmp_path: Path) -> None:
    child("import time; time.sleep(600)")
    build = BackgroundBuild(tmp_path, config())
    build.stop()
    build.stop()
    with pytest.raises(EngineError, match="failed"):
        build.done()
