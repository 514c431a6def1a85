"""The drift monitor: the rank test against a double loop and its false alarms, and the alarm of a station."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asperity.runtime.reasons import Reason
from asperity.runtime.records.drift import LEAST_REFERENCES, DriftMonitor
from tests.runtime.inspector.station_floor import Floor


def window(monitor: DriftMonitor, scores: np.ndarray) -> list[bool]:
    found = [monitor.accepted(float(score)) for score in scores]
    return [drift.found for drift in found if drift is not None]


def test_the_share_is_that_of_all_comparisons() -> None:
    rng = np.random.default_rng(0)
    references, live = rng.integers(0, 12, 40).astype(float), rng.integers(2, 14, 25).astype(float)
    monitor = DriftMonitor(25, 1e-3)
    monitor.refer(references.tolist(), threshold=9.0)
    found = [monitor.accepted(score) for score in live.tolist()]
    assert found[:-1] == [None] * 24 and found[-1] is not None
    kept = references[references <= 9.0]
    expected = np.mean([(r < s) + 0.5 * (r == s) for s in live for r in kept])
    assert found[-1].share_above == pytest.approx(expected)
    assert found[-1].z == pytest.approx((expected - 0.5) / np.sqrt((len(kept) + 26) / (12 * len(kept) * 25)))
    assert f"{expected:.0%}" in found[-1].text and "above" in found[-1].text


def test_false_alarms_come_as_rarely_as_said_and_shifts_are_found_on_both_sides() -> None:
    rng = np.random.default_rng(1)
    alarms, shifted = [], []
    for _ in range(400):
        monitor, threshold = DriftMonitor(100, 0.05), 1.6
        references = rng.normal(size=60).tolist()
        monitor.refer(references, threshold)
        live = rng.normal(size=140)
        alarms += window(monitor, live[live <= threshold])[:1]
        for by in (0.8, -0.8):
            monitor.refer(references, threshold)
            moved = rng.normal(by, 1, size=260)
            shifted += window(monitor, moved[moved <= threshold])[:1]
    assert 0.02 < np.mean(alarms) < 0.09
    assert np.mean(shifted) > 0.95


def test_it_says_nothing_without_references_or_a_window() -> None:
    few, off = DriftMonitor(5, 0.01), DriftMonitor(0, 0.01)
    few.refer([0.1] * (LEAST_REFERENCES - 1) + [5.0], threshold=1.0)
    off.refer([0.1] * 50, threshold=1.0)
    assert window(few, np.full(50, 0.9)) == window(off, np.full(50, 0.9)) == []
    full = DriftMonitor(5, 0.01)
    full.refer(np.linspace(0, 1, 50).tolist(), threshold=1.0)
    assert window(full, np.array([0.99, np.nan, 0.99, 0.99, np.inf, 0.99])) == []
    full.refer(np.linspace(0, 1, 50).tolist(), threshold=1.0)
    assert window(full, np.full(4, 0.99)) == [], "an unfinished window is dropped"


def test_a_drifting_stream_raises_the_alarm_and_changes_no_verdict(tmp_path: Path) -> None:
    floor = Floor(tmp_path / "journal", "ok drift", drift={"window_frames": 20})
    alarms = floor.station.controller.alarms

    def frames(word: str, count: int) -> None:
        for _ in range(count):
            floor.send(sensor=f"simulate:{word}")
            floor.settle()

    frames("ok", 20)
    assert "DRIFT" not in alarms, "the control: nothing has changed"
    frames("drift", 19)
    frames("ng", 30)
    assert "DRIFT" not in alarms, "rejected frames do not count"
    frames("drift", 1)
    assert "lie above calibration's in 9" in alarms["DRIFT"]
    assert "DRIFT" in floor.state.alarms
    frames("ok", 20)
    assert "DRIFT" not in alarms
    assert [event.code for event in floor.events if event.code.startswith("DRIFT")] == ["DRIFT", "DRIFT_GONE"]
    assert [result.reason for result in floor.results] == [Reason.GOOD] * 39 + [Reason.SCORE_ABOVE_THRESHOLD] * 30 + [
        Reason.GOOD
    ] * 21
    frames("drift", 20)
    assert "DRIFT" in alarms
    floor.ask("set_threshold", threshold=0.95)
    floor.settle()
    floor.close()
    assert "DRIFT" not in alarms and "THRESHOLD" in alarms, "another threshold accepts other scores: begin anew"
