"""The whole engine through the real loader, over a recorded driver: contexts, streams, recordings, failures."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asperity.runtime.cuda import driver as loader
from asperity.runtime.cuda.build import missing_for_simt
from asperity.runtime.cuda.frame_device import CudaFrameDevice
from asperity.runtime.cuda.shim.graphs import OnnxGraphs
from asperity.runtime.cuda.shim.streams import ShimFrameDevice
from asperity.runtime.engines.cuda import CudaEngine, Settings
from asperity.runtime.errors import EngineError, EngineLostError
from asperity.runtime.frame import Scores
from tests.runtime.cuda.recorded_driver import RecordedDriver
from tests.runtime.cuda.stand_in import SHOT, Station, silent, station
from tests.synthetic_station import shoot

FRAMES = [SHOT.frame, shoot(moved_mm=30.0).frame, shoot(3, radius_mm=20.0).frame]


@pytest.fixture(scope="module")
def kernels() -> ShimFrameDevice:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(f"kernels cannot be built for the CPU here: {reason}")
    return ShimFrameDevice()


@pytest.fixture
def driver(kernels: ShimFrameDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordedDriver]:
    recorded = RecordedDriver(kernels)
    package: Any = types.ModuleType("pycuda")
    package.driver = recorded.pycuda()
    bindings: Any = types.ModuleType("cuda.bindings")
    bindings.driver = recorded.bindings()
    for name, module in (("pycuda", package), ("pycuda.driver", package.driver), ("cuda", types.ModuleType("cuda"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(loader, "check_driver", lambda: None)
    yield recorded


def engine_over(driver: RecordedDriver, made: Station, folder: Path, lanes: int = 1) -> CudaEngine:
    """As ``runtime.engines.opening`` makes one, with ONNX Runtime for the networks."""
    fatbin = folder / "asperity.fatbin"
    fatbin.write_bytes(b"image")
    device = CudaFrameDevice(0, fatbin)
    return CudaEngine(
        device, OnnxGraphs(made.graphs, driver.shim), made.geometry, made.network, made.decision, made.banks, None,
        Settings(lanes=lanes, wait_ms=200, keep_warm_ms=0),
    )  # fmt: skip


def test_the_engine_goes_through_the_driver(driver: RecordedDriver, kernels: ShimFrameDevice, tmp_path: Path) -> None:
    """Opened by one thread, used by another, put away by a third; the same scores as on the stand-in itself."""
    made = station("local")
    made_by: list[CudaEngine] = []
    thread = threading.Thread(target=lambda: made_by.append(engine_over(driver, made, tmp_path, 2)))
    thread.start()
    thread.join()
    (engine,) = made_by
    opened = len(driver.calls)
    answers = engine.score_batch(FRAMES, silent)
    alone = made.cuda(ShimFrameDevice(like=kernels))
    for frame, answer in zip(FRAMES, answers, strict=True):
        if isinstance(answer, Scores):
            expected = alone.score(frame, silent)
            assert (answer.modalities["points"].distance_map == expected.modalities["points"].distance_map).all()
            assert answer.modalities["rgb"].image_distance == expected.modalities["rgb"].image_distance
        else:
            assert "off the background plane" in str(answer)
    path = driver.calls[opened:]
    assert not {"cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate", "cuStreamSynchronize"} & set(path)
    assert path.count("cuGraphLaunch") == 5, "two a scored frame, one a refused"
    assert path.count("cuLaunchKernel") == 6, "begin and points, the rest is recorded"
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join()
    assert driver.live == [] and driver.pinned == 0 and driver.graphs == 0
    assert not any(driver.stacks.values()), "a context was left on a thread's stack"
    with pytest.raises(EngineError, match="closed"):
        engine.score(SHOT.frame, silent)


@pytest.mark.parametrize("words", ["an illegal memory access was encountered", "dead"])
def test_a_sticky_error_loses_the_engine_and_closing_it_is_quiet(
    driver: RecordedDriver, tmp_path: Path, words: str
) -> None:
    engine = engine_over(driver, station(), tmp_path)
    engine.score(SHOT.frame, silent)
    driver.broken = words
    with pytest.raises(EngineLostError, match="failed"):
        engine.score(SHOT.frame, silent)
    engine.close()
    assert not any(driver.stacks.values())


def test_a_device_that_does_not_open_leaves_no_context_behind(driver: RecordedDriver, tmp_path: Path) -> None:
    """A fatbin of other chips, found out by the thread that opens recipes."""

    def refuse(image: bytes) -> None:
        raise driver.error("no kernel image is available for execution on the device")

    sys.modules["pycuda.driver"].module_from_buffer = refuse  # type: ignore[attr-defined]
    told: list[str] = []

    def opens() -> None:
        with pytest.raises(EngineError) as info:
            engine_over(driver, station(), tmp_path)
        told.append(str(info.value))

    thread = threading.Thread(target=opens)
    thread.start()
    thread.join()
    assert "holds no kernels for Recorded 9000" in told[0] and "asperity.runtime.cuda.build" in told[0]
    assert not any(driver.stacks.values())


def test_a_gpu_that_is_full_is_told_before_anything_is_taken(driver: RecordedDriver, tmp_path: Path) -> None:
    sys.modules["pycuda.driver"].mem_get_info = lambda: (2**20, 2**33)  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match=r"Recorded 9000 has 1 MB free .* are needed"):
        engine_over(driver, station(), tmp_path)
    assert driver.live == [] and not any(driver.stacks.values())
