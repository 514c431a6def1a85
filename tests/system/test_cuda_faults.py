"""The GPU's library fails, is lost or hangs in mid frame: the real inspector over the CPU stand-in, started again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.frame import Frame, Result
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.security.signing_keys import TrustStore
from asperity.runtime.states import State
from asperity.testing import CAMERA, PATIENCE_MS, PATIENCE_S, Camera, Line
from tests.bundle_factory import toy_frame, write_toy_bundle

SCRIPT = Path(__file__).parent / "stand_in_inspector.py"
LOST_EXIT_CODE = 18


class CudaLine(Line):
    """A line whose inspector has the CUDA engine, on the stand-in."""

    def __init__(self, folder: Path, **engine: int) -> None:
        toy = write_toy_bundle(folder / "bundle", TrustStore(folder / "keys"), "lsfa")
        super().__init__(
            station={"recipe": "toy"}, recipes={"toy": str(toy.path)},
            engine={"name": "cuda", "trust": str(folder / "keys"), "device_wait_ms": 300, "keep_warm_ms": 0, **engine},
            limits={"deadline_ms": 8_000, "max_age_ms": 60_000, "engine_stuck_ms": 1500},
        )  # fmt: skip
        self.fault = folder / "fault"

    def spoil(self, word: str) -> None:
        """What happens in the next run of the colour network. Never half a word: it may run at any moment."""
        written = self.fault.with_suffix(".new")
        written.write_text(word)
        written.replace(self.fault)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(SCRIPT), str(self.config), str(self.fault)]


class ToyCamera(Camera):
    """Frames of the toy part, no two alike."""

    def picture(self) -> Frame:
        rgb, xyz = toy_frame(self.rng)
        return Frame(
            camera=CAMERA, camera_session=self.camera_session, seq=0, rgb=rgb, xyz=xyz, unit="mm",
            t_exposure_us=time.time_ns() // 1000, clock="realtime",
        )  # fmt: skip


def shown(line: CudaLine, camera: ToyCamera, word: str = "") -> Result:
    """The result of one more frame; ``word``: what happens in it."""
    if word:
        line.spoil(word)
    assert camera.wait_connected(PATIENCE_MS)
    assert camera.send(camera.picture())
    seq = camera.seq

    def come() -> bool:
        return any((r.camera_session, r.seq) == (camera.camera_session, seq) for r in line.heard.results)

    line.wait(come, f"the result of seq {seq}")
    return next(r for r in line.heard.results if (r.camera_session, r.seq) == (camera.camera_session, seq))


def restarted(line: CudaLine, session: str) -> str:
    """As a supervisor does; returns the new session once it judges and the camera is connected to it."""
    line.start()
    session = line.await_state(State.CONTINUOUS_EXECUTION, session).session
    line.wait(lambda: line.heard.states[-1].ready, "the camera")
    return session


@pytest.fixture
def line(tmp_path: Path) -> Iterator[CudaLine]:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    with CudaLine(tmp_path) as made:
        yield made


def test_a_gpu_that_fails_costs_a_frame_or_the_process_and_never_a_wrong_verdict(line: CudaLine) -> None:
    process = line.start()
    session = line.await_state(State.CONTINUOUS_EXECUTION).session
    assert "engine cuda on cpu-shim, onnxruntime" in line.log()
    with ToyCamera(line) as camera:
        assert shown(line, camera).reason in JUDGED
        assert shown(line, camera, "error").reason is Reason.ENGINE
        assert shown(line, camera).reason in JUDGED, "one failed call costs one frame"
        for word in ("lost", "hang"):
            assert shown(line, camera, word).reason is Reason.ENGINE
            line.await_state(State.ERROR)
            assert process.wait(PATIENCE_S) == LOST_EXIT_CODE, line.log()
            assert "unavailable until this process is restarted" in line.log()
            session = restarted(line, session)
            process = line.inspector
            assert shown(line, camera).reason in JUDGED
        assert shown(line, camera, "stuck").reason is Reason.DEADLINE
        line.await_state(State.ERROR)
        assert process.poll() is None, "only the supervisor's watchdog ends it: the beat stands still"
        process.kill()
        restarted(line, session)
        assert shown(line, camera).reason in JUDGED
        results = line.settle(camera)
    assert len({(r.camera_session, r.seq) for r in results.values()}) == len(results) == camera.seq


def test_a_gpu_that_is_lost_in_a_gap_is_found_before_the_next_part(tmp_path: Path) -> None:
    """Keeping it warm asks it for life."""
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    with CudaLine(tmp_path, keep_warm_ms=1, keep_warm_for_s=3600) as line:
        process = line.start()
        line.await_state(State.CONTINUOUS_EXECUTION)
        line.spoil("lost")
        assert process.wait(PATIENCE_S) == LOST_EXIT_CODE, line.log()
        line.await_state(State.ERROR)
