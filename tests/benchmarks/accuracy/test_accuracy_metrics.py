"""Figures of detection against independent, slow ways to the same numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from asperity.benchmarks.accuracy.metrics import (
    auroc_standard_error,
    average_precision,
    detection_rate,
    pixel_figures,
)
from asperity.calibration.auroc import auroc
from asperity.runtime.errors import DataError
from asperity.runtime.frame import BoolArray, FloatArray

scores = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(scores, scores)
def test_image_figures_equal_scikit_learns(normal: list[float], defective: list[float]) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score  # dear to import: not while tests are collected

    truth = np.r_[np.zeros(len(normal)), np.ones(len(defective))]
    both = np.r_[normal, defective]
    assert auroc(normal, defective) == pytest.approx(roc_auc_score(truth, both), abs=1e-12)
    assert average_precision(normal, defective) == pytest.approx(average_precision_score(truth, both), abs=1e-12)


def test_detection_rate_keeps_its_false_rejects() -> None:
    normal, defective = np.arange(100.0), np.array([94.0, 94.5, 95.5, 200.0])
    # 5 of 100 normal frames may lie above: the threshold is 94.
    assert detection_rate(normal, defective, 0.05) == 0.75
    assert detection_rate(normal, defective, 0.0) == 0.25
    assert detection_rate(normal, normal, 0.05) == pytest.approx(0.05)


def made(seed: int = 0, lift: float = 0.1) -> tuple[list[FloatArray], list[BoolArray]]:
    """Smooth noise, higher on the defects of every second map."""
    rng = np.random.default_rng(seed)
    maps: list[FloatArray] = []
    truths: list[BoolArray] = []
    for index in range(4):
        one = ndimage.gaussian_filter(rng.normal(size=(22, 28)), 2).astype(np.float32)
        truth = np.zeros((22, 28), dtype=bool)
        for _ in range(2 * (index % 2)):
            y, x = rng.integers(0, 16, size=2)
            truth[y : y + rng.integers(2, 9), x : x + rng.integers(2, 9)] = True
        one[truth] += np.float32(lift)
        maps.append(one)
        truths.append(truth)
    return maps, truths


def plain_aupro(maps: list[FloatArray], truths: list[BoolArray], limit: float) -> float:
    """Every distinct score is a threshold; overlaps and false positives are counted anew for each."""
    thresholds = np.unique(np.concatenate([one.ravel() for one in maps]))[::-1]
    regions = []
    for index, truth in enumerate(truths):
        labels, count = ndimage.label(truth, structure=np.ones((3, 3)))
        regions += [(index, labels == label) for label in range(1, count + 1)]
    normal = sum(int((~truth).sum()) for truth in truths)
    fpr, pro = [0.0], [0.0]
    for threshold in thresholds:
        above = [one >= threshold for one in maps]
        false = sum(int((a & ~t).sum()) for a, t in zip(above, truths, strict=True))
        fpr.append(false / normal)
        pro.append(float(np.mean([above[index][region].mean() for index, region in regions])))
    # Several overlaps may stand at one false-positive rate; between two rates the curve starts from the highest.
    area = 0.0
    points = sorted(zip(fpr, pro, strict=True))
    for (f0, p0), (f1, p1) in itertools.pairwise(points):
        if f0 >= limit or f1 == f0:
            continue
        end = min(f1, limit)
        area += (end - f0) * (p0 + (p0 + (p1 - p0) * (end - f0) / (f1 - f0))) / 2
    return area / limit


@pytest.mark.parametrize("seed", range(3))
def test_aupro_is_exact_over_all_thresholds(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    maps, truths = made(seed)
    found = pixel_figures(maps, truths)
    assert found.aupro30 == pytest.approx(plain_aupro(maps, truths, 0.3), abs=1e-4)
    assert found.aupro05 == pytest.approx(plain_aupro(maps, truths, 0.05), abs=1e-4)
    flat = np.concatenate([t.ravel() for t in truths]), np.concatenate([m.ravel() for m in maps])
    assert found.p_auroc == pytest.approx(roc_auc_score(*flat), abs=1e-9)


def test_more_thresholds_come_nearer_to_all() -> None:
    maps, truths = made()
    exact = pixel_figures(maps, truths)
    gaps = []
    for count in (20, 100, 4000):
        sampled = pixel_figures(maps, truths, thresholds=count)
        assert sampled.aupro30 is not None and exact.aupro30 is not None
        gaps.append(abs(sampled.aupro30 - exact.aupro30))
    assert gaps[2] < 2e-3 and gaps[2] < gaps[0]


def test_background_flatters_and_foreground_does_not() -> None:
    """Scores that only tell part from background look good until the background is left out."""
    rng = np.random.default_rng(1)
    where = np.zeros((60, 60), dtype=bool)
    where[20:40, 20:40] = True
    truth = np.zeros_like(where)
    truth[25:30, 25:30] = True
    blind = (where + 0.01 * rng.normal(size=where.shape)).astype(np.float32)
    whole = pixel_figures([blind], [truth])
    inside = pixel_figures([blind], [truth], [where])
    assert whole.p_auroc is not None and whole.p_auroc > 0.9
    assert inside.p_auroc is not None and abs(inside.p_auroc - 0.5) < 0.15


def test_what_cannot_be_known_is_none() -> None:
    maps, truths = made()
    nothing = [np.zeros_like(t) for t in truths]
    assert pixel_figures(maps, nothing).aupro30 is None
    hidden = pixel_figures(maps, truths, [~t for t in truths])
    assert hidden.regions == 0 and hidden.p_auroc is None
    maps[0][0, 0] = np.nan
    with pytest.raises(DataError, match="map 0"):
        pixel_figures(maps, truths)
    with pytest.raises(DataError, match="nothing to compare"):
        auroc([], [1.0])


def test_shuffled_labels_lie_near_one_half() -> None:
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(size=80), 3 + rng.normal(size=60)]
    drawn = []
    for _ in range(200):
        order = rng.permutation(140)
        drawn.append(auroc(values[order[:80]], values[order[80:]]))
    error = auroc_standard_error(80, 60)
    assert abs(np.mean(drawn) - 0.5) < 3 * error / np.sqrt(200)
    assert np.std(drawn) == pytest.approx(error, rel=0.2)
