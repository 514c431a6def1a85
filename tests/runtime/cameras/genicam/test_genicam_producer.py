"""The source genicam on ``viky.cti``, the simulated GenTL producer of the package genicam, and a real inspector.

The inspector has the CPU engine and a toy bundle that takes the simulated picture whole (no background is removed); the
toy's gate is left out, since its golden scores are made up.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asperity.runtime.cameras.camera_toml import LiveSection
from asperity.runtime.cameras.live import LiveLoop
from asperity.runtime.cameras.mvtec_files import read_frame, write_frame
from asperity.runtime.cameras.source import Shot
from asperity.runtime.cameras.sources.genicam import sdk as room_sdk
from asperity.runtime.cameras.sources.genicam.nodes import Scan3d
from asperity.runtime.cameras.sources.genicam.source import GENICAM, GenicamSection, devices, open_camera
from asperity.runtime.client.frame_sender import FrameSender
from asperity.runtime.errors import CameraError, CameraLostError
from asperity.runtime.frame import Frame, Result
from asperity.runtime.reasons import Reason
from asperity.runtime.security.signing_keys import TrustStore
from asperity.testing import CAMERA, PATIENCE_MS, STATION, Line
from tests.bundle_factory import write_toy_bundle

sdk = pytest.importorskip("genicam")
gentl = pytest.importorskip("genicam.gentl")
CTI = Path(sdk.__file__).parent / "viky.cti"
POINTS = ("ComponentSelector = Range", "ComponentEnable = true")
PX = 100
SMALL = (f"Width = {PX}", f"Height = {PX}", "BouncingBallSize = 40")
FRAMES = 4
UNGATED = (
    "from asperity.runtime.process.child import end_with_parent; end_with_parent(); "
    "from asperity.runtime.engines import parity_gate as gate; "
    "gate.prove = lambda bundle, engine, progress: bundle.manifest.decision; "
    "gate.gate_steps = lambda *arguments: iter(()); "
    "import sys; from pathlib import Path; from asperity.runtime.commands.run import serve; "
    "serve(Path(sys.argv[1]), {}, None)"
)


def options(*settings: str, **more: Any) -> GenicamSection:
    return GenicamSection(cti=str(CTI), settings=(*POINTS, *settings), **{"serial": "2", **more})


class TakesAll(Line):
    """A line whose bundle takes small pictures as they are."""

    def __init__(self, folder: Path) -> None:
        toy = write_toy_bundle(folder / "bundle", TrustStore(folder / "keys"))

        def permissive(manifest: dict[str, Any]) -> None:
            manifest["geometry"] |= {"method": "none", "plane": None, "height_px": PX, "width_px": PX, "side_px": PX,
                                     "invalid": []}  # fmt: skip
            manifest["network"] |= {"group_scale_mm": 50.0, "position_scale_mm": 100.0}
            ranges = {"area_mm2": (5e3, 2e4), "length_mm": (50.0, 200.0), "width_mm": (50.0, 200.0),
                      "height_mm": (0.0, 100.0), "missing_share": (0.0, 0.5), "level_mm": (0.0, 100.0)}  # fmt: skip
            manifest["silhouette"] = [
                {"figure": name, "low": low, "high": high} for name, (low, high) in ranges.items()
            ]

        for golden in (toy.path / "golden" / "rgb").glob("*.png"):
            write_frame(golden.parent.parent, golden.stem, np.zeros((PX, PX, 3), np.uint8), np.ones((PX, PX, 3), "f4"))
        toy.edit(permissive)
        super().__init__(
            station={"recipe": "toy"}, recipes={"toy": str(toy.path)},
            engine={"name": "cpu", "trust": str(folder / "keys"), "threads": 1}, limits={"deadline_ms": 8_000},
        )  # fmt: skip

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", UNGATED, str(self.config)]

    def result(self, sender: FrameSender, seq: int) -> Result:
        found: list[Result] = []

        def come() -> bool:
            wanted = sender.camera_session, seq
            found.extend(one for one in self.heard.results if (one.camera_session, one.seq) == wanted)
            return bool(found)

        self.wait(come, f"the result of seq {seq}")
        assert len(found) == 1
        return found[0]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TakesAll]:
    with TakesAll(tmp_path_factory.mktemp("genicam")) as made:
        made.start()
        made.await_running()
        yield made


class Kept:
    """A source that keeps what it gave."""

    def __init__(self, source: Any) -> None:
        self._source, self.sensor = source, source.sensor
        self.shots: list[Shot] = []

    def shot(self, timeout_ms: int) -> Shot | None:
        shot: Shot | None = self._source.shot(timeout_ms)
        if shot is not None:
            self.shots.append(shot)
        return shot

    def trigger(self) -> None:
        self._source.trigger()

    def close(self) -> None:
        self._source.close()


def test_live_frames_score_as_the_same_frames_from_files(line: TakesAll, tmp_path: Path) -> None:
    results: dict[int, Result] = {}
    lost: list[Result] = []
    with (
        FrameSender(CAMERA, line.ends["frames"], station=STATION) as sender,
        closing(Kept(GENICAM.open(options(*SMALL, "AcquisitionFrameRate = 20"), "free_run"))) as source,
    ):
        assert sender.wait_connected(PATIENCE_MS)
        loop = LiveLoop(source, sender, LiveSection())  # type: ignore[arg-type]
        loop.run(FRAMES, lambda: results.update({len(results): line.result(sender, sender.seq)}))
        first = sender.seq - (loop.summary.exposures - 1)
        lost += [r for seq in range(first, sender.seq) if (r := line.result(sender, seq)).reason is Reason.LOST]
    assert len(source.shots) == len(results) == FRAMES and len(lost) == loop.summary.missed
    numbers = [shot.number for shot in source.shots]
    assert numbers[-1] - numbers[0] + 1 == loop.summary.exposures, "each exposure of the device is a frame or is lost"
    live = [one.score for one in results.values()]
    assert all(one.reason in (Reason.GOOD, Reason.SCORE_ABOVE_THRESHOLD) for one in results.values()), results
    assert None not in live and len(set(live)) == FRAMES, "pictures that are all the same would prove nothing"

    for number, shot in enumerate(source.shots):
        assert shot.frame.xyz is not None
        write_frame(tmp_path, f"{number:03d}", shot.frame.rgb, shot.frame.xyz)
    files = [read_frame(tmp_path / "rgb" / f"{n:03d}.png", tmp_path / "xyz" / f"{n:03d}.tiff", unit="mm")
             for n in range(FRAMES)]  # fmt: skip
    with FrameSender(CAMERA, line.ends["frames"], station=STATION) as sender:
        assert sender.wait_connected(PATIENCE_MS)

        def scored(frame: Frame) -> float:
            assert sender.send(frame, wait_ms=PATIENCE_MS)
            score = line.result(sender, sender.seq).score
            assert score is not None
            return score

        assert [scored(frame) for frame in files] == pytest.approx(live, abs=1e-3)
        # The control: with the colour of another exposure, the same comparison fails.
        swapped = [replace(files[0], rgb=files[-1].rgb), replace(files[-1], rgb=files[0].rgb)]
        assert [scored(frame) for frame in swapped] != pytest.approx([live[0], live[-1]], abs=1e-3)


def test_a_frame_stays_as_it_is_while_the_camera_goes_on() -> None:
    with closing(open_camera(options("AcquisitionFrameRate = 200", buffers=2), "free_run")) as source:
        held = source._camera.fetch(PATIENCE_MS, Scan3d())
        assert held is not None
        pixels = held.parts[0].data.copy()
        first = source.shot(PATIENCE_MS)
        assert first is not None and first.frame.xyz is not None
        before = first.frame.rgb.copy(), first.frame.xyz.copy()
        later = [source.shot(PATIENCE_MS) for _ in range(4)]
        assert np.array_equal(held.parts[0].data, pixels), "the buffer was queued again, and written over"
        assert all(shot is not None and not np.array_equal(shot.frame.rgb, before[0]) for shot in later)
        assert np.array_equal(first.frame.rgb, before[0]) and np.array_equal(first.frame.xyz, before[1])


def test_the_simulated_scene_is_read_right() -> None:
    with closing(open_camera(options(), "free_run")) as source:
        shot = source.shot(PATIENCE_MS)
        assert shot is not None and shot.number == 1 and source.sensor == "Machine Vision Games Ltd. Viky 2"
        frame = shot.frame
        assert frame.xyz is not None and frame.rgb.shape == frame.xyz.shape == (400, 400, 3) and frame.unit == "mm"
        assert (frame.t_exposure_us, frame.clock) == (0, "device"), "it gives no time, so none is made up"
        rows, columns = np.mgrid[:400, :400]
        assert np.array_equal(frame.xyz[..., 0], columns) and np.array_equal(frame.xyz[..., 1], rows)
        ball = frame.xyz[..., 2] > 0
        assert 0 < ball.sum() < 2000 and len(np.unique(frame.rgb[ball], axis=0)) == 1, "colour and height are aligned"


@pytest.mark.parametrize(
    ("more", "settings", "words"),
    [({"serial": ""}, (), "more than one camera.*0 .*1 .*2"), ({"serial": "7"}, (), "no camera with the serial.*'7'"),
     ({}, ("PayloadSize = 3",), "PayloadSize cannot be set to 3"), ({}, ("NoSuchNode = 3",), "no node NoSuchNode"),
     ({}, ("ComponentSelector = Foo",), "Intensity, Range"), ({"cti": "/no/such.cti"}, (), "does not exist")],
)  # fmt: skip
def test_what_cannot_be_opened_is_named_and_hides_nothing(
    more: dict[str, Any], settings: tuple[str, ...], words: str
) -> None:
    values = {"cti": str(CTI), "serial": "2", **more}
    with pytest.raises(CameraError, match=words):
        open_camera(GenicamSection(settings=(*POINTS, *settings), **values), "free_run")
    assert len(room_sdk.list_devices(str(CTI), 1000)) == 3, "a Harvester that was not reset hides every device"


def test_no_trigger_and_no_3d_data_are_refused() -> None:
    with pytest.raises(CameraError, match="no node TriggerMode"):
        open_camera(options(), "software")
    with (
        closing(open_camera(GenicamSection(cti=str(CTI), serial="0"), "free_run")) as source,
        pytest.raises(CameraError, match=r"it holds RGBa8 400 x 400; .* ComponentEnable"),
    ):
        source.shot(PATIENCE_MS)


def test_a_time_out_is_none_and_an_error_of_the_producer_is_a_lost_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_camera(options("AcquisitionFrameRate = 1"), "free_run")) as source:
        acquirer = source._camera._acquirer  # type: ignore[attr-defined]
        acquirer.remote_device.node_map.AcquisitionStop.execute()
        while source.shot(1) is not None:
            pass
        monkeypatch.setattr(room_sdk, "ALIVE_S", 0.0)
        assert source.shot(1) is None, "this producer cannot be asked for the first register; that is not a loss"

        def gone(*_: Any, **__: Any) -> None:
            raise gentl.IoException("cable")

        monkeypatch.setattr(source._camera, "_can_be_asked", True)
        monkeypatch.setattr(source._camera, "_ask", gone)
        with pytest.raises(CameraLostError, match=r"Viky 2 is lost .*check power"):
            source.shot(1)
        monkeypatch.setattr(acquirer, "try_fetch", gone)
        with pytest.raises(CameraLostError, match=r"Viky 2 is lost .*check power"):
            source.shot(1)


def test_an_incomplete_buffer_is_not_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_camera(options(), "free_run")) as source:
        assert source.shot(PATIENCE_MS) is not None
        monkeypatch.setattr(gentl.Buffer, "is_complete", lambda buffer: False)
        while source._damaged < 2:
            assert source.shot(100) is None
        monkeypatch.undo()
        after = source.shot(PATIENCE_MS)
        assert after is not None and after.number is not None and after.number > 2


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(CTI.parent))
    assert [device.id for device in devices()] == ["0", "1", "2"] and "Viky 2" in devices()[2].text
    (tmp_path / "broken.cti").write_text("x")
    monkeypatch.setenv("GENICAM_GENTL64_PATH", f"{tmp_path}:{CTI.parent}")
    assert len(devices()) == 3, "a producer that cannot be loaded hides no other"
    monkeypatch.setenv("GENICAM_GENTL64_PATH", str(tmp_path))
    with pytest.raises(CameraError, match=r"broken.cti cannot be loaded"):
        devices()


def test_a_producer_that_hangs_while_the_camera_is_closed_ends_the_process() -> None:
    """It holds Python's lock meanwhile, so that no thread of Python could."""
    stuck = f"""
from asperity.runtime.cameras.sources.genicam import sdk
device = sdk.open_device({str(CTI)!r}, "2", 1000)
device.start(2)
device.nodes.execute("AcquisitionStop")
monitor = list(device._acquirer._new_buffer_event_monitor_dict.values())[0]
def hang():
    while True:
        monitor.update_event_data(600_000)
device._acquirer.destroy, sdk.STUCK_S = hang, 0.2
device.close()
"""
    done = subprocess.run([sys.executable, "-c", stuck], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1 and "Timeout (0:00:00.2" in done.stderr, done.stderr


def test_the_program_can_still_be_interrupted() -> None:
    before = signal.getsignal(signal.SIGINT)
    with closing(open_camera(options(), "free_run")):
        assert signal.getsignal(signal.SIGINT) is before
