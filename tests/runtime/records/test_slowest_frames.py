"""A trace keeps the slowest frames, names the stage that was late, and leaves no time out."""

from __future__ import annotations

import json
from pathlib import Path

from asperity.runtime.frame import Span
from asperity.runtime.records.slowest_frames import UNEXPLAINED, FrameTrace, SlowestFrames, covered_ns
from asperity.runtime.vision.features import StageClock
from tests.runtime.inspector.station_floor import Floor

MS = 1_000_000


def frame(seq: int, points_ms: int = 40, rgb_ms: int = 20, idle_ms: int = 2) -> FrameTrace:
    """pre 5 ms, then rgb beside points, then knn 10 ms; and so much in no stage."""
    start = 1000 * seq * MS
    after = start + 5 * MS
    joined = after + max(points_ms, rgb_ms) * MS
    spans = (
        Span("pre", "bench", start, after),
        Span("rgb", "rgb_0", after, after + rgb_ms * MS),
        Span("points", "bench", after, after + points_ms * MS),
        Span("knn", "bench", joined, joined + 10 * MS),
    )
    return FrameTrace("st1", seq, seq, "OK", start, joined + (10 + idle_ms) * MS, spans)


def test_what_no_stage_covers_is_unexplained_and_overlap_counts_once() -> None:
    spent = frame(1).stage_ns()
    assert spent == {"pre": 5 * MS, "rgb": 20 * MS, "points": 40 * MS, "knn": 10 * MS, UNEXPLAINED: 2 * MS}
    assert covered_ns([Span("a", "t", 0, 10), Span("b", "u", 5, 8), Span("c", "t", 12, 20)], 1, 15) == 9 + 3


def test_the_slowest_are_kept_and_each_names_its_late_stage() -> None:
    slowest = SlowestFrames(3)
    for seq in range(1, 101):
        slowest.add(frame(seq))
    slowest.add(frame(101, points_ms=90))
    slowest.add(frame(102, rgb_ms=120))
    slowest.add(frame(103, idle_ms=30))
    assert [trace.seq for trace in slowest.slowest()] == [102, 101, 103]
    assert [slowest.late_stage(trace)[0] for trace in slowest.slowest()] == ["rgb", "points", UNEXPLAINED]
    stage, longer_ns = slowest.late_stage(slowest.slowest()[1])
    assert stage == "points" and 48 * MS < longer_ns < 50 * MS


def test_the_file_is_a_trace_with_named_threads() -> None:
    slowest = SlowestFrames(2)
    slowest.add(frame(1))
    slowest.add(frame(2, points_ms=60))
    document = json.loads(json.dumps(slowest.document()))
    names = {event["args"]["name"]: event["tid"] for event in document["traceEvents"] if event["ph"] == "M"}
    assert set(names) == {"frames", "bench", "rgb_0"}
    events = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert {event["name"] for event in events} == {"frame 1", "frame 2", "pre", "rgb", "points", "knn"}
    rgb = next(event for event in events if event["name"] == "rgb")
    assert rgb["tid"] == names["rgb_0"] and rgb["dur"] == 20_000.0 and rgb["ts"] == 1_005_000.0
    assert document["otherData"]["slowest"][0]["seq"] == 2 and document["otherData"]["frames_seen"] == 2


def test_nothing_is_kept_where_nothing_is_asked_for() -> None:
    slowest = SlowestFrames(0)
    slowest.add(frame(1))
    assert slowest.slowest() == [] and slowest.document()["otherData"]["frames_seen"] == 1


def test_every_lap_leaves_a_span_and_the_stages_are_their_sums() -> None:
    clock = StageClock()
    for stage in ("points", "rgb", "points"):
        clock.lap(stage, 0)
    assert [span.stage for span in clock.spans] == ["points", "rgb", "points"]
    spent = {stage: sum(s.end_ns - s.start_ns for s in clock.spans if s.stage == stage) for stage in ("points", "rgb")}
    assert all(abs(spent[stage] // 1000 - clock.stage_us[stage]) <= 1 for stage in spent)


def test_a_station_leaves_its_slowest_frames_when_it_ends(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "journal", trace={"slowest": 2, "folder": str(tmp_path / "traces")})
    for waited_ms in (5, 80, 20, 7):
        floor.send()
        floor.pass_ms(waited_ms)
        floor.serve()
    for station in floor.desk.stations:
        station.end()
    floor.close()
    found = json.loads((tmp_path / "traces" / "st1.trace.json").read_text())["otherData"]
    assert found["frames_seen"] == 4
    assert [(frame["seq"], frame["stage_ms"]["recv"]) for frame in found["slowest"]] == [(2, 80.0), (3, 20.0)]
    assert found["slowest"][0]["late_stage"] == "recv"


def test_a_trace_that_cannot_be_written_ends_no_station(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    floor = Floor(tmp_path / "journal", trace={"slowest": 1, "folder": str(tmp_path / "taken")})
    floor.send()
    floor.serve()
    floor.station.end()
    floor.close()
    assert floor.events[-1].code == "TRACE" and "[trace] folder" in floor.events[-1].text


def test_without_the_table_nothing_is_kept(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "journal")
    floor.send()
    floor.serve()
    assert floor.station.slowest is None
    floor.station.end()
    floor.close()
    assert not list(tmp_path.glob("*.trace.json"))
