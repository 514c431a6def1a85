"""The wire benchmark measures what it says, and reports no percentile that its count cannot carry."""

from __future__ import annotations

from benchmarks.wire import WireBenchmark, run_wire, summary


def test_frames_cross_processes_in_every_form_and_transport() -> None:
    result = run_wire(WireBenchmark(frames=20, warm_up=2, rate_hz=100, rows=48, columns=64))
    assert [(case["form"], case["transport"]) for case in result["cases"]] == [
        ("xyz", "tcp"),
        ("xyz", "ipc"),
        ("depth", "tcp"),
        ("depth", "ipc"),
    ]
    for case in result["cases"]:
        assert case["count"] + case["not_sent"] <= 20 and case["count"] > 0
        bytes_a_pixel = 15 if case["form"] == "xyz" else 5
        assert 0 < case["message_bytes"] - 48 * 64 * bytes_a_pixel < 1000
        assert case["max_ms"] > 0
    assert result["machine"]["cores"] and result["versions"]["libzmq"]


def test_percentiles_need_samples_beyond_them() -> None:
    assert summary(list(range(1000, 1019)))["count"] == 19 and "p50_ms" not in summary(list(range(19)))
    hundred = summary(list(range(1, 101)))
    assert hundred["p90_ms"] == 0.09 and "p99_ms" not in hundred
    thousand = summary([1000] * 989 + [5000] * 11)
    assert thousand["p50_ms"] == 1.0 and thousand["p99_ms"] == 5.0 and "p99.9_ms" not in thousand
    assert thousand["max_ms"] == 5.0 and thousand["window_p50_ms"] == [1.0, 1.0, 1.0]
