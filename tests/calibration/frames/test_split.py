"""Splits keep parts apart, are exact in size, and say when there is too little."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.calibration.frames.split import MIN_PARTS, split_frames
from asperity.runtime.errors import CalibrationError

UNNAMED = [""] * 1000


@pytest.mark.parametrize(("count", "sizes"), [(20, (12, 3, 5)), (40, (26, 4, 10)), (200, (130, 20, 50))])
def test_shares(count, sizes):
    split = split_frames(UNNAMED[:count])
    assert (len(split.fit), len(split.tune), len(split.calibrate)) == sizes
    assert "time" in split.how


@settings(max_examples=60, deadline=None)
@given(count=st.integers(MIN_PARTS, 700), named=st.booleans(), seed=st.integers(0, 99))
def test_every_frame_serves_once(count, named, seed):
    parts = [f"part{i}" for i in range(count)] if named else UNNAMED[:count]
    split = split_frames(parts, seed=seed)
    assert sorted(split.fit + split.tune + split.calibrate) == list(range(count))
    assert len(split.calibrate) == -(-count // 4)
    assert split == split_frames(parts, seed=seed)
    assert [split.name_of(i) for i in split.tune] == ["tune"] * len(split.tune)


def test_blocks_of_time_are_contiguous_and_spread():
    split = split_frames(UNNAMED[:200])
    runs = 1 + sum(b != a + 1 for a, b in zip(split.calibrate, split.calibrate[1:], strict=False))
    assert runs == 5  # one for each 40 frames
    assert split.calibrate[0] < 50
    assert split.calibrate[-1] == 199


def test_frames_of_one_part_stay_together():
    parts = [f"part{i // 5}" for i in range(150)]
    split = split_frames(parts, seed=3)
    homes = [{parts[i] for i in members} for members in (split.fit, split.tune, split.calibrate)]
    assert not (homes[0] & homes[1] or homes[0] & homes[2] or homes[1] & homes[2])
    assert split.calibrate_parts == len(homes[2])
    assert split_frames(parts, seed=4) != split


def test_one_frame_without_a_part_makes_it_a_split_by_time():
    parts = [f"part{i}" for i in range(59)] + [""]
    assert "time" in split_frames(parts).how


def test_validation_frames_go_to_calibrate_and_are_filled_up():
    validation = [False] * 80 + [True] * 10
    split = split_frames(UNNAMED[:90], validation=validation)
    assert set(range(80, 90)) <= set(split.calibrate)
    assert len(split.calibrate) == 23
    many = split_frames(UNNAMED[:90], validation=[False] * 50 + [True] * 40)
    assert many.calibrate == tuple(range(50, 90))


def test_leave_one_out_keeps_all_but_tuning_frames_and_says_so():
    split = split_frames(UNNAMED[:40], held_out="leave_one_out")
    assert split.fit == split.calibrate
    assert len(split.fit) == 36
    assert "leave-one-out" in split.how


def test_too_few_frames_or_parts_are_refused_with_what_is_needed():
    with pytest.raises(CalibrationError, match=f"19 usable.*at least {MIN_PARTS}"):
        split_frames(UNNAMED[:19])
    with pytest.raises(CalibrationError, match="2 parts"):
        split_frames(["a"] * 30 + ["b"] * 30)
    with pytest.raises(CalibrationError, match="too few to learn from"):
        split_frames(UNNAMED[:40], validation=[False] * 8 + [True] * 32)
