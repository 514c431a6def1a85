"""Why a frame was late: the slowest frames, what every thread did, and the stage that took longer than it usually does.

What is kept is bounded; what is written opens in Perfetto (https://ui.perfetto.dev) and chrome://tracing. Format:
"Trace Event Format", Google, complete events (``X``) and metadata (``M``).
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asperity.runtime.frame import Span

UNEXPLAINED = "unexplained"
"""Time of a frame in which no thread was in any named stage: waking up, copying between stages, other processes."""
_PROCESS = 1
_FRAMES_TRACK = 1


@dataclass(frozen=True, slots=True)
class FrameTrace:
    """One frame from arrival to result, nanoseconds of the monotonic clock."""

    station: str
    result_id: int
    seq: int
    reason: str
    start_ns: int
    end_ns: int
    spans: tuple[Span, ...]

    @property
    def total_ns(self) -> int:
        """From arrival to result."""
        return self.end_ns - self.start_ns

    def stage_ns(self) -> dict[str, int]:
        """Time of each stage, and what is left unexplained. Stages on several threads overlap, so the sum may exceed
        the total."""
        spent: dict[str, int] = {}
        for span in self.spans:
            spent[span.stage] = spent.get(span.stage, 0) + span.end_ns - span.start_ns
        spent[UNEXPLAINED] = self.total_ns - covered_ns(self.spans, self.start_ns, self.end_ns)
        return spent


def covered_ns(spans: Iterable[Span], start_ns: int, end_ns: int) -> int:
    """How much of the time from start to end is in at least one span."""
    covered, reached_ns = 0, start_ns
    for begin_ns, until_ns in sorted((span.start_ns, span.end_ns) for span in spans):
        from_ns, to_ns = max(begin_ns, reached_ns), min(until_ns, end_ns)
        if to_ns > from_ns:
            covered += to_ns - from_ns
            reached_ns = to_ns
    return covered


class SlowestFrames:
    """Keeps the ``keep`` slowest frames, and how long each stage takes on average. Not for several threads."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._heap: list[tuple[int, int, FrameTrace]] = []
        self._number = itertools.count()
        self._frames = 0
        self._sum_ns: dict[str, int] = {}

    def add(self, trace: FrameTrace) -> None:
        """Count a frame, and keep it if it is one of the slowest."""
        self._frames += 1
        for stage, spent_ns in trace.stage_ns().items():
            self._sum_ns[stage] = self._sum_ns.get(stage, 0) + spent_ns
        entry = (trace.total_ns, next(self._number), trace)
        if len(self._heap) < self._keep:
            heapq.heappush(self._heap, entry)
        elif self._keep and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def slowest(self) -> list[FrameTrace]:
        """Slowest first."""
        return [trace for _, _, trace in sorted(self._heap, reverse=True)]

    def usual_ns(self) -> dict[str, int]:
        """Mean time of each stage over all frames."""
        return {stage: total_ns // self._frames for stage, total_ns in self._sum_ns.items()}

    def late_stage(self, trace: FrameTrace) -> tuple[str, int]:
        """The stage that took most longer than it usually does, and by how much, ns."""
        usual_ns = self.usual_ns()
        over = {stage: spent_ns - usual_ns.get(stage, 0) for stage, spent_ns in trace.stage_ns().items()}
        stage = max(over, key=lambda name: over[name])
        return stage, over[stage]

    def document(self) -> dict[str, Any]:
        """The kept frames as a trace file's content."""
        traces = self.slowest()
        origin_ns = min((trace.start_ns for trace in traces), default=0)
        threads = sorted({span.thread for trace in traces for span in trace.spans})
        tracks = {name: number for number, name in enumerate(threads, _FRAMES_TRACK + 1)}
        events: list[dict[str, Any]] = [
            {"ph": "M", "name": "thread_name", "pid": _PROCESS, "tid": number, "args": {"name": name}}
            for name, number in {"frames": _FRAMES_TRACK, **tracks}.items()
        ]
        for trace in traces:
            events.append(_event(f"frame {trace.seq}", _FRAMES_TRACK, trace.start_ns - origin_ns, trace.total_ns,
                                 self._told(trace)))  # fmt: skip
            events += [
                _event(span.stage, tracks[span.thread], span.start_ns - origin_ns, span.end_ns - span.start_ns,
                       {"seq": trace.seq})
                for span in trace.spans
            ]  # fmt: skip
        usual = {stage: _ms(ns) for stage, ns in self.usual_ns().items()}
        return {
            "displayTimeUnit": "ms",
            "traceEvents": events,
            "otherData": {"frames_seen": self._frames, "mean_ms": usual, "slowest": [self._told(t) for t in traces]},
        }

    def _told(self, trace: FrameTrace) -> dict[str, Any]:
        stage, over_ns = self.late_stage(trace)
        return {
            "station": trace.station, "result_id": trace.result_id, "seq": trace.seq, "reason": trace.reason,
            "total_ms": _ms(trace.total_ns), "late_stage": stage, "longer_than_usual_ms": _ms(over_ns),
            "stage_ms": {name: _ms(ns) for name, ns in trace.stage_ns().items()},
        }  # fmt: skip


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write a trace file, and its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def _event(name: str, track: int, start_ns: int, duration_ns: int, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "ph": "X", "name": name, "cat": "frame" if track == _FRAMES_TRACK else "stage", "pid": _PROCESS, "tid": track,
        "ts": start_ns / 1000, "dur": duration_ns / 1000, "args": more,
    }  # fmt: skip


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)
