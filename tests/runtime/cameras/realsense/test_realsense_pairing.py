"""Depth and colour of one exposure, whatever is lost on the way; counts and clocks that wrap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.cameras.sources.realsense.pairing import (
    COUNTER,
    PENDING_MAX,
    Half,
    Pair,
    Pairing,
    Unwrapped,
    begun_us,
    differences,
    exposed_us,
)
from asperity.runtime.errors import CameraLostError

PERIOD_US = 33_333


def fed(pairing: Pairing[int], arrivals: list[tuple[int, int, int]]) -> tuple[list[Pair[int]], list[str]]:
    """What comes of pictures (stream, exposure, stamp); 0 is depth, 1 colour."""
    pairs, alone = [], []
    for stream, number, stamp_us in arrivals:
        made, left = pairing.add(Half(stamp_us, number, number), bool(stream))
        pairs += made
        alone += left
    return pairs, alone


@given(
    arrived=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=24),
    phase_us=st.integers(-PERIOD_US // 3, PERIOD_US // 3),
    colour_late=st.integers(-3, 3),
    jitter_us=st.lists(st.integers(-2000, 2000), min_size=48, max_size=48),
)
def test_no_exposures_are_mixed_and_none_that_is_whole_is_lost(
    arrived: list[tuple[bool, bool]], phase_us: int, colour_late: int, jitter_us: list[int]
) -> None:
    pictures = [
        (number + stream * (colour_late + 0.5), stream, number,
         10**6 + number * PERIOD_US + stream * phase_us + jitter_us[2 * number + stream])
        for number, there in enumerate(arrived) for stream in (0, 1) if there[stream]
    ]  # fmt: skip
    pairs, alone = fed(Pairing(PERIOD_US / 2), [picture[1:] for picture in sorted(pictures)])
    assert all(pair.depth.picture == pair.colour.picture for pair in pairs)
    assert [pair.depth.picture for pair in pairs] == [number for number, there in enumerate(arrived) if all(there)]
    assert len(alone) <= len(pictures) - 2 * len(pairs)


GAP = [(0, 1, 100), (1, 1, 110), (0, 2, PERIOD_US), (1, 3, 2 * PERIOD_US + 10), (0, 4, 3 * PERIOD_US)]
"""Of exposure 2 the colour is lost, of exposure 3 the depth."""


def test_both_halves_lost_in_turn() -> None:
    pairs, alone = fed(Pairing(PERIOD_US / 2), GAP)
    assert [(pair.depth.number, pair.colour.number) for pair in pairs] == [(1, 1)]
    assert alone == [
        f"depth picture 2 at {PERIOD_US} us has no colour picture of the same exposure",
        f"colour picture 3 at {2 * PERIOD_US + 10} us has no depth picture of the same exposure",
    ]


def test_without_the_check_exposures_are_mixed() -> None:
    pairs, _ = fed(Pairing(float("inf")), GAP)
    assert [(pair.depth.number, pair.colour.number) for pair in pairs] == [(1, 1), (2, 3)]


def test_stamps_half_a_period_apart_are_of_two_exposures() -> None:
    assert fed(Pairing(500), [(0, 1, 1000), (1, 1, 1500)])[0] == []
    assert len(fed(Pairing(500), [(0, 1, 1000), (1, 1, 1499)])[0]) == 1


def test_a_stream_that_has_ended_does_not_fill_the_memory() -> None:
    pairing: Pairing[int] = Pairing(500)
    pairs, alone = fed(pairing, [(0, number, number * 1000) for number in range(1, 101)])
    assert not pairs and len(alone) == 100 - PENDING_MAX
    pairing.clear()
    assert fed(pairing, [(1, 1, 100_000)]) == ([], [])


@pytest.mark.parametrize("second", [(0, 4, 2000), (0, 6, 900), (0, 6, 1000)])
def test_counts_and_stamps_only_grow(second: tuple[int, int, int]) -> None:
    with pytest.raises(CameraLostError, match="went back in its depth pictures"):
        fed(Pairing(500), [(0, 5, 1000), second])


def test_the_same_picture_twice() -> None:
    pairs, alone = fed(Pairing(500), [(0, 5, 1000), (0, 5, 1000), (1, 9, 1001), (1, 9, 1001)])
    assert len(pairs) == 1 and alone == ["depth picture 5 came twice", "colour picture 9 came twice"]


@given(st.integers(0, COUNTER - 1), st.lists(st.integers(-(2**20), 2**30), max_size=20))
def test_a_counter_that_wraps(first: int, steps: list[int]) -> None:
    unwrapped, value = Unwrapped(), first
    assert unwrapped(first) == first
    for step in steps:
        value += step
        assert unwrapped(value % COUNTER) == value


def test_a_counter_that_wrapped_unseen() -> None:
    unwrapped = Unwrapped()
    assert unwrapped(1000) == 1000
    assert unwrapped(2000, grown=3 * COUNTER + 900) == 3 * COUNTER + 2000


def test_the_middle_of_the_exposure() -> None:
    assert exposed_us(10_000, 7_000, 4_000, PERIOD_US) == 7_000
    assert exposed_us(10_000, 1_000, COUNTER - 2_000, PERIOD_US) == 7_000  # the counter wrapped in between
    assert exposed_us(10_000, 7_000, 7_001, PERIOD_US) == 10_000  # not of one picture
    assert exposed_us(10_000, None, 4_000, PERIOD_US) == exposed_us(10_000, 7_000, None, PERIOD_US) == 10_000


def test_neither_half_began_before_the_time_that_is_said() -> None:
    for depth_us, colour_us in ((50_000, 60_000), (60_000, 50_000)):
        pair = Pair(Half(depth_us, 1, None), Half(colour_us, 1, None))
        assert begun_us(pair, 10_000) == 30_000


def test_differences_of_settings() -> None:
    assert differences({"a": "1000", "b": "on"}, {"a": 1000, "b": "ON"}) == []
    assert differences({"a": 1.0}, {"a": 1.00001}) == ["a: wanted 1.0, got 1.00001"]
    assert differences({"a": "on"}, {}) == ["a: wanted on, got None"]
