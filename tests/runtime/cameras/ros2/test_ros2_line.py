"""A ROS 2 driver's process, `asperity camera live ros2` and a real inspector: each part gets its own frame's score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count, cycle
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("zenoh")
pytest.importorskip("rosbags")

from rosbags.rosbag2 import StoragePlugin

from asperity.client import FrameSender
from asperity.runtime.cameras.files.folders import list_samples
from asperity.runtime.cameras.mvtec_files import read_frame
from asperity.runtime.commands.camera import app
from asperity.runtime.errors import CameraLostError
from asperity.runtime.reasons import Reason
from asperity.runtime.wire import ReceivedResult
from asperity.testing import CAMERA, Child, Line
from asperity.testing.site import PATIENCE_S, free_port
from tests.conftest import LiteBundle
from tests.runtime.cameras.ros2.ros2_driver import CLOUD, COLOUR, Driver, cloud, driver_command, image, stamp_ns
from tests.runtime.cameras.ros2.test_ros2_bags import written

FRAMES = 6
SAME = 1e-3


class Lit(Line):
    """A line that judges by the lite bundle, and the same frames from file."""

    def __init__(self, lite: LiteBundle) -> None:
        super().__init__(bundle=lite.path, engine={"name": "cpu", "trust": str(lite.trust.folder), "threads": 1},
                         limits={"deadline_ms": 60_000, "max_age_ms": 600_000})  # fmt: skip
        samples = list_samples(lite.normals)[:FRAMES]
        self.frames = [read_frame(sample.rgb, sample.xyz) for sample in samples]
        self.frames_file = self.folder / "frames.npz"
        np.savez(self.frames_file, rgb=[frame.rgb for frame in self.frames], xyz=[frame.xyz for frame in self.frames])
        self.scores: list[float] = []
        """Of the frames from file."""

    def score_files(self) -> None:
        with FrameSender(CAMERA, self.ends["frames"]) as sender:
            for at, frame in enumerate(self.frames, start=1):
                assert sender.send(replace(frame, t_exposure_us=at), wait_ms=round(1000 * PATIENCE_S))
                score = self.result_at(at).score
                assert score is not None
                self.scores.append(score)

    def result_at(self, t_exposure_us: int, others: tuple[Child, ...] = ()) -> ReceivedResult:
        """The result of this exposure."""
        found: list[ReceivedResult] = []

        def come() -> bool:
            found.extend(one for one in self.heard.results if one.t_exposure_us == t_exposure_us)
            for other in others:
                assert other.poll() is None, other.log()
            return bool(found)

        self.wait(come, f"the result of {t_exposure_us} us")
        return found[0]

    def live_options(self, port: int, **changed: object) -> list[str]:
        given = {"points": CLOUD, "colour": COLOUR, "connect": f"tcp/127.0.0.1:{port}", "open_ms": 60_000,
                 "live.silence_ms": 60_000, "live.late_ms": 60_000, "camera.frames": self.ends["frames"],
                 "camera.results": self.ends["results"]} | changed  # fmt: skip
        return ["live", "ros2", *(part for key, value in given.items() for part in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def line(lite_bundle: LiteBundle) -> Iterator[Lit]:
    with Lit(lite_bundle) as made:
        made.start()
        made.await_running()
        made.score_files()
        yield made


class Session:
    """A driver's process and `asperity camera live` on it."""

    def __init__(self, line: Lit) -> None:
        port = free_port()
        self.line = line
        self.driver = line.spawn(*driver_command(port, line.frames_file))
        self.live = line.asperity("camera", *line.live_options(port))
        self._exposures = count()

    def send(self, step: str) -> int:
        """Have the driver publish an exposure; its number."""
        assert self.driver.stdin is not None
        self.driver.stdin.write(f"{step}\n".encode())
        self.driver.stdin.flush()
        return next(self._exposures)

    def result(self, exposure: int) -> ReceivedResult:
        """The result of the exposure with this stamp."""
        return self.line.result_at(stamp_ns(exposure) // 1000, (self.driver, self.live))

    def score(self, step: str) -> float:
        score = self.result(self.send(step)).score
        assert score is not None
        return score

    def warm_up(self) -> None:
        """Send until an exposure has its result: what comes before the program takes frames has none."""
        for step in cycle("01"):
            exposure = self.send(step)
            for _ in range(40):
                self.line.listen(50)
                assert self.live.poll() is None, self.live.log()
                if any(one.t_exposure_us == stamp_ns(exposure) // 1000 for one in self.line.heard.results):
                    return


def test_every_exposure_has_one_result_of_its_own_frame(line: Lit) -> None:
    session = Session(line)
    session.warm_up()
    first = len(line.heard.results)
    expected: list[float | None] = []
    for step in ("2", "3", "4c", "5", "2-", "3"):
        lost = step[-1] in "c-"
        expected.append(None if lost else line.scores[int(step)])
        exposure = session.send(step)
        if not lost:
            session.result(exposure)
    results = sorted(line.heard.results[first:], key=lambda one: one.seq)
    assert [one.seq for one in results] == list(range(results[0].seq, results[0].seq + 6))
    for result, score in zip(results, expected, strict=True):
        if score is None:
            assert result.reason is Reason.LOST and not result.accept
        else:
            assert result.score == pytest.approx(score, abs=SAME)

    # Controls: pictures of two exposures that were mixed by the driver itself are noticed by the comparison above.
    assert abs(session.score("2/4") - line.scores[2]) > SAME, "the colours of two exposures, swapped"
    assert abs(session.score("4/2") - line.scores[4]) > SAME
    session.send("3+")
    for step, points in (("5+", 3), ("2+", 5)):
        assert abs(session.score(step) - line.scores[points]) > SAME, "the points, one stamp late"
        assert abs(session.line.scores[int(step[0])] - line.heard.results[-1].score) > SAME  # type: ignore[operator]

    session.driver.kill()
    assert session.live.wait(PATIENCE_S) == 20
    assert "is gone; start the driver again" in session.live.log()


def test_silence_ends_the_program(line: Lit) -> None:
    driver = Driver(port := free_port(), [COLOUR, CLOUD])
    try:
        result = CliRunner().invoke(app, line.live_options(port, **{"live.silence_ms": 200}))
    finally:
        driver.close()
    assert isinstance(result.exception, CameraLostError) and result.exception.exit_code == 20
    assert "gave no exposure for 200 ms" in str(result.exception)


@pytest.fixture(scope="module")
def bag(line: Lit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 4, 3 and 0, of which 3 lacks its points."""
    messages = []
    for exposure, at in zip((1000, 1001, 1002), (4, 3, 0), strict=True):
        frame = line.frames[at]
        assert frame.xyz is not None
        messages.append((COLOUR, image(frame.rgb, "rgb8", stamp_ns(exposure))))
        if exposure != 1001:
            messages.append((CLOUD, cloud(frame.xyz, stamp_ns(exposure), frame.rgb)))
    return written(tmp_path_factory.mktemp("bag") / "bag", StoragePlugin.MCAP, messages)


def test_a_bag_is_judged_as_the_files_and_ends_in_order(line: Lit, bag: Path) -> None:
    result = CliRunner().invoke(app, line.live_options(1, bag=bag, bag_speed=0.01))
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith("2 frames sent of 3 exposures")
    for exposure, frame in ((1000, 4), (1002, 0)):
        assert line.result_at(stamp_ns(exposure) // 1000).score == pytest.approx(line.scores[frame], abs=SAME)


def test_a_bag_is_recorded_as_frames_for_calibration(line: Lit, bag: Path, tmp_path: Path) -> None:
    options = line.live_options(1, bag=bag, bag_speed=0)
    result = CliRunner().invoke(app, [*options, "--write", str(tmp_path / "out"), "--every", "0"])
    assert result.exit_code == 0, result.exception
    assert "2 frames recorded" in result.stdout and "1 missed by the camera" in result.stdout
    for sample, at in zip(list_samples(tmp_path / "out"), (4, 0), strict=True):
        frame, expected = read_frame(sample.rgb, sample.xyz), line.frames[at]
        assert frame.xyz is not None and expected.xyz is not None
        np.testing.assert_array_equal(frame.rgb, expected.rgb)
        np.testing.assert_allclose(frame.xyz, expected.xyz * 1000, rtol=1e-6)
