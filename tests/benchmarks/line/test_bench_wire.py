"""The wire benchmark measures what it says."""

from __future__ import annotations

import fcntl
import os

import pytest

from asperity.benchmarks.line import sealed_memory
from asperity.benchmarks.line.frame_sizes import SizeBenchmark, run_sizes, size_of
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


def test_each_size_is_sent_and_prepared() -> None:
    result = run_sizes(SizeBenchmark((0.02,), frames=8, repeats=8, forms=("xyz",), transports=("ipc",)))
    sent = [case for case in result["cases"] if " over " in case["what"]]
    assert [case["what"] for case in sent] == ["xyz over ipc", "xyz over sealed memory", "xyz over shared block"]
    rows, columns = size_of(0.02)
    for case in sent:
        assert len(case["latencies_us"]) == 8 and not case["not_sent"]
        assert case["mb"] == pytest.approx(rows * columns * 15 / 1e6, abs=0.1)
    work = {case["what"] for case in result["cases"]} - {case["what"] for case in sent}
    assert {"prepare xyz", "prepare depth", "overlay"} <= work
    assert all(case["latency"]["p50_ms"] > 0 for case in result["cases"])


def test_sizes_are_of_four_to_three() -> None:
    assert size_of(0.3) == (480, 640)
    for megapixels in (2.0, 5.0):
        rows, columns = size_of(megapixels)
        assert rows * columns == pytest.approx(megapixels * 1e6, rel=0.01)
        assert columns / rows == pytest.approx(4 / 3, rel=0.01)


def test_sealed_memory_cannot_be_changed() -> None:
    """What the measured prototype rests on; memory without the seals is refused."""
    handle = os.memfd_create("frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(handle, b"picture")
    with pytest.raises(ValueError, match="not sealed"):
        sealed_memory._mapped(os.dup(handle), 7, sealed_memory.SEALS)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, sealed_memory.SEALS)
    mapped = sealed_memory._mapped(os.dup(handle), 7, sealed_memory.SEALS)
    with pytest.raises(PermissionError):
        os.pwrite(handle, b"another", 0)
    with pytest.raises(ValueError, match="size"):
        sealed_memory._mapped(os.dup(handle), 8, sealed_memory.SEALS)
    os.close(handle)
    assert mapped[:] == b"picture"
