"""The source realsense on an emulated camera, a real inspector: each exposure has the score of its own frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asperity.client import FrameSender
from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.live import LiveLoop
from asperity.runtime.cameras.mvtec_files import read_frame, write_frame
from asperity.runtime.cameras.sources.realsense.source import RealSense
from asperity.runtime.errors import CameraLostError, SourceEnded
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.units import points_mm
from asperity.runtime.wire import ReceivedResult
from asperity.testing import CAMERA, PATIENCE_MS, PATIENCE_S, STATION, Line
from tests.conftest import SIZE_PX, LiteBundle
from tests.runtime.cameras.realsense.realsense_emulation import PERIOD_US, Emulated, FreeRun, Lens, rs

PARTS = 3
SAME = 1e-3
UNIT_M = 1e-5
"""Of stored depth: fine enough for the parts' scores, and 0.65 m at most."""
F_PX = float(np.float32(SIZE_PX / 0.27))
"""The virtual camera's, which made the parts, as the SDK holds it."""
RECORDING = Path(__file__).parent / "recordings" / "single_depth_color_640x480.bag"

Pictures = tuple[NDArray[np.uint16], NDArray[np.uint8]]


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "rgb" / f"{name}.png", folder / "xyz" / f"{name}.tiff"


class Lit(Line):
    """A line that judges by the lite bundle, parts as the camera sees them, and their scores as files."""

    def __init__(self, lite: LiteBundle) -> None:
        super().__init__(bundle=lite.path, engine={"name": "cpu", "trust": str(lite.trust.folder), "threads": 1},
                         limits={"deadline_ms": 60_000, "max_age_ms": 600_000})  # fmt: skip
        self.parts: list[Pictures] = []
        self.scores: list[float] = []
        ray = (np.arange(SIZE_PX) - (SIZE_PX - 1) / 2) / F_PX
        rays = np.stack([*np.meshgrid(ray, ray), np.ones((SIZE_PX, SIZE_PX))], axis=2).astype(np.float32)
        for at in range(PARTS):
            frame = read_frame(*pair(lite.normals / "train" / "good", f"{at:03d}"))
            assert frame.xyz is not None
            depth = np.rint(frame.xyz[..., 2] / UNIT_M).astype(np.uint16)
            rgb = frame.rgb.copy()  # stained, each more than the one before: scores of good parts hardly differ
            rgb[SIZE_PX // 2 : SIZE_PX // 2 + 6 * at, SIZE_PX // 2 : SIZE_PX // 2 + 6 * at] = 0
            self.parts.append((depth, rgb))
            xyz_mm = rays * (depth * np.float32(UNIT_M * 1000))[..., None]
            write_frame(self.folder / "files", f"{at}", rgb, xyz_mm)

    def score_files(self) -> None:
        with FrameSender(CAMERA, self.ends["frames"]) as sender:
            for at in range(PARTS):
                frame = replace(read_frame(*pair(self.folder / "files", f"{at}"), unit="mm"), t_exposure_us=at + 1)
                assert sender.send(frame, wait_ms=PATIENCE_MS)
                score = self.result_at(at + 1).score
                assert score is not None
                self.scores.append(score)
        assert min(abs(one - other) for one, other in zip(self.scores, self.scores[1:], strict=False)) > 10 * SAME

    def result_at(self, t_exposure_us: int) -> ReceivedResult:
        """The result of this exposure."""
        found: list[ReceivedResult] = []

        def come() -> bool:
            found.extend(one for one in self.heard.results if one.t_exposure_us == t_exposure_us)
            return bool(found)

        self.wait(come, f"the result of {t_exposure_us} us")
        return found[0]

    def emulated(self) -> Emulated:
        return Emulated((SIZE_PX, SIZE_PX), lens=Lens(F_PX), unit_m=UNIT_M)


@pytest.fixture(scope="module")
def line(lite_bundle: LiteBundle) -> Iterator[Lit]:
    with Lit(lite_bundle) as made:
        made.start()
        made.await_running()
        made.score_files()
        yield made


_spacers = count(10**6)


@pytest.fixture(autouse=True)
def another_picture(line: Lit) -> None:
    """Before each test: the first picture of a test may be the last one of the test before, which would be frozen."""
    number = next(_spacers)
    rgb = np.random.default_rng(number).integers(0, 256, (SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    frame = replace(read_frame(*pair(line.folder / "files", "0"), unit="mm"), rgb=rgb, t_exposure_us=number)
    with FrameSender(CAMERA, line.ends["frames"]) as sender:
        assert sender.send(frame, wait_ms=PATIENCE_MS)
        line.result_at(number)


Step = tuple[int, int, str]
"""Whose depth, whose colour, and which pictures arrive."""


def play_live(line: Lit, steps: list[Step], source: RealSense, camera: Emulated) -> list[float | Reason]:
    """Expose step after step, each once the one before has its result; score or reason of every result."""
    first = len(line.heard.results)
    left, stamps_us = iter(steps), [0.0]

    def expose() -> None:
        for depth, colour, streams in left:
            stamps_us.append(max(stamps_us[-1] + PERIOD_US, time.monotonic_ns() / 1000))
            camera.expose(line.parts[depth][0], line.parts[colour][1], at_us=stamps_us[-1] % 2**32, streams=streams)
            if streams == "dc":
                return

    def progress() -> None:
        line.wait(lambda: len(line.heard.results) - first >= loop.summary.exposures, "the results")
        expose()

    with FrameSender(CAMERA, line.ends["frames"]) as sender:
        assert sender.wait_connected(PATIENCE_MS)
        loop = LiveLoop(source, sender, LiveSection(silence_ms=PATIENCE_MS))
        expose()
        loop.run(sum(streams == "dc" for _, _, streams in steps), progress)
    source.close()
    assert loop.summary.exposures == len(steps)
    results = sorted(line.heard.results[first:], key=lambda one: one.seq)
    assert [one.seq for one in results] == list(range(1, len(steps) + 1))
    return [one.reason if one.score is None else one.score for one in results]


def test_each_exposure_has_the_score_of_its_frame_and_a_lost_one_is_lost(line: Lit) -> None:
    camera = line.emulated()
    steps = [(0, 0, "dc"), (1, 1, "dc"), (2, 2, "d"), (0, 0, "c"), (2, 2, "dc"), (1, 1, "dc")]
    scores = play_live(line, steps, camera.open(), camera)
    assert scores[2:4] == [Reason.LOST, Reason.LOST]
    assert [scores[at] for at in (0, 1, 4, 5)] == pytest.approx([line.scores[part] for part in (0, 1, 2, 1)], abs=SAME)


def test_pictures_of_two_exposures_are_seen_in_the_scores(line: Lit) -> None:
    """The control of the test above: colours that are swapped, and depth that is stamped one exposure late."""
    camera = line.emulated()
    swapped, late = [(0, 1, "dc"), (1, 0, "dc")], [(0, 1, "dc"), (1, 2, "dc")]
    scores = play_live(line, swapped + late, camera.open(), camera)
    for (depth, colour, _), score in zip(swapped + late, scores, strict=True):
        assert isinstance(score, float)
        assert min(abs(score - line.scores[depth]), abs(score - line.scores[colour])) > 10 * SAME


def test_without_the_check_of_stamps_a_wrong_pair_is_judged(line: Lit, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = line.emulated()
    source = camera.open()
    monkeypatch.setattr(source._pairing, "_apart_us", float("inf"))
    camera.expose(*line.parts[0], streams="d")
    camera.expose(*line.parts[1], streams="c")
    shot = source.shot(1000)
    source.close()
    assert shot is not None
    with FrameSender(CAMERA, line.ends["frames"]) as sender:
        assert sender.send(shot.frame, wait_ms=PATIENCE_MS)
        score = line.result_at(shot.frame.t_exposure_us).score
    assert score is not None and abs(score - line.scores[0]) > 10 * SAME


def test_a_recording_through_the_command(line: Lit, tmp_path: Path) -> None:
    camera, file = line.emulated(), tmp_path / "parts.db3"
    camera.record(file, lambda: [
        camera.expose(*line.parts[part], at_us=at * 100_000 + 7_000_000) for at, part in enumerate((2, 0, 1))
    ])  # fmt: skip
    first = len(line.heard.results)
    given = {"play": file, "camera.frames": line.ends["frames"], "live.silence_ms": PATIENCE_MS, "fps": 30} | {
        f"{stream}_{side}_px": SIZE_PX for stream in ("depth", "colour") for side in ("width", "height")
    }  # fmt: skip
    process = line.asperity("camera", "live", "realsense", "--json", *(
        part for key, value in given.items() for part in ("--set", f"{key}={value}")
    ))  # fmt: skip
    assert process.wait(PATIENCE_S) == 0, process.log()
    assert '"sent": 3' in process.log()
    line.wait(lambda: len(line.heard.results) - first == 3, "the results")
    scores = [one.score for one in sorted(line.heard.results[first:], key=lambda one: one.seq)]
    assert scores == pytest.approx([line.scores[part] for part in (2, 0, 1)], abs=SAME)


def test_a_silent_camera_ends_it_in_time(line: Lit) -> None:
    camera = Emulated()
    with FrameSender(CAMERA, line.ends["frames"]) as sender, pytest.raises(CameraLostError, match="for 300 ms"):
        LiveLoop(camera.open(), sender, LiveSection(silence_ms=300)).run()


def test_five_triggers_are_answered_by_five_later_exposures() -> None:
    with (
        Line("ok", station={"triggers": "software"}, limits={"deadline_ms": 30_000, "max_age_ms": 30_000}) as line,
        FrameSender(CAMERA, line.ends["frames"], station=STATION, results_endpoint=line.ends["results"]) as sender,
        line.client() as plc,
    ):
        line.start()
        line.await_running()
        assert sender.wait_connected(PATIENCE_MS)
        camera = Emulated(domain="global_time")
        source = camera.open("software", clock="host")
        loop = LiveLoop(source, sender, LiveSection(triggers="software", silence_ms=PATIENCE_MS))
        thread = threading.Thread(target=loop.run, args=(5,))
        asked_us: dict[int, float] = {}
        with FreeRun(camera, lambda: time.time() * 1e6):
            thread.start()
            while loop.summary.sent < 5:
                trigger_id = len(asked_us) + 1
                assert trigger_id < 60
                asked_us[trigger_id] = time.time() * 1e6
                # PUB forgets what is sent before a subscriber has joined, and then there is no frame.
                plc.request("trigger", trigger_id=trigger_id, timeout_ms=2000 if loop.summary.sent else 300)
                line.wait(lambda: any(one.trigger_id == trigger_id for one in line.heard.results), "the result")  # noqa: B023
            thread.join()
        source.close()
        answered = [one for one in line.heard.results if one.reason is not Reason.NO_FRAME]
        assert [one.reason for one in answered] == [Reason.GOOD] * 5
        for one in answered:
            # The stamp is of the middle of the exposure, half a period after it began.
            assert one.t_exposure_us > asked_us[one.trigger_id] + PERIOD_US / 2


@pytest.mark.soak  # of the SDK alone; now and then its player gives no frameset at all
def test_the_pipeline_of_the_sdk_makes_framesets_of_two_exposures() -> None:
    """Why the source opens the sensors without it."""
    pipeline, config = rs.pipeline(rs.context()), rs.config()
    config.enable_device_from_file(str(RECORDING), repeat_playback=False)
    framesets: list[tuple[float, float]] = []
    came = threading.Event()

    def take(frameset: Any) -> None:
        both = frameset.as_frameset()
        framesets.append((both.get_depth_frame().get_timestamp(), both.get_color_frame().get_timestamp()))
        came.set()

    pipeline.start(config, take)
    assert came.wait(PATIENCE_S)
    pipeline.stop()
    assert min(abs(depth_ms - colour_ms) for depth_ms, colour_ms in framesets) > 1000 / 6 / 2


def test_the_recording_of_a_real_camera_has_no_exposure_that_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a D435, whose two pictures are of two exposures; the SDK's own pipeline pairs them."""
    camera = Emulated((480, 640))
    source = camera.open(serial="728612070259", play=str(RECORDING), fps=6)
    assert source.sensor == "Intel RealSense D435 728612070259 fw 05.09.14.00"
    with pytest.raises(SourceEnded, match="3 pictures had no other half"):
        while True:
            assert source.shot(PATIENCE_MS) is None
    source.close()

    source = Emulated((480, 640)).open(serial="", play=str(RECORDING), fps=6)
    monkeypatch.setattr(source._pairing, "_apart_us", float("inf"))  # the control
    shot = source.shot(PATIENCE_MS)
    source.close()
    assert shot is not None and shot.number == 169
    frame = shot.frame
    assert frame.rgb.shape == (480, 640, 3) and frame.unit == "mm" and frame.scale == 1.0
    points, valid = points_mm(frame, "mm")
    assert valid.mean() > 0.3 and 100 < np.median(points[valid][:, 2]) < 10_000

