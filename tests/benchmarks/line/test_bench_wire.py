"""The wire benchmark measures what it says."""

from __future__ import annotations

from asperity.benchmarks.line.wire import WireBenchmark, run_wire


def test_frames_cross_processes_in_every_form_and_transport() -> None:
    result = run_wire(WireBenchmark(frames=20, warm_up=2, rate_hz=100, rows=48, columns=64))
    assert [(case["form"], case["transport"]) for case in result["cases"]] == [
        ("xyz", "tcp"),
        ("xyz", "ipc"),
        ("depth", "tcp"),
        ("depth", "ipc"),
    ]
    for case in result["cases"]:
        assert case["latency"]["count"] == len(case["latencies_us"]) + case["not_sent"] == 20
        bytes_a_pixel = 15 if case["form"] == "xyz" else 5
        assert 0 < case["message_bytes"] - 48 * 64 * bytes_a_pixel < 1000
        assert case["latency"]["max_ms"] > 0
    assert result["machine"]["cores"] and result["versions"]["libzmq"]
