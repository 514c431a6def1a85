"""The search finds a rate that is held, and below what the engine cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from asperity.benchmarks.line import rates, rates_page
from asperity.benchmarks.line.rates import RatesBenchmark, Trial, run_rates
from asperity.benchmarks.line.whole_path import Run


def test_a_rate_is_found_under_a_generous_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "SEARCH_TRIALS", 2)
    monkeypatch.setattr(rates.statistics, "least_count", lambda percent: 40)
    report = run_rates(RatesBenchmark(None, None, (1,), deadline_ms=20_000, trial_s=0.2), tmp_path)
    case = report["cases"][0]
    assert case["trials"] and all({"rate_hz", "held", "dropped"} <= set(trial) for trial in case["trials"])
    assert case["held_hz"] is None or case["held_hz"] <= rates.HIGHEST * case["back_to_back_hz"]
    assert (case["held_hz"] is not None) == case["trials"][-1]["held"]
    rates_page.write(tmp_path / "rates.html", report)
    assert "data:image/png" in (tmp_path / "rates.html").read_text()


def test_a_trial_without_answers_is_not_held() -> None:
    assert not Trial(5.0, [Run(due=10)], 500).held
