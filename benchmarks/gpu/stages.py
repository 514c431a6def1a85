"""The stages of the whole-frame check and benchmark. Each fills its section and returns how it ended."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.gpu.day import Day
from asperity.benchmarks.gpu.record import digest_of
from asperity.benchmarks.gpu.runtimes import MeasuredFrameDevice, Runtime, open_engine, open_frame_device
from asperity.benchmarks.gpu.whole import OPEN_LOOP_LOAD, Answer, FrameBench, answer_of, compare_answers, silent
from asperity.runtime.cameras.virtual.camera import GOOD
from asperity.runtime.cuda.build import ROOT
from asperity.runtime.engines.cpu import CpuEngine
from asperity.runtime.engines.cuda import CudaEngine, Settings
from asperity.runtime.engines.own_threshold import decision_for, take_threshold
from asperity.runtime.engines.parity_gate import pass_gate
from asperity.runtime.errors import AsperityError
from asperity.runtime.process.processors import usable_processors

PASSED, FAILED, UNFINISHED = "passed", "failed", "unfinished"
WAIT_MS = 20_000
"""A first frame may have to load kernels."""
KEPT_EVERY = 25
"""CPU answers are written to disk after so many frames."""
START_LIMIT_S = 200

Section = dict[str, Any]
Stage = Callable[[Day, Runtime, str, Section, float], str]


def settings(lanes: int = 1, keep_warm_ms: int = 0) -> Settings:
    """For one recipe alone."""
    return Settings(lanes=lanes, recipes=1, wait_ms=WAIT_MS, keep_warm_ms=keep_warm_ms)


@contextmanager
def engine_of(
    day: Day, runtime: Runtime, case: str, chosen: Settings, device: MeasuredFrameDevice | None = None
) -> Iterator[CudaEngine]:
    """The engine over a case, closed at the end."""
    engine = open_engine(runtime, day.case(case), device or open_frame_device(day.kind), day.work, chosen)
    try:
        yield engine
    finally:
        engine.close()


def bench_of(day: Day, engine: CudaEngine, case: str) -> FrameBench:
    """The engine with the timed frames, warmed up; its own threshold if there is a bundle to take it from."""
    made = day.case(case)
    decision = made.decision if made.bundle is None else decision_for(made.bundle, engine, silent)
    bench = FrameBench(engine, made, decision, day.frames)
    bench.warm_up(day.plan.warm_up)
    return bench


def make_bundle_stage(day: Day, section: Section) -> str:
    """Calibrate and export here."""
    start = time.monotonic()
    day.make_station()
    section.update(day.case(day.plan.profile).told())
    section["seconds"] = round(time.monotonic() - start, 1)
    section["frames"] = {key: value for key, value in day.packed.told.items() if key != "tests"}
    return PASSED


def gate(day: Day, runtime: Runtime, case: str, section: Section, limit_s: float) -> str:
    """The parity gate of the product: own threshold from the calibration inputs, then the golden frames."""
    bundle = day.case(case).bundle
    assert bundle is not None
    with engine_of(day, runtime, case, settings()) as engine:
        section["engine"], section["memory_mb"] = asdict(engine.describe()), engine.budget.told()
        start = time.monotonic()
        decision, parity = take_threshold(bundle, engine, silent)
        section["parity"] = msgspec.to_builtins(parity)
        checks = pass_gate(bundle, engine, decision)
    section["golden"] = [
        {"name": check.golden.name, "verdict": check.judgement.verdict.name.lower(), "score": check.judgement.score,
         "expected": check.golden.score, "wall_ms": round(check.wall_ms, 3)}
        for check in checks
    ]  # fmt: skip
    section["seconds"] = round(time.monotonic() - start, 2)
    return PASSED


def agree(day: Day, runtime: Runtime, case: str, section: Section, limit_s: float) -> str:
    """The CPU engine and this one on the packed test frames."""
    made, ends = day.case(case), time.monotonic() + limit_s
    bundle = made.bundle
    assert bundle is not None
    wanted = min(day.plan.agree, len(day.packed.tests))
    expected = cpu_answers(day, case, wanted, ends)
    if len(expected) < wanted:
        section["cpu_frames"] = len(expected)
        return UNFINISHED
    with engine_of(day, runtime, case, settings()) as engine:
        decision = decision_for(bundle, engine, silent)
        found = [answer_of(engine, frame, made, decision) for frame in day.packed.test_frames(wanted)]
        section["engine"] = asdict(engine.describe())
    section.update(compare_answers(expected, found, float(np.std(bundle.calibration_inputs().scores))))
    shown = ("good" if kind == GOOD else "defect" for kind in day.packed.tests)
    section["truth"] = dict(Counter(f"{kind}: {answer.verdict}" for kind, answer in zip(shown, found, strict=False)))
    return FAILED if section["differ"] else PASSED


def cpu_answers(day: Day, case: str, wanted: int, ends: float) -> list[Answer]:
    """What the CPU engine says, kept from call to call; as many as there was time for."""
    made = day.case(case)
    bundle = made.bundle
    assert bundle is not None
    program = digest_of((ROOT / "runtime").rglob("*.py"))
    path = day.work / f"cpu-answers-{bundle.digest[:12]}-{program}.json"
    known = msgspec.json.decode(path.read_bytes(), type=list[Answer]) if path.is_file() else []
    if len(known) >= wanted:
        return known[:wanted]
    engine = CpuEngine.open(bundle, usable_processors())
    try:
        decision = decision_for(bundle, engine, silent)
        for frame in itertools.islice(day.packed.test_frames(wanted), len(known), None):
            if time.monotonic() > ends:
                break
            known.append(answer_of(engine, frame, made, decision))
            if len(known) % KEPT_EVERY == 0:
                path.write_bytes(msgspec.json.encode(known))
    finally:
        engine.close()
        path.write_bytes(msgspec.json.encode(known))
    return known


def latency(day: Day, runtime: Runtime, case: str, section: Section, limit_s: float) -> str:
    """Latency back to back, on an open loop, and of each stage alone."""
    plan = day.plan
    device = open_frame_device(day.kind)
    with engine_of(day, runtime, case, settings(), device) as engine:
        bench = bench_of(day, engine, case)
        section["engine"], section["case"] = asdict(engine.describe()), day.case(case).told()
        section["back_to_back"] = back_to_back = bench.back_to_back(plan.latency, limit_s / 3)
        rate_hz = OPEN_LOOP_LOAD * 1000 / back_to_back["mean_ms"]
        section["open_loop"] = bench.open_loop(plan.open_loop, rate_hz, limit_s / 3)
        section["stage_us"] = bench.stages_us(device, plan.repeats)
    return PASSED


def lanes(day: Day, runtime: Runtime, case: str, section: Section, limit_s: float) -> str:
    """Frames per second of several stations on one engine, each with a lane."""
    for count in day.plan.lanes:
        try:
            with engine_of(day, runtime, case, settings(count)) as engine:
                section[f"{count}"] = bench_of(day, engine, case).throughput(count, day.plan.throughput_s)
        except AsperityError as error:  # no room for so many, say; fewer are still a figure
            section[f"{count}"] = {"error": f"{type(error).__name__}: {error}"}
    return FAILED if any("error" in told for told in section.values()) else PASSED


def idle(day: Day, runtime: Runtime, case: str, section: Section, limit_s: float) -> str:
    """Latency after gaps, with and without the work that keeps the device awake."""
    for name, keep_warm_ms in (("kept warm", Settings().keep_warm_ms), ("left alone", 0)):
        with engine_of(day, runtime, case, settings(keep_warm_ms=keep_warm_ms)) as engine:
            bench = bench_of(day, engine, case)
            section[name] = [bench.after_gaps(gap_s, count) for gap_s, count in day.plan.gaps]
    return PASSED


def start(day: Day, runtime: Runtime, case: str, section: Section, limit_s: float) -> str:
    """A new process, from its start until the gate has passed and a frame was judged."""
    command = [
        sys.executable, "-m", "asperity.benchmarks.gpu.frame", "--device", day.kind, "--material", str(day.material),
               "--work", str(day.work), "--profile", day.plan.profile,
               "--until-ready", f"{runtime.name}/{case}"]  # fmt: skip
    command += [f"--station={name}={folder}" for name, folder in day.stations.items()]
    runs = []
    for _ in range(day.plan.starts):
        before = time.monotonic()
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_LIMIT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise AsperityError(f"the started process was not ready within {START_LIMIT_S} s") from error
        if done.returncode:
            raise AsperityError(f"the started process ended with {done.returncode}: {done.stderr[-500:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        runs.append({"ready_s": round(time.monotonic() - before, 2), **told})
    section["runs"] = runs
    section["what"] = "process start, imports, bundle verified, networks loaded, recorded, gate passed, a frame judged"
    return PASSED


def until_ready(day: Day, runtime: Runtime, name: str) -> dict[str, float]:
    """What ``start`` measures, in the started process: seconds of its parts."""
    marks = {"begin": time.monotonic()}
    case = day.case(name)
    assert case.bundle is not None
    marks["bundle_s"] = time.monotonic()
    with engine_of(day, runtime, name, settings()) as engine:
        marks["engine_s"] = time.monotonic()
        decision = decision_for(case.bundle, engine, silent)
        pass_gate(case.bundle, engine, decision)
        marks["gate_s"] = time.monotonic()
        FrameBench(engine, case, decision, day.frames).one(day.frames[0])
        marks["first_frame_s"] = time.monotonic()
    names = list(marks)
    return {mark: round(marks[mark] - marks[before], 3) for before, mark in itertools.pairwise(names)}


STAGES: dict[str, tuple[Stage, str]] = {
    "gate": (gate, "bundle"),
    "agree": (agree, "bundle"),
    "latency": (latency, "each"),
    "lanes": (lanes, "each"),
    "idle": (idle, "each"),
    "start": (start, "bundle"),
}
"""By name, with the cases it runs for: those with a bundle, or all."""
