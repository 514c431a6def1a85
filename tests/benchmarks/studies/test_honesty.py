"""Honesty of the stated rate: scores against a double loop, and populations where the promise must hold or fail."""

from __future__ import annotations

import numpy as np
import pytest

from asperity.benchmarks.studies.honesty import CHOSEN, Population, judge, population
from asperity.runtime.errors import UsageError

FRAMES, PATCHES = 500, 6


def people(parts: int, seed: int = 0, own: float = 0.0) -> Population:
    """Random patches; ``own``: how much of a patch is its part's."""
    rng = np.random.default_rng(seed)
    names = [i * parts // FRAMES for i in range(FRAMES)]
    of_part = rng.normal(size=(parts, PATCHES, 4))
    patches = [(own * of_part[n] + rng.normal(size=(PATCHES, 4))).astype(np.float32) for n in names]
    return population(patches, tuple(str(name) for name in names))


def test_scores_are_the_largest_distance_to_the_nearest_patch_of_other_frames() -> None:
    rng = np.random.default_rng(1)
    patches = [rng.normal(size=(n, 3)).astype(np.float32) for n in (2, 5, 1, 3)]
    fit = np.array([0, 2])
    found = population(patches, ("a", "b", "c", "d")).scores(fit)
    for index, rows in enumerate(patches):
        bank = np.concatenate([patches[i] for i in fit if i != index]).astype(np.float64)
        expected = max(min(np.linalg.norm(row - other) for other in bank) for row in rows.astype(np.float64))
        assert found[index] == pytest.approx(expected, rel=1e-4)
    with pytest.raises(UsageError, match="no filled patch"):
        population([patches[0], np.empty((0, 3), np.float32)], ("a", "b"))


@pytest.mark.parametrize("mode", ["split", "leave-one-out"])
def test_the_promise_holds_where_frames_are_exchangeable(mode: str) -> None:
    found = judge(people(FRAMES), mode, 0.1, 60)  # type: ignore[arg-type]
    assert found.keeps_its_word and found.observed == pytest.approx(found.stated, abs=0.03)
    assert found.calibrate_frames == pytest.approx(0.25 * CHOSEN if mode == "split" else 0.9 * CHOSEN, abs=5)
    assert found.above_bound < 0.2
    assert found == judge(people(FRAMES), mode, 0.1, 60)  # type: ignore[arg-type]


def test_parts_seen_on_both_sides_break_the_promise_and_ranks_over_parts_keep_it() -> None:
    alike = people(FRAMES // 4, own=4.0)
    grouped, ignored = judge(alike, "grouped", 0.1, 60), judge(alike, "parts ignored", 0.1, 40)
    assert grouped.keeps_its_word and grouped.observed_frames < grouped.observed
    assert not ignored.keeps_its_word and ignored.observed > 2 * ignored.stated


def test_a_rate_that_so_few_parts_cannot_give_becomes_the_lowest_they_can() -> None:
    found = judge(people(FRAMES // 4), "grouped", 0.01, 3)
    assert 1 / 16 < found.stated < 1 / 10
