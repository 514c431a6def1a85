"""`asperity camera check` and `asperity camera live --write`, on a source that is one of another package."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from asperity.runtime.cameras import source
from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.files.parts import read_parts
from asperity.runtime.cameras.source import Shot, SourceKind
from asperity.runtime.commands import record_camera
from asperity.runtime.commands.camera import app
from asperity.runtime.errors import AsperityError, CameraLostError, ConfigError, DataError, SourceEnded, UsageError
from asperity.runtime.settings.toml_tables import Section
from tests.runtime.cameras.setup.scene import Scene, SceneSource, as_xyz


class Options(Section, frozen=True, forbid_unknown_fields=True):
    """None."""


@dataclass
class Bench:
    """The camera that a command opens."""

    camera: SceneSource

    def load(self) -> SourceKind:
        return SourceKind("for tests", Options, lambda options, triggers: self.camera,
                          triggers=("free_run", "software", "hard_wired"))  # fmt: skip

    def run(self, *words: str) -> Any:
        result = CliRunner().invoke(app, list(words))
        if isinstance(result.exception, AsperityError):
            raise result.exception
        assert result.exit_code == 0, result.output
        assert self.camera.closed
        return result


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(SceneSource(Scene()))
    monkeypatch.setattr(source, "_found", lambda: {"scene": [bench]})
    return bench


def test_check_says_what_is_good(bench: Bench, tmp_path: Path) -> None:
    picture = tmp_path / "check.png"
    result = bench.run("check", "scene", "--frames", "4", "--picture", str(picture))
    assert "nothing stands out" in result.stdout and "depth noise" in result.stdout
    assert bench.camera.next == 4
    with Image.open(picture) as shown:
        assert shown.size == (164, 124)


def test_check_says_what_to_do(bench: Bench) -> None:
    bench.camera = SceneSource(Scene(rgb_level=255, box_mm=20), lost=(2,))
    result = bench.run("check", "scene", "--frames", "3")
    assert "LOOK  saturation" in result.stdout and "shorten the exposure" in result.stdout
    assert "1 exposures missed" in result.stdout
    bench.camera = SceneSource(Scene(rgb_level=255), lost=(2,))
    told = json.loads(bench.run("check", "scene", "--frames", "3", "--json").stdout)
    assert told["sensor"] == "scene 1" and told["figures"]["missed"] == 1
    assert {one["name"] for one in told["findings"] if not one["good"]} == {"count", "brightness", "saturation"}


def test_check_triggers_each_exposure(bench: Bench) -> None:
    result = bench.run("check", "scene", "--frames", "2", "--set", "live.triggers=software")
    assert bench.camera.asked == 2
    assert "from trigger to frame" in result.stdout


def test_a_recording_that_ends_is_checked_as_far_as_it_goes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def shot(self: SceneSource, timeout_ms: int) -> Shot:
        if self.next == 3:
            raise SourceEnded("the recording has ended")
        return plain(self, timeout_ms)

    plain: Any = SceneSource.shot
    monkeypatch.setattr(SceneSource, "shot", shot)
    assert "3 exposures" in bench.run("check", "scene").stdout
    bench.camera = SceneSource(Scene())
    recorded = bench.run("live", "scene", "--write", str(tmp_path / "a"), "--every", "0")
    assert "3 frames recorded" in recorded.stdout and "the recording has ended" in recorded.output


def test_a_lost_camera_ends_the_check(bench: Bench) -> None:
    bench.camera = SceneSource(Scene(), count=1)
    with pytest.raises(CameraLostError, match="no exposure for 1 ms") as lost:
        bench.run("check", "scene", "--frames", "2", "--set", "live.silence_ms=1")
    assert lost.value.exit_code == 20
    assert bench.camera.closed


@pytest.mark.parametrize("words", [
    ("check", "scene", "--frames", "0"), ("check", "scene", "--picture", "a.jpg"),
    ("live", "scene", "--every", "1"), ("live", "scene", "--write", "x", "--every", "-1"),
    ("live", "scene", "--write", "x", "--every", "0", "--parts", "-1"), ("live", "scene", "--write", "x"),
    ("live", "scene", "--write", "x", "--set", "live.triggers=hard_wired"),
])  # fmt: skip
def test_options_that_cannot_be(bench: Bench, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        bench.run(*words)


def test_every_exposure_is_recorded(bench: Bench, tmp_path: Path) -> None:
    bench.camera = SceneSource(Scene(shift_px=lambda index: index), lost=(1,))
    result = bench.run("live", "scene", "--write", str(tmp_path / "good"), "--every", "0", "--frames", "3", "--parts",
                       "2", "--json")  # fmt: skip
    folder = str(tmp_path / "good")
    assert json.loads(result.stdout) == {"folder": folder, "frames": 3, "refused": {}, "missed": 1, "parts": 2}
    samples = list_samples(tmp_path / "good")
    assert list(read_parts(tmp_path / "good", samples).values()) == ["part-001", "part-001", "part-002"]


def test_refused_ones_are_counted_and_said(bench: Bench, tmp_path: Path) -> None:
    bench.camera = SceneSource(Scene(), count=4, repeat=True)
    words = ["live", "scene", "--write", str(tmp_path / "a"), "--every", "0", "--set", "live.silence_ms=1"]
    lost = CliRunner().invoke(app, words)
    assert isinstance(lost.exception, CameraLostError)
    assert f"1 frames recorded in {tmp_path / 'a'} until then; the same command continues" in lost.output
    assert len(list_samples(tmp_path / "a")) == 1
    bench.camera = SceneSource(Scene(), repeat=True)

    class Ending(SceneSource):
        def shot(self, timeout_ms: int) -> Any:
            if self.next == 3:
                raise KeyboardInterrupt
            return super().shot(timeout_ms)

    bench.camera = Ending(Scene(), repeat=True)
    result = bench.run("live", "scene", "--write", str(tmp_path / "b"), "--every", "0")
    assert "1 frames recorded" in result.stdout and "2 refused (2 repeat)" in result.stdout
    assert "--unit mm -o STATION" in result.stdout


def test_frames_that_a_station_would_take_in_another_unit_are_not_recorded(bench: Bench, tmp_path: Path) -> None:
    """A recording is in mm: without a unit what is sent later counts as mm too."""
    words = ("live", "scene", "--write", str(tmp_path / "a"), "--every", "0", "--frames", "1")
    xyz = as_xyz(Scene().frame(0)).xyz
    assert xyz is not None
    metres = {"xyz": xyz / np.float32(1000), "depth": None, "intrinsics": None}
    bench.camera = SceneSource(Scene(fields={**metres, "unit": None}))
    with pytest.raises(ConfigError, match=r"look like m\. .*--set unit=m"):
        bench.run(*words)
    assert not list((tmp_path / "a").rglob("*.png"))
    for said in ({**metres, "unit": "m"}, {**metres, "xyz": xyz, "unit": None}):
        bench.camera = SceneSource(Scene(fields=said))
        bench.run(*words)


def test_a_frame_on_enter(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter, an id and Enter, Enter, q: with exposures that came before each Enter left out."""
    read, write = os.pipe()
    with os.fdopen(read) as stdin:
        typed = iter([b"\n", b"A7\n", b"\xe2\x80\x8b\n", b"\n", b"q\n"])

        class Watched(SceneSource):
            def shot(self, timeout_ms: int) -> Any:
                if self.next % 5 == 3:
                    os.write(write, next(typed))
                return super().shot(timeout_ms)

        class Terminal(io.TextIOWrapper):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr("sys.stdin", Terminal(stdin.buffer))
        bench.camera = camera = Watched(Scene())
        wanted = record_camera.Wanted(tmp_path, 0, None, 2, False, "free_run")
        record_camera.record(camera, LiveSection(), wanted, False)
    os.close(write)
    samples = list_samples(tmp_path)
    assert list(read_parts(tmp_path, samples).values()) == ["part-001", "A7", "A7"]
    numbers = [index for index in range(30) for sample in samples
               if np.array_equal(np.asarray(Image.open(sample.rgb)), Scene().frame(index).rgb)]  # fmt: skip
    assert numbers == [5, 10, 20]  # Enter came while 3, 8, (13,) 18 was taken; the one after that may be too early


def test_the_folder_is_refused_before_a_frame_is_taken(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="notes"):
        bench.run("live", "scene", "--write", str(tmp_path), "--every", "0")
    assert bench.camera.next == 0
    assert bench.camera.closed
