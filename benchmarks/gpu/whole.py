"""Measurements of whole frames through an engine, in this process: from a frame handed over to its verdict."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from asperity.benchmarks.gpu.cases import Case
from asperity.benchmarks.gpu.record import MeasuredDevice
from asperity.benchmarks.results_tools.statistics import summary
from asperity.runtime.cuda.launch import Enqueue
from asperity.runtime.engines import Engine
from asperity.runtime.engines.cuda import CudaEngine
from asperity.runtime.errors import AsperityError, FrameRefused
from asperity.runtime.frame import Frame, Scores
from asperity.runtime.manifest import Decision
from asperity.runtime.vision.scoring import decide

OPEN_LOOP_LOAD = 0.7
"""Frames due per second on the open loop, as a share of the back-to-back rate."""
SPIN_S = 0.002
"""The last part of a wait is spent spinning, so that a late wake-up is not measured."""
IDLE_TICK_S = 0.1
"""How often the engine thread calls ``idle`` in a gap ([timing] idle_tick_ms)."""


def silent(stage: str) -> None:
    """Progress is not reported."""


class Answer(msgspec.Struct, frozen=True):
    """One engine's answer to one frame."""

    verdict: str
    """``ok``, ``ng``, ``unknown``, or ``refused``."""
    reason: str
    score: float | None = None


def answer_of(engine: Engine, frame: Frame, case: Case, decision: Decision) -> Answer:
    """The engine's answer; for a timing-only bundle, which gives no verdict, what its score alone would say."""
    try:
        scores = engine.score(frame, silent)
    except FrameRefused as error:
        return Answer("refused", error.reason.name)
    judging = msgspec.structs.replace(decision, timing_only=False)
    judged = decide(scores, judging, case.silhouette, case.geometry)
    return Answer(judged.verdict.name.lower(), judged.reason.name, judged.score)


def compare_answers(expected: Sequence[Answer], found: Sequence[Answer], spread: float) -> dict[str, Any]:
    """How far two engines agree; ``spread``: standard deviation of normal frames' scores."""
    pairs = list(zip(expected, found, strict=True))
    differ = [
        {"frame": index, "cpu": msgspec.to_builtins(one), "engine": msgspec.to_builtins(other)}
        for index, (one, other) in enumerate(pairs)
        if (one.verdict, one.reason) != (other.verdict, other.reason)
    ]
    shifts = [
        abs(one.score - other.score) / spread
        for one, other in pairs
        if one.score is not None and other.score is not None
    ]
    verdicts = [one.verdict for one in expected]
    return {
        "frames": len(pairs),
        "cpu_verdicts": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "differ": differ,
        "largest_shift_std": float(max(shifts)) if shifts else None,
        "mean_shift_std": float(np.mean(shifts)) if shifts else None,
    }


@dataclass(frozen=True, slots=True)
class FrameBench:
    """An engine and the frames it is timed on, in turn."""

    engine: CudaEngine
    case: Case
    decision: Decision
    frames: Sequence[Frame]

    def one(self, frame: Frame) -> Scores | None:
        """Score and decide. None where the frame was refused; any other error ends the measurement."""
        try:
            scores = self.engine.score(frame, silent)
        except FrameRefused:
            return None
        decide(scores, self.decision, self.case.silhouette, self.case.geometry)
        return scores

    def turns(self) -> Iterator[Frame]:
        """The frames, again and again."""
        return itertools.cycle(self.frames)

    def warm_up(self, frames: int) -> None:
        """Untimed frames. Raises AsperityError where none of them is judged."""
        scored = [self.one(frame) for frame in itertools.islice(self.turns(), frames)]
        if not any(scored):
            raise AsperityError(f"all of the first {frames} frames were refused; are they of the case's product?")

    def back_to_back(self, count: int, limit_s: float) -> dict[str, Any]:
        """Each frame as soon as the previous one is judged."""
        spent_us, stages, refused = [], [], 0
        unsettled: dict[str, list[int]] = {}
        start = time.monotonic()
        for frame in itertools.islice(self.turns(), count):
            if time.monotonic() - start > limit_s:
                break
            before_ns = time.perf_counter_ns()
            scores = self.one(frame)
            if scores is None:
                refused += 1
                continue
            spent_us.append((time.perf_counter_ns() - before_ns) // 1000)
            stages.append(scores.stage_us)
            if len(spent_us) <= len(self.frames):
                for name, stats in self.engine.search_stats().items():
                    unsettled.setdefault(name, []).append(stats["unsettled"])
        left = {name: float(np.mean(counts)) for name, counts in unsettled.items() if counts}
        told = {"wanted": count, "stage_p50_us": _medians(stages), "unsettled_queries_mean": left}
        return {**summary(spent_us, refused), **told}

    def open_loop(self, count: int, rate_hz: float, limit_s: float) -> dict[str, Any]:
        """A frame is due every 1/rate seconds whether the previous one is judged or not; late ones wait their turn."""
        period_ns = round(1e9 / rate_hz)
        count = max(1, min(count, int(limit_s * rate_hz)))
        latencies_us, refused = [], 0
        start_ns = time.perf_counter_ns() + period_ns
        for index, frame in enumerate(itertools.islice(self.turns(), count)):
            due_ns = start_ns + index * period_ns
            wait_until(due_ns)
            scores = self.one(frame)
            if scores is None:
                refused += 1
                continue
            latencies_us.append((time.perf_counter_ns() - due_ns) // 1000)
        return {**summary(latencies_us, refused), "rate_hz": round(rate_hz, 2)}

    def throughput(self, batch: int, seconds: float) -> dict[str, Any]:
        """Frames per second with ``batch`` frames handed over at once, as that many stations on one engine do."""
        turns = self.turns()
        done = errors = 0
        start = time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds or done == 0:
            for answer in self.engine.score_batch(list(itertools.islice(turns, batch)), silent):
                if isinstance(answer, AsperityError):
                    errors += 1
                else:
                    decide(answer, self.decision, self.case.silhouette, self.case.geometry)
                    done += 1
            if errors > batch * 10 and done == 0:
                raise AsperityError(f"none of {errors} frames was scored")
        return {"frames_per_s": round(done / spent, 2), "frames": done, "errors": errors, "seconds": round(spent, 2)}

    def stages_us(self, device: MeasuredDevice, repeats: int) -> dict[str, float]:
        """Median microseconds of each stage alone on the first frame, by the device's own events, as a recording."""
        self.one(self.frames[0])

        def median_us(enqueue: Enqueue) -> float:
            enqueue()  # what it allocates is there before it is recorded
            device.synchronize()
            return round(1e6 * float(np.median(device.seconds(device.replayed(enqueue), repeats))), 2)

        return self.engine.measure_stages(median_us)

    def after_gaps(self, gap_s: float, count: int) -> dict[str, Any]:
        """Latency of single frames after gaps, in which the engine is called as the engine thread does."""
        spent_us = []
        for frame in itertools.islice(self.turns(), count):
            ends = time.monotonic() + gap_s
            while (left := ends - time.monotonic()) > 0:
                time.sleep(min(left, IDLE_TICK_S))
                if left > IDLE_TICK_S:
                    self.engine.idle()
            before_ns = time.perf_counter_ns()
            self.one(frame)
            spent_us.append((time.perf_counter_ns() - before_ns) // 1000)
        return {
            "gap_s": gap_s, "count": count, "median_ms": round(float(np.median(spent_us)) / 1000, 3),
            "max_ms": round(max(spent_us) / 1000, 3),
        }  # fmt: skip


def wait_until(due_ns: int) -> None:
    """Wait until the performance counter is there: sleep, then spin."""
    while (left_s := (due_ns - time.perf_counter_ns()) / 1e9) > 0:
        if left_s > SPIN_S:
            time.sleep(left_s - SPIN_S)


def _medians(stages: Sequence[dict[str, int]]) -> dict[str, float]:
    names = sorted({name for one in stages for name in one})
    return {name: float(np.median([one.get(name, 0) for one in stages])) for name in names}
