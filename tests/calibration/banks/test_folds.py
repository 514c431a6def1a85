"""Frames judged by banks without their parts."""

from __future__ import annotations

import pytest

from asperity.calibration.banks.folds import FOLDS, FRAMES_ENOUGH, judge_folds, part_folds


@pytest.mark.parametrize(("frames", "shown"), [(65, 1), (24, 2), (30, 5), (7, 3), (3, 1)])
def test_no_part_is_in_two_folds_and_every_frame_in_one(frames: int, shown: int) -> None:
    parts = [f"part {number // shown}" for number in range(frames)]
    folds = part_folds(range(100, 100 + frames), parts)
    assert sorted(frame for fold in folds for frame in fold) == list(range(100, 100 + frames))
    homes = [{parts[frame - 100] for frame in fold} for fold in folds]
    assert all(not one & other for number, one in enumerate(homes) for other in homes[:number])
    assert len(folds) == min(FOLDS, len(set(parts)))
    assert max(map(len, homes)) - min(map(len, homes)) <= 1


@pytest.mark.parametrize("frames", [10, 60, 200])
def test_each_frame_is_judged_by_banks_of_the_other_folds_frames(frames: int) -> None:
    parts = [f"part {number // 2}" for number in range(frames)]
    filled: list[list[int]] = []

    def fill(others: list[int]):
        filled.append(others)
        return {"rgb": others}

    found = judge_folds(range(frames), parts, fill, lambda frame, banks: (frame, set(banks["rgb"])))  # type: ignore[arg-type]
    for frame, (same, others) in found.items():
        assert same == frame and {parts[frame]}.isdisjoint(parts[other] for other in others)
    assert len(found) == frames if frames <= FRAMES_ENOUGH else FRAMES_ENOUGH <= len(found) < frames
    assert len(filled) <= FOLDS


def test_frames_of_one_part_cannot_be_judged_so() -> None:
    assert judge_folds(range(3), ["one"] * 3, lambda frames: {}, lambda frame, banks: frame) == {}
