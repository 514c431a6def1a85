"""A soak sees what grows, and says of a short run that it cannot know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asperity.benchmarks.line import soak, soak_page
from asperity.benchmarks.line.soak import SoakBenchmark, run_soak
from asperity.benchmarks.results_tools import reports


def check(report: dict[str, object], folder: Path, frames: int) -> None:
    fates = report["fates"]
    assert isinstance(fates, dict)
    assert fates["due"] == frames == fates["results"] and not fates["repeated"] and not fates["gaps"]
    held = {bar["bar"]: bar["holds"] for bar in report["bars"]}  # type: ignore[attr-defined]
    assert held["every frame has one result"] and held["the counters add up"] and held["threads do not grow"]
    assert held["handles do not grow"]
    reports.write_result(folder / "soak.json", report)
    soak_page.write(folder / "soak.html", report)
    assert reports.read_result(folder / "soak.json")["samples"]["pss_kb"]
    page = (folder / "soak.html").read_text()
    assert "src=\"data:image/png" in page and "http:" not in page and "https:" not in page


def test_a_short_soak_counts_everything_and_judges_no_slope(tmp_path: Path) -> None:
    report = run_soak(SoakBenchmark(None, None, minutes=0.08, rate_hz=20), tmp_path)
    check(report, tmp_path, 96)
    memory = report["bars"][0]
    assert memory["holds"] is not False and report["levels"]["pss_mb"] > 10 and report["levels"]["blocks"] > 10_000


@pytest.mark.soak
def test_a_minute_of_soak_is_flat_in_handles_threads_and_fates(tmp_path: Path) -> None:
    report = run_soak(SoakBenchmark(None, None, minutes=1.0, rate_hz=20), tmp_path)
    check(report, tmp_path, 1200)
    assert len(report["samples"]["t_s"]) > 20 and not report["failed"]


def seen(minutes: float, leak_mb_per_hour: float, late_ms_per_hour: float = 0.0, handles: int = 0) -> dict[str, object]:
    """What soak makes of a process that leaks so much, samples and latencies made up."""
    rng = np.random.default_rng(1)
    t_s = np.arange(0, 60 * minutes, soak.SAMPLE_S)
    pss_kb = 80_000 + 1024 * leak_mb_per_hour * t_s / 3600 + rng.normal(0, 60, t_s.size)
    open_handles = [30 + (handles if t > 40 * minutes else 0) for t in t_s]
    samples = soak.Samples(list(t_s), [int(kb) for kb in pss_kb], [70_000] * t_s.size, open_handles, [7] * t_s.size)
    blocks = [(int(1e9 * t), 300_000 + int(rng.integers(0, 50)), 50_000) for t in t_s]
    frame_s = np.arange(0, 60 * minutes, 0.2)
    latency_us = 70_000 + 1000 * late_ms_per_hour * frame_s / 3600 + rng.normal(0, 800, frame_s.size)
    found = soak._slopes(samples, blocks, [(t, int(us)) for t, us in zip(frame_s, latency_us, strict=True)])
    run = soak.Run(due=10)
    fates = {"due": 10, "results": 10, "repeated": 0, "gaps": 0}
    found |= {"fates": fates, "law": {"broken": [], "in_flight": 0}}
    return {bar["bar"].split(" ")[0]: bar["holds"] for bar in soak.bars(found, run, minutes)} | {
        "memory": soak.bars(found, run, minutes)[0]["holds"]
    }


def test_a_leak_a_drift_and_a_handle_too_many_fail_and_nothing_else_does() -> None:
    assert all(seen(30, 0.0).values())
    leaking = seen(30, 6.0)
    assert leaking["memory"] is False and leaking["p99"] and leaking["handles"]
    assert seen(30, 2.0)["memory"] is True
    assert seen(30, 0.0, late_ms_per_hour=60.0)["p99"] is False
    assert seen(30, 0.0, handles=1)["handles"] is False
    assert seen(2, 6.0)["memory"] is None
