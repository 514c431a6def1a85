"""The CUDA engine on a device that fails once, for good, or never comes back, on the CPU stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest

from asperity.runtime.cuda.shim.streams import ShimFrameDevice, ShimRecording
from asperity.runtime.engines import cuda
from asperity.runtime.engines.cuda import Settings
from asperity.runtime.engines.simulated import simulated_manifest
from asperity.runtime.errors import EngineError, EngineLostError
from asperity.runtime.frame import Result
from asperity.runtime.judging.pipeline import Job, Recipe, Turn, inspect_together
from asperity.runtime.reasons import Reason
from tests.runtime.cuda.stand_in import SHOTS, same, silent, station


def test_one_failing_run_costs_its_own_frame_only(device: ShimFrameDevice) -> None:
    """The library's call fails once in mid frame: an error for that frame, and never the score of another one."""
    made = station()
    engine = made.cuda(device, Settings(lanes=2, keep_warm_ms=0))
    expected = [engine.score(frame, silent) for frame in SHOTS]
    for name in ("rgb", "adaptor_rgb", "points", "adaptor_points"):
        engine._graphs.spoil = failing_once(name)  # type: ignore[attr-defined]
        answers = engine.score_batch(list(SHOTS), silent)
        told = [str(answer) for answer in answers if isinstance(answer, EngineError)]
        # The stand-in's error shows to whoever waits first; what the failed frame left lying is then nobody's.
        assert "the library's call failed" in told[0] + told[-1] and len(told) <= 2
        for answer, right in zip(answers, expected, strict=True):
            assert isinstance(answer, EngineError) or same(answer, right)  # type: ignore[arg-type]
        assert same(engine.score(SHOTS[0], silent), expected[0])


def failing_once(name: str) -> Callable[[str], None]:
    """The first run of this network fails."""
    failed: list[str] = []

    def spoil(ran: str) -> None:
        if ran == name and not failed:
            failed.append(ran)
            raise EngineError("the library's call failed")

    return spoil


def test_an_answer_of_another_frame_is_never_taken(device: ShimFrameDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that does nothing leaves the last frame's answer lying there."""
    engine = station().cuda(device)
    engine.score(SHOTS[0], silent)
    monkeypatch.setattr(ShimRecording, "replay", lambda self: None)
    with pytest.raises(EngineError, match="answered for frame"):
        engine.score(SHOTS[1], silent)


def test_a_device_that_fails_for_good_loses_the_engine(device: ShimFrameDevice) -> None:
    """The first error after which every call fails; nothing is asked of the device after that."""
    engine = station().cuda(device)

    def break_device(name: str) -> None:
        device.lost = "an illegal memory access was encountered"
        raise EngineError("an illegal memory access was encountered")

    engine._graphs.spoil = break_device  # type: ignore[attr-defined]
    with pytest.raises(EngineLostError, match=r"illegal memory access.*unavailable until this process is restarted"):
        engine.score(SHOTS[0], silent)
    for call in (lambda: engine.score(SHOTS[0], silent), lambda: engine.score_batch([SHOTS[0]], silent), engine.idle):
        with pytest.raises(EngineLostError):
            call()
    engine.close()
    engine.close()


def test_every_engine_of_a_lost_device_is_lost(device_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of one process share the device's context; the other one hears of it in the next gap."""
    monkeypatch.setattr(cuda, "_open_engines", WeakSet())
    broken, other = (station().cuda(device_of(), Settings(wait_ms=50, keep_warm_ms=0)) for _ in range(2))
    other.idle()
    broken._device.hangs = True  # type: ignore[attr-defined]
    with pytest.raises(EngineLostError):
        broken.score(SHOTS[0], silent)
    with pytest.raises(EngineLostError, match="did not finish within"):
        other.idle()


def test_a_device_that_hangs_is_lost_in_bounded_time(device: ShimFrameDevice) -> None:
    engine = station().cuda(device, Settings(wait_ms=50, keep_warm_ms=0))
    device.hangs = True
    with pytest.raises(EngineLostError, match="did not finish within 50 ms"):
        engine.score(SHOTS[0], silent)


def test_stations_that_share_a_lost_engine_all_hear_of_it(device: ShimFrameDevice) -> None:
    """Two stations' frames at once: each is judged, and when the device fails each result is unknown, ENGINE."""
    made = station()
    engine = made.cuda(device, Settings(lanes=2, wait_ms=50, keep_warm_ms=0))
    recipe = Recipe(
        name="r", bundle="b", manifest=simulated_manifest("r"), decision=made.decision, engine=engine,
        info=engine.describe(), golden_steps=lambda progress: iter(()), proven_threshold=1.0,
    )  # fmt: skip

    def turns() -> list[Turn]:
        return [
            Turn(Job(Result(station=f"s{n}", session="x", result_id=n), SHOTS[n], None, 0, 2**62), recipe, None)
            for n in range(2)
        ]

    scored = [outcome.result for outcome, _ in inspect_together(turns(), silent)]
    assert all(result.score is not None for result in scored) and scored[0].score != scored[1].score
    device.hangs = True
    for outcome, _ in inspect_together(turns(), silent):
        assert (outcome.result.reason, outcome.result.score) == (Reason.ENGINE, None)
        assert isinstance(outcome.lost, EngineLostError)
