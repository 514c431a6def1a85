"""The coreset is the plain greedy one, row for row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.calibration.banks import coreset as memory_bank
from asperity.calibration.banks.coreset import bank_rows, coreset, projected
from asperity.calibration.profiles import profile
from asperity.runtime.errors import CalibrationError


def plain_greedy(features: np.ndarray, rows: int) -> list[int]:
    """The oracle: one choice at a time, float64, lowest index first among equals."""
    data = features.astype(np.float64)
    chosen = [0]
    nearest = ((data - data[0]) ** 2).sum(1)
    while len(chosen) < rows:
        best = int(nearest.argmax())
        if nearest[best] <= 0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, ((data - data[best]) ** 2).sum(1))
    return chosen


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "width", "rows"), [(3000, 40, 600), (2500, 152, 250), (700, 3, 700), (1, 5, 1)])
def test_equals_the_plain_loop_on_random_rows(count, width, rows):
    features = np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)
    assert coreset(features, rows).tolist() == plain_greedy(features, rows)


def test_equals_the_plain_loop_where_rows_crowd_and_stray():
    rng = np.random.default_rng(2)
    centres = rng.normal(scale=4, size=(12, 24))
    spread = rng.choice([0.02, 0.5, 2.0], size=(4000, 1))
    features = (centres[rng.integers(12, size=4000)] + spread * rng.normal(size=(4000, 24)) + 3).astype(np.float32)
    assert coreset(features, 500).tolist() == plain_greedy(features, 500)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_equals_the_plain_loop_where_features_vary_in_few_directions(monkeypatch, scale):
    """What real features do, and what the lower bound lives on: most pairs are never measured in full."""
    rng = np.random.default_rng(6)
    mix = rng.normal(size=(5, 96))
    features = (scale * (np.tanh(rng.normal(size=(5000, 5)) @ mix) + 0.02 * rng.normal(size=(5000, 96)) + 2)).astype(
        "f4"
    )
    pairs = []
    plain = memory_bank._Selection._update_pairs

    def counted(self, rows, others):
        pairs.append(len(rows))
        plain(self, rows, others)

    monkeypatch.setattr(memory_bank._Selection, "_update_pairs", counted)
    assert coreset(features, 500).tolist() == plain_greedy(features, 500)
    assert 0 < sum(pairs) < 0.03 * 5000 * 500


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 80), width=st.integers(1, 4), rows=st.integers(1, 90),
       pool=st.integers(2, 20))  # fmt: skip
def test_ties_and_copies_go_to_the_lowest_index(seed, count, width, rows, pool):
    """Whole numbers on a small grid: distances are exact, ties and copies abound, and rounds are many."""
    features = np.random.default_rng(seed).integers(-2, 3, size=(count, width)).astype(np.float32)
    before, memory_bank.POOL = memory_bank.POOL, pool
    try:
        chosen = coreset(features, rows).tolist()
    finally:
        memory_bank.POOL = before
    assert chosen == plain_greedy(features, rows)
    assert len(chosen) == min(rows, len(np.unique(features, axis=0)))


def test_a_random_choice_is_not_what_greedy_chooses():
    """The control: the radius of the greedy bank is far below that of random rows."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(2000, 4)).astype(np.float32)

    def radius(rows: np.ndarray) -> float:
        return float(np.sqrt(((features[:, None] - features[rows][None]) ** 2).sum(2)).min(1).max())

    assert radius(coreset(features, 100)) < 0.6 * radius(rng.choice(2000, 100, replace=False))


def test_copies_are_never_kept_twice():
    features = np.repeat(np.random.default_rng(4).normal(size=(50, 8)), 4, axis=0).astype(np.float32)
    chosen = coreset(features, 200)
    assert len(chosen) == 50
    assert len(np.unique(features[chosen], axis=0)) == 50


@pytest.mark.parametrize(
    ("features", "rows", "names"),
    [
        (np.zeros((0, 4), np.float32), 5, "at least one patch"),
        (np.zeros((3, 4), np.float32), 0, "0 rows"),
        (np.array([[1.0, np.nan]], np.float32), 1, "not finite"),
    ],
)
def test_what_cannot_be_a_bank_is_refused(features, rows, names):
    with pytest.raises(CalibrationError, match=names):
        coreset(features, rows)


def two(rows):
    return rows["rgb"], rows["points"]


def test_rows_follow_share_and_cap():
    lite, paper = profile("lite"), profile("paper")
    assert two(bank_rows(lite, 20)) == (1568, 1568)
    assert two(bank_rows(lite, 130)) == (8192, 4096)
    assert two(bank_rows(paper, 266)) == (20854, 83417)


def test_projection_keeps_the_dimension_published_and_the_seed():
    features = np.random.default_rng(5).normal(size=(3000, 1152)).astype(np.float32)
    once, again, other = projected(features, seed=7), projected(features, seed=7), projected(features, seed=8)
    assert once.dtype == np.float32
    assert once.shape == (3000, int(4 * np.log(3000) / (0.9**2 / 2 - 0.9**3 / 3)))  # Johnson-Lindenstrauss
    assert (once == again).all()
    assert not (once == other).all()
    assert projected(features[:, :100], seed=7).shape == (3000, 100)  # already narrower
