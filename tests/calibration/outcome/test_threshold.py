"""The promise of the threshold holds in simulation, and what cannot be promised is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from asperity.calibration.outcome.threshold import choose_rate, frames_needed, promise, threshold
from asperity.runtime.errors import CalibrationError


@pytest.mark.parametrize(
    ("frames", "asked", "k"), [(50, 0.02, 1), (99, 0.02, 2), (99, 0.01, 1), (999, 0.001, 1), (199, 0.1, 20)]
)
def test_ranks(frames, asked, k):
    rate = choose_rate(frames, asked)
    assert rate.allowed == k
    assert rate.alpha <= asked
    scores = np.random.default_rng(frames).normal(size=frames)
    limit = threshold(scores.tolist(), rate)
    assert limit == np.sort(scores)[-k]
    assert (scores > limit).sum() == k - 1


@pytest.mark.parametrize(("asked", "needed"), [(0.01, 99), (0.001, 999), (0.02, 49), (0.05, 19)])
def test_a_rate_asked_for_and_not_attainable_is_refused_with_the_number_it_needs(asked, needed):
    assert frames_needed(asked) == needed
    assert choose_rate(needed, asked).allowed == 1
    with pytest.raises(CalibrationError, match=rf"needs {needed} calibration frames, about {4 * needed} normal"):
        choose_rate(needed - 1, asked)


@pytest.mark.parametrize("asked", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_what_is_no_rate_is_refused(asked):
    with pytest.raises(CalibrationError, match="--alpha"):
        choose_rate(100, asked)


def test_without_a_rate_the_best_attainable_one_is_taken_and_said():
    small, large = choose_rate(10, None), choose_rate(150, None)
    assert small.alpha_total == pytest.approx(1 / 11)
    assert large.alpha_total == pytest.approx(3 / 151)
    said = promise(small, None, "split", 10).statement
    assert "reject 9.1 on average" in said
    assert "lowest rate that 10 can give" in said
    assert "lowest rate" not in promise(large, None, "split", 150).statement


def test_the_widened_shape_costs_a_rank():
    spent = choose_rate(50, None, shape_widened=True)
    assert spent.alpha_total == pytest.approx(2 / 51)
    assert spent.bound() == pytest.approx(2 * beta(1, 50).ppf(0.975))
    assert choose_rate(99, 0.02, shape_widened=True).allowed == 1
    with pytest.raises(CalibrationError, match=r"needs 99 calibration frames.*silhouette"):
        choose_rate(50, 0.02, shape_widened=True)


def test_weaker_promises_are_named():
    rate = choose_rate(50, None)
    assert "no bound is proven" in promise(rate, None, "leave_one_out", 50).statement
    assert "parts" not in promise(rate, None, "split", 50).statement.replace("good parts", "")


def test_frames_of_one_part_are_one_witness():
    rate = choose_rate(40, None, parts=10)
    assert (rate.witnesses, rate.of_parts, rate.alpha) == (10, True, pytest.approx(1 / 11))
    assert choose_rate(40, None, parts=40) == choose_rate(40, None)
    told = promise(rate, None, "split", 40)
    assert (told.frames, told.parts, told.witnesses) == (40, 10, 10)
    assert "learned from 10 parts in 40 frames" in told.statement and "count once" in told.statement
    with pytest.raises(CalibrationError, match=r"needs 49 different parts among the calibration frames.*there are 10"):
        choose_rate(40, 0.02, parts=10)
    scores = [1.0, 9.0, 2.0, 8.0, 3.0, 3.5]
    assert threshold(scores, choose_rate(6, 0.5, parts=3), list("aabbcc")) == 8.0


@pytest.mark.parametrize("alike", [0.0, 3.0])
def test_the_promise_of_parts_holds_however_alike_their_frames_are(alike):
    """And the control: ranks over frames, as if each were a part of its own, promise too much."""
    rng, parts, views, asked = np.random.default_rng(5), 24, 4, 0.05
    names = np.repeat(np.arange(parts), views)
    rate, careless = choose_rate(parts * views, asked, parts=parts), choose_rate(parts * views, asked)
    rejected, above, broken = [], 0, 0
    for _ in range(600):
        known, new = (alike * rng.normal(size=(n, 1)) + rng.normal(size=(n, views)) for n in (parts, 500))
        limit = threshold(known.ravel().tolist(), rate, names.tolist())
        rejected.append(float((new > limit).any(axis=1).mean()))
        above += rejected[-1] > rate.bound()
        broken += float((new > threshold(known.ravel().tolist(), careless)).mean()) > careless.bound()
    error = np.std(rejected) / np.sqrt(len(rejected))
    assert abs(np.mean(rejected) - rate.alpha) < 3 * error
    assert above / 600 < 0.08
    assert broken / 600 < 0.08 if alike == 0 else broken / 600 > 0.1


@pytest.mark.parametrize(("frames", "asked"), [(10, 0.1), (50, 0.02), (99, 0.05)])
def test_mean_rate_and_bound_hold_over_many_calibrations(frames, asked):
    """Scores of a skewed law, whose true rate above any threshold is known."""
    rng = np.random.default_rng(11)
    rate = choose_rate(frames, asked)
    truth = np.array([np.exp(-threshold(rng.exponential(size=frames).tolist(), rate)) for _ in range(4000)])
    spread = beta(rate.allowed, frames + 1 - rate.allowed).std() / np.sqrt(len(truth))
    assert abs(truth.mean() - rate.alpha) < 4 * spread
    assert abs((truth <= rate.bound()).mean() - 0.95) < 0.02


def test_control_a_threshold_on_learnt_frames_breaks_the_promise():
    """The control: thresholds from frames that the bank has seen reject far more good parts than said."""
    rng = np.random.default_rng(12)
    frames, width = 50, 20
    rate = choose_rate(frames, None)
    rejected = []
    for _ in range(60):
        bank = rng.normal(size=(frames, width))
        new = rng.normal(size=(200, width))
        seen = np.abs(rng.normal(scale=0.05, size=frames))  # nearly nothing between a frame and its own rows
        distances = np.sqrt(((new[:, None] - bank[None]) ** 2).sum(2)).min(1)
        rejected.append((distances > threshold(seen.tolist(), rate)).mean())
    assert np.mean(rejected) > 10 * rate.alpha
