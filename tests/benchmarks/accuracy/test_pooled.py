"""Gains pooled over redrawn frames: what is known of made-up scores and maps comes out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asperity.benchmarks.accuracy.ablation import drawings
from asperity.benchmarks.accuracy.metrics import pixel_figures
from asperity.benchmarks.accuracy.pooled import (
    FIGURES,
    FrameCurves,
    Judgement,
    gains,
    read_curves,
    write_curves,
)
from asperity.benchmarks.accuracy.trial import Detection, Figures
from asperity.runtime.errors import UsageError

GOOD = np.arange(120) < 60


def judged(lift: float, seed: int, curves: FrameCurves | None = None) -> Judgement:
    """Scores of which the defective ones lie ``lift`` higher; the threshold rejects a tenth of the good ones."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=120) + np.where(GOOD, 0, lift)
    limit = np.sort(scores[GOOD])[-7]
    detection = Detection(0.1, float((scores[GOOD] > limit).mean()), float((scores[~GOOD] > limit).mean()))
    empty = {name: 0 for name in Figures.__struct_fields__ if name not in ("detection", "scores", "per_defect")}
    figures = Figures(**empty, detection=detection, scores=scores.tolist(), per_defect={})  # type: ignore[arg-type]
    return Judgement(figures, GOOD, curves)


def pictures(seed: int, lift: float) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    truths = [np.zeros((24, 24), bool) for _ in GOOD]
    for truth in truths[60:]:
        truth[4:9, 5:12], truth[15:18, 15:17] = True, rng.random() < 0.5
    maps = [rng.normal(size=(24, 24)).astype(np.float32) + lift * truth for truth in truths]
    return maps, truths, [np.pad(np.ones((20, 20), bool), 2)] * len(truths)


def cells(lift: float, of: int = 3) -> dict[tuple[int, str], Judgement]:
    curves = FrameCurves.of(*pictures(4, lift))
    return {(s, name): judged(lift, 10 * s + len(name), curves) for s in range(of) for name in ("nut", "screw")}


def test_a_row_gains_nothing_on_itself_and_something_on_a_worse_one() -> None:
    none, some = gains(cells(1.0), cells(1.0), 50), gains(cells(1.0), cells(1.5), 200)
    assert set(none) == set(some) == set(FIGURES)
    for figure in FIGURES:
        assert (none[figure].low, none[figure].mean, none[figure].high) == (0, 0, 0)
        gain = some[figure]
        assert 0 < gain.low < gain.mean < gain.high
        assert gain.mean == pytest.approx(np.mean([entry[0] for entry in gain.products.values()]))
        assert all(low <= mean <= high for mean, low, high in gain.products.values())


def test_the_calibrated_threshold_is_found_again() -> None:
    one = judged(1.0, 3)
    _, _, found, *_ = one.figures(np.ones(60), np.ones(60))
    assert (one.good > one.limit).sum() == 6
    assert found == pytest.approx(float((one.bad > np.sort(one.good)[-7]).mean()))


def test_curves_of_frames_add_up_to_the_exact_ones(tmp_path: Path) -> None:
    maps, truths, wheres = pictures(1, 1.2)
    write_curves(tmp_path / "a.npz", {"nut": FrameCurves.of(maps, truths, wheres)})
    curves = read_curves(tmp_path / "a.npz")["nut"]
    exact = pixel_figures(maps, truths, wheres)
    assert exact.aupro30 is not None and exact.aupro05 is not None
    assert curves.aupro(np.ones(120), 0.3) == pytest.approx(exact.aupro30, abs=0.01)
    assert curves.aupro(np.ones(120), 0.05) == pytest.approx(exact.aupro05, abs=0.02)
    twice = pixel_figures(maps + maps[60:], truths + truths[60:], wheres + wheres[60:])
    assert curves.aupro(np.where(GOOD, 1.0, 2.0), 0.3) == pytest.approx(twice.aupro30, abs=0.01)
    assert read_curves(tmp_path / "missing.npz") == {}


def test_rows_of_other_frames_are_not_compared() -> None:
    with pytest.raises(UsageError, match="same seeds and products"):
        gains(cells(1.0), cells(1.0, of=2), 5)


def test_a_confirmation_s_seeds_are_a_commit_s() -> None:
    assert drawings("other") == ["other-71", "other-72", "other-73"]
    with pytest.raises(UsageError, match="no such commit"):
        drawings("hard", "no-such-branch-of-ours")
