"""Statistics of latencies against distributions whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.benchmarks.results_tools import statistics


def test_an_interval_covers_the_true_percentile_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    for percent in (50.0, 90.0, 99.0):
        truth_ms = float(np.quantile(rng.lognormal(3.0, 0.5, 1_000_000), percent / 100))
        hits = 0
        for _ in range(400):
            told = statistics.summary([round(1000 * v) for v in rng.lognormal(3.0, 0.5, 600)])
            low, high = told["interval_95"][f"p{percent:g}_ms"]
            hits += low <= truth_ms <= high
        assert hits >= 0.925 * 400  # 95 % less 2.3 standard deviations of 400 draws


def test_percentiles_are_samples_and_only_those_that_the_count_carries() -> None:
    told = statistics.summary(list(range(1000, 401_000, 1000)))
    assert (told["p50_ms"], told["p90_ms"], told["p99_ms"], told["max_ms"]) == (200.0, 360.0, 396.0, 400.0)
    assert told["p99.9_ms"] is None and "3688" in told["left_out"]["p99.9_ms"]
    assert statistics.least_count(99.0) == 368
    few = statistics.summary([1000] * 5)
    assert few["p50_ms"] is None and few["max_ms"] == 1.0 and few["count"] == 5
    assert statistics.summary([])["p50_ms"] is None


def test_a_frame_without_a_verdict_is_slower_than_any() -> None:
    fast = [1000] * 960
    assert statistics.summary(fast)["p99_ms"] == 1.0
    refusing = statistics.summary(fast, not_judged=40)
    assert refusing["p99_ms"] is None and "40 of 1000" in refusing["left_out"]["p99_ms"]
    assert refusing["p90_ms"] == 1.0 and refusing["count"] == 1000


def test_three_windows_tell_a_run_that_drifts_from_one_that_does_not() -> None:
    assert statistics.windows([1000] * 90 + [1050] * 90)["stable"]
    assert not statistics.windows([1000] * 60 + [1050] * 60 + [1200] * 60)["stable"]


def test_a_slope_is_found_within_its_bounds_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(5)
    t_s = np.arange(0, 1200, 2.0)
    grows = statistics.slope(t_s, 100 + 9.0 * t_s / 3600 + rng.normal(0, 0.05, t_s.size))
    assert grows is not None and grows.lower_95 < 9.0 < grows.upper_95 and grows.lower_95 > 8.0
    flat = statistics.slope(t_s, 100 + rng.normal(0, 0.05, t_s.size))
    assert flat is not None and abs(flat.per_hour) < 0.5 and flat.upper_95 < 1.0
    constant = statistics.slope(t_s, np.full(t_s.size, 7.0))
    assert constant is not None and (constant.per_hour, constant.upper_95) == (0.0, 0.0)
    assert statistics.slope([1.0, 2.0], [1.0, 2.0]) is None


@pytest.mark.parametrize("percent", [50.0, 99.0])
def test_a_ratio_interval_holds_the_true_ratio_and_excludes_another(percent: float) -> None:
    rng = np.random.default_rng(7)
    held = wrong = 0
    for _ in range(30):
        before, after = (np.round(scale * rng.lognormal(0, 0.1, 600)).astype(int) for scale in (50_000, 60_000))
        ratio, low, high = statistics.ratio_interval(before, after, statistics.percentile_of(percent))
        assert low <= ratio <= high
        held += low <= 1.2 <= high
        wrong += low <= 1.0 <= high
    assert held >= 25 and wrong <= 2


def test_a_run_that_drifts_has_a_wider_ratio_than_its_samples_alone_would_give() -> None:
    rng = np.random.default_rng(9)
    still = 50_000 + rng.normal(0, 500, 2000)
    drifting = still + np.repeat(rng.normal(0, 3000, 20), 100)
    widths = [
        high - low
        for _, low, high in (
            statistics.ratio_interval(run.astype(int), run.astype(int), statistics.mean_of) for run in (still, drifting)
        )
    ]
    assert widths[1] > 5 * widths[0]


def _measured(rng: np.random.Generator, starts: int, between: float) -> list[list[int]]:
    """Starts of 120 frames around 30 ms; ``between``: how much the starts themselves differ."""
    return [
        [round(1000 * v) for v in 30 * np.exp(between * rng.normal()) * rng.lognormal(0, 0.05, 120)]
        for _ in range(starts)
    ]


def test_intervals_of_several_starts_cover_what_differs_from_start_to_start() -> None:
    """The control: all frames taken as independent samples cover the same truth far too seldom."""
    rng, hits, careless = np.random.default_rng(8), 0, 0
    for _ in range(300):
        starts = _measured(rng, 5, 0.04)
        low, high = statistics.summary_of_starts(starts)["interval_95"]["p50_ms"]
        hits += low <= 30.0 <= high
        low, high = statistics.summary([us for start in starts for us in start])["interval_95"]["p50_ms"]
        careless += low <= 30.0 <= high
    assert hits >= 0.92 * 300 and careless < 0.5 * 300
    told = statistics.summary_of_starts(_measured(rng, 5, 0.04))
    assert len(told["starts"]["p50_ms"]) == len(told["starts"]["p99_ms"]) == 5
    assert "starts" not in statistics.summary_of_starts(_measured(rng, 1, 0.04))


def test_two_measurements_of_one_machine_agree_by_their_starts() -> None:
    rng, agree, slower = np.random.default_rng(9), 0, 0
    p50 = statistics.percentile_of(50.0)
    for _ in range(200):
        low, high = statistics.ratio_of_starts(_measured(rng, 5, 0.04), _measured(rng, 5, 0.04), p50)
        agree += low <= 1 <= high
        low, _ = statistics.ratio_of_starts(
            _measured(rng, 5, 0.01), [[2 * us for us in start] for start in _measured(rng, 5, 0.01)], p50
        )
        slower += low > 1
    assert agree >= 0.91 * 200 and slower == 200
