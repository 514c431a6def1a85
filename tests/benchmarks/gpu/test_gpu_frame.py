"""The whole-frame check and benchmark: what it measures, keeps and refuses. The run on the stand-in is marked soak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from asperity.benchmarks.gpu import frame as gpu_frame
from asperity.benchmarks.gpu import stages, whole
from asperity.benchmarks.gpu.day import Day, plan_of
from asperity.benchmarks.gpu.frames import open_packed, pack
from asperity.benchmarks.gpu.record import Record
from asperity.benchmarks.gpu.runtimes import RUNTIMES, Runtime, runtime_of
from asperity.benchmarks.gpu.stages import FAILED, PASSED
from asperity.benchmarks.gpu.whole import Answer, FrameBench, compare_answers
from asperity.runtime.cuda.build import ROOT, missing_for_simt
from asperity.runtime.cuda.launch import Device
from asperity.runtime.errors import AsperityError, DataError, EngineError, FrameRefused
from asperity.runtime.frame import Frame, Scores
from asperity.runtime.reasons import Reason
from asperity.runtime.vision.units import points_mm

DEVICE = cast(Device, SimpleNamespace(name="cpu-shim", multiprocessors=2, capability=(0, 0)))


def test_packed_frames_are_what_the_camera_saw(tmp_path: Path) -> None:
    from asperity.runtime.cameras.virtual.camera import VirtualCamera

    packed = pack(tmp_path / "frames.zip", "nameplate", 4, 64, normals=1, tests=3)
    assert packed.tests[0] == packed.tests[2] == "good" != packed.tests[1]
    seen = list(packed.test_frames())
    assert len(seen) == 3 and len(list(packed.test_frames(2))) == 2
    for index, frame in enumerate(seen):
        kind = None if packed.tests[index] == "good" else packed.tests[index]
        shot = VirtualCamera("nameplate", 5, 64, unit="mm").frame(index, kind).frame
        assert shot.xyz is not None
        points, valid = points_mm(frame, "mm")
        assert np.array_equal(valid, (shot.xyz != 0).any(axis=2))
        assert np.abs(points - shot.xyz)[valid].max() < 0.015  # half a step, and its share sideways
        assert np.abs(frame.rgb.astype(int) - shot.rgb).mean() < 4
    packed.write_normals(tmp_path / "normals")
    assert [path.name for path in (tmp_path / "normals/train/good/rgb").iterdir()] == ["000.png"]


def test_a_file_that_holds_no_frames_is_named(tmp_path: Path) -> None:
    (tmp_path / "frames.zip").write_bytes(b"no zip")
    for path in (tmp_path / "frames.zip", tmp_path / "none.zip"):
        with pytest.raises(DataError, match=r"gpu\.material"):
            open_packed(path)


def test_a_verdict_or_a_reason_that_differs_is_told_and_a_shift_measured() -> None:
    cpu = [Answer("ok", "GOOD", 1.0), Answer("ng", "SCORE_ABOVE_THRESHOLD", 3.0), Answer("refused", "CAMERA_MOVED")]
    near = [Answer("ok", "GOOD", 1.1), Answer("ng", "SCORE_ABOVE_THRESHOLD", 3.0), Answer("refused", "CAMERA_MOVED")]
    told = compare_answers(cpu, near, spread=0.5)
    assert told["differ"] == [] and told["largest_shift_std"] == pytest.approx(0.2)
    assert told["cpu_verdicts"] == {"ng": 1, "ok": 1, "refused": 1}
    other = [near[0], Answer("ng", "SHAPE_OUT_OF_RANGE", 3.0), Answer("ok", "GOOD", 0.0)]
    assert [one["frame"] for one in compare_answers(cpu, other, 0.5)["differ"]] == [1, 2]
    with pytest.raises(ValueError):
        compare_answers(cpu, near[:2], 0.5)


class Clock:
    """In place of the module ``time``: it goes on only where somebody sleeps."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def perf_counter(self) -> float:
        return self.now_ns / 1e9

    def monotonic(self) -> float:
        return self.now_ns / 1e9

    def sleep(self, seconds: float) -> None:
        self.now_ns += max(1, round(seconds * 1e9))


class Fake:
    """An engine that takes a while; ``refuses`` frames by number, ``fails`` others."""

    def __init__(self, spent_s: float = 0.0, refuses: Sequence[int] = (), fails: Sequence[int] = ()) -> None:
        self.spent_s, self.refuses, self.fails = spent_s, refuses, fails
        self.idles = 0

    def score(self, frame: Frame, progress: Any) -> Scores:
        whole.time.sleep(self.spent_s)
        if frame.seq in self.refuses:
            raise FrameRefused(Reason.TOO_FEW_POINTS, "none")
        if frame.seq in self.fails:
            raise EngineError("broken")
        return cast(Scores, SimpleNamespace(stage_us={"pre": 5}))

    def score_batch(self, frames: Sequence[Frame], progress: Any) -> list[Any]:
        return [EngineError("broken") if frame.seq in self.fails else self.score(frame, progress) for frame in frames]

    def search_stats(self) -> dict[str, dict[str, int]]:
        return {"rgb": {"unsettled": 3}, "points": {"unsettled": 0}}

    def idle(self) -> None:
        self.idles += 1


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(whole, "decide", lambda *_: None)
    monkeypatch.setattr(whole, "time", Clock())
    monkeypatch.setattr(whole, "SPIN_S", 0.0)
    blank = np.zeros((2, 2, 3), np.uint8)
    frames = [Frame(camera="c", camera_session="s", seq=seq, rgb=blank) for seq in range(4)]

    def made(engine: Fake) -> FrameBench:
        case = cast(Any, SimpleNamespace(silhouette=(), geometry=None))
        return FrameBench(cast(Any, engine), case, cast(Any, None), frames)

    return made


def test_a_refused_frame_counts_as_slower_than_any_and_an_error_ends_the_measurement(bench: Any) -> None:
    told = bench(Fake(refuses=[1])).back_to_back(40, limit_s=60)
    assert told["count"] == 40 and told["not_judged"] == 10 and told["p50_ms"] is not None and told["p90_ms"] is None
    assert told["stage_p50_us"] == {"pre": 5.0} and told["unsettled_queries_mean"] == {"rgb": 3.0, "points": 0.0}
    with pytest.raises(EngineError, match="broken"):
        bench(Fake(fails=[2])).back_to_back(40, limit_s=60)


def test_frames_that_are_all_refused_are_no_warm_up(bench: Any) -> None:
    bench(Fake(refuses=[0, 1, 2])).warm_up(4)
    with pytest.raises(AsperityError, match="refused"):
        bench(Fake(refuses=[0, 1, 2, 3])).warm_up(4)


def test_a_late_frame_does_not_delay_the_next_ones_clock(bench: Any) -> None:
    """Frames due every 2 ms at an engine that takes 6: on the open loop each waits longer than the one before."""
    told = bench(Fake(spent_s=0.006)).open_loop(10, rate_hz=500, limit_s=60)
    assert told["min_ms"] == pytest.approx(6, abs=0.01) and told["max_ms"] == pytest.approx(6 + 9 * 4, abs=0.01)
    steady = bench(Fake(spent_s=0.001)).open_loop(10, rate_hz=500, limit_s=60)
    assert steady["max_ms"] == pytest.approx(1, abs=0.01)


def test_frames_that_fail_are_no_throughput(bench: Any) -> None:
    told = bench(Fake(fails=[0])).throughput(4, seconds=0.0)
    assert (told["frames"], told["errors"]) == (3, 1)
    with pytest.raises(AsperityError, match="none of"):
        bench(Fake(fails=[0, 1, 2, 3])).throughput(4, seconds=0.0)


def test_in_a_gap_the_engine_is_called_as_the_bench_calls_it(bench: Any) -> None:
    engine = Fake()
    told = bench(engine).after_gaps(0.35, 1)
    assert engine.idles == 3 and told["count"] == 1


def test_stages_of_check_and_bench_are_all(tmp_path: Path) -> None:
    check, timed, every = (gpu_frame.stages_of(what, plan_of("cuda")) for what in ("check", "bench", "all"))
    assert set(check) | set(timed) == set(every) and set(check) & set(timed) == {"bundle"}
    assert "torch-reference/agree/lite" in check and "torch-reference/latency/paper" in timed
    assert not any("fp32" in name for name in every)
    assert "torch-reference-fp32/gate/lite" in gpu_frame.stages_of("check", plan_of("cuda"), every=True)
    assert "torch-reference/gate/mine" in gpu_frame.stages_of("check", plan_of("cuda"), ["mine"])
    assert every.index("torch-reference/gate/lite") == 1, "torch-reference first"
    alone = gpu_frame.stages_of("bench", plan_of("cuda", "paper", 7))
    assert {name.split("/")[-1] for name in alone} == {"bundle", "paper"} and plan_of("cuda", "paper", 7).agree == 7


def test_lanes_that_find_no_room_leave_the_others_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(runtime: Any, case: Any, device: Any, work: Path, settings: Any) -> Any:
        if settings.lanes > 1:
            raise EngineError("no room for 2 lanes")
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(stages, "open_engine", opened)
    monkeypatch.setattr(stages, "open_frame_device", lambda kind: None)
    monkeypatch.setattr(stages, "bench_of", lambda *_: SimpleNamespace(throughput=lambda *_: {"frames_per_s": 9.0}))
    monkeypatch.setattr(Day, "case", lambda *_: None)
    section: dict[str, Any] = {}
    day = Day("cpu-shim", tmp_path, tmp_path, plan_of("cpu-shim"))
    assert stages.lanes(day, runtime_of("torch-reference"), "tiny", section, 1.0) == FAILED
    assert section["1"] == {"frames_per_s": 9.0} and "no room" in section["2"]["error"]


def run(tmp_path: Path, name: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    monkeypatch.setattr(gpu_frame, "runtime_of", lambda _: runtime)
    record = Record(tmp_path / "frame.json", DEVICE, "test", "frames", "sources")
    state = gpu_frame.run_stage(name, Day("cpu-shim", tmp_path, tmp_path, plan_of("cpu-shim")), record, 1.0)
    return state, json.loads((tmp_path / "frame.json").read_text())


def test_a_stage_says_why_it_failed_or_was_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, kept = run(tmp_path, "torch-reference/gate/tiny", runtime_of("torch-reference"), monkeypatch)
    assert state == FAILED, "there are no frames here"
    assert kept["states"]["torch-reference/gate/tiny"] == "started", "what a process that dies leaves behind"
    absent = Runtime("other", "no_such_module", RUNTIMES[0].open, on_shim=True)
    assert run(tmp_path, "torch-reference/gate/tiny", absent, monkeypatch)[0] == "absent"
    with pytest.raises(EngineError, match="no such runtime"):
        runtime_of("nothing")


def test_what_passed_is_not_done_again_unless_the_sources_changed(tmp_path: Path) -> None:
    day = Day("cpu-shim", tmp_path, tmp_path, plan_of("cpu-shim"))
    record = Record(tmp_path / "frame.json", DEVICE, "test", "frames", "sources")
    record.section("bundle")["seconds"] = 1
    record.data["states"]["bundle"] = PASSED
    record.write()
    again = Record(tmp_path / "frame.json", DEVICE, "test", "frames", "sources")
    assert gpu_frame.run_stage("bundle", day, again, 1.0) == PASSED and again.section("bundle") == {"seconds": 1}
    changed = Record(tmp_path / "frame.json", DEVICE, "test", "frames", "other sources")
    assert gpu_frame.run_stage("bundle", day, changed, 1.0) == FAILED


def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from asperity.runtime.cuda.driver import check_driver

    try:
        check_driver()
    except EngineError:
        assert gpu_frame.main(["--only", "bundle", "--results", str(tmp_path / "frame.json")]) == 1
        assert "nothing was measured" in capsys.readouterr().err and not (tmp_path / "frame.json").exists()


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_every_stage_runs_on_the_stand_in(tmp_path: Path) -> None:
    reason = missing_for_simt()
    if reason is not None:
        pytest.skip(reason)
    python, environment = sys.executable, {**os.environ, "OMP_NUM_THREADS": "1"}
    folders = ["--material", str(tmp_path / "material"), "--work", str(tmp_path / "work")]
    size = ["--size-px", "64", "--normals", "40", "--tests", "8", "--out", str(tmp_path / "material")]
    results = tmp_path / "frame.json"
    for command in (
        ["asperity.benchmarks.gpu.material", *size],
        ["asperity.benchmarks.gpu.frame", "--device", "cpu-shim", *folders, "--results", str(results)],
    ):
        subprocess.run([python, "-m", *command], cwd=ROOT, env=environment, check=True, timeout=1500)
    told = json.loads(results.read_text())
    assert {state for name, state in told["states"].items() if name.startswith("torch-reference")} == {PASSED}
    assert told["is_gpu"] is False and told["sections"]["torch-reference/agree/tiny"]["differ"] == []
