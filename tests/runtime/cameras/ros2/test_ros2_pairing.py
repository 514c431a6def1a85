"""Pairing of a driver's messages: a pair is one exposure, in order, once; and every exposure is counted."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.cameras.sources.ros2 import pairing as ros2_pairing
from asperity.runtime.cameras.sources.ros2.pairing import HELD_MAX, Arrived, Pair, Pairing
from asperity.runtime.errors import CameraLostError

PERIOD_NS = 100
TOPICS = ("/colour", "/points")
Message = tuple[int, int]
"""Topic and exposure."""


def pairing(slop_ns: int = 0, held_max_nbytes: int = 10**6) -> Pairing[Message]:
    return Pairing(TOPICS, slop_ns=slop_ns, held_max_nbytes=held_max_nbytes)


def arrived(topic: int, exposure: int, counted: bool = True, shift_ns: int = 0) -> Arrived[Message]:
    return Arrived((exposure + 1) * PERIOD_NS + shift_ns, exposure if counted else None, 1, (topic, exposure))


def paired(messages: list[Message], counted: bool = True, jitter: list[int] | None = None,
           under: Pairing[Message] | None = None) -> list[Pair[Message]]:  # fmt: skip
    """Pairs of messages in the order of their arrival; ``jitter``: by exposure, of the second topic's stamp."""
    made = under or pairing(max(map(abs, jitter)) if jitter else 0)
    found = []
    for topic, exposure in messages:
        shift = jitter[exposure] if jitter and topic else 0
        found += made.add(topic, arrived(topic, exposure, counted, shift))
    return found


def fault(messages: list[Message], pairs: list[Pair[Message]], counted: bool) -> str:
    """How the pairs break the law; empty: they keep it."""
    for pair in pairs:
        if [topic for topic, _ in pair.messages] != [0, 1] or len({exposure for _, exposure in pair.messages}) != 1:
            return f"mixed {pair}"
    for before, after in pairwise(pairs):
        first, second = before.messages[0][1], after.messages[0][1]
        if second <= first:
            return f"{second} after {first}"
        came = {exposure for _, exposure in messages if first < exposure <= second}
        if after.number - before.number != (second - first if counted else len(came)):
            return f"{after.number - before.number} exposures counted from {first} to {second}"
    return ""


arrivals = st.lists(
    st.tuples(*[st.one_of(st.none(), st.integers(0, 3))] * 2), min_size=1, max_size=25
)  # exposure -> how many exposures later each of its messages comes; None: never


def in_order_of_arrival(delays: list[tuple[int | None, int | None]]) -> list[Message]:
    come = [
        (exposure + delay, topic, exposure)
        for exposure, both in enumerate(delays) for topic, delay in enumerate(both) if delay is not None
    ]  # fmt: skip
    return [(topic, exposure) for _, topic, exposure in sorted(come)]


@given(arrivals)
def test_a_pair_is_one_exposure_in_order_and_every_exposure_has_its_number(
    delays: list[tuple[int | None, int | None]],
) -> None:
    messages = in_order_of_arrival(delays)
    assert not fault(messages, paired(messages), counted=True)


@given(arrivals, st.lists(st.integers(-49, 49), min_size=25, max_size=25))
def test_without_a_count_and_with_stamps_that_differ(
    delays: list[tuple[int | None, int | None]], jitter: list[int]
) -> None:
    kept = [tuple(None if delay is None else topic for topic, delay in enumerate(both)) for both in delays]
    messages = in_order_of_arrival(kept)  # the second topic's come one exposure later
    for given_jitter in (None, [each // 2 for each in jitter]):
        assert not fault(messages, paired(messages, counted=False, jitter=given_jitter), counted=False)


@given(arrivals, st.integers(0, 10**6))
def test_a_stamp_that_comes_twice_ends_it(delays: list[tuple[int | None, int | None]], which: int) -> None:
    messages = in_order_of_arrival(delays)
    in_time = [one for at, one in enumerate(messages) if all(one > each or each[0] != one[0] for each in messages[:at])]
    if in_time:
        doubled = in_time[which % len(in_time)]
        at = messages.index(doubled)
        with pytest.raises(CameraLostError, match="twice"):
            paired([*messages[: at + 1], doubled, *messages[at + 1 :]])


def test_the_law_finds_pairing_by_arrival_and_pairing_without_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Controls: what must fail."""
    messages = [(0, 0), (1, 0), (0, 1), (0, 2), (1, 2), (0, 3), (1, 3)]  # the points of exposure 1 are lost
    assert not fault(messages, paired(messages), counted=True)
    by_arrival = zip([one for one in messages if one[0] == 0], [one for one in messages if one[0] == 1], strict=False)
    assert "mixed" in fault(messages, [Pair(at, 0, both) for at, both in enumerate(by_arrival)], counted=True)
    monkeypatch.setattr(Pairing, "_in_order", lambda *_: True)
    assert "mixed" in fault(messages, paired(messages, under=pairing(10**9)), counted=True)


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([(0, 1, 5), (0, 2, 4)], "restarted or its clock was set"),
        ([(0, 2, 5), (0, 1, 6)], "restarted or its clock was set"),
        ([(0, 2, 5), (0, 3, 5)], "restarted or its clock was set"),
        ([(0, 2, None), (0, 1, None)], "went back"),
        ([(0, -1, 1)], "does not stamp"),
    ],
)
def test_stamps_and_counts_that_go_back_end_it(messages: list[tuple[int, int, int | None]], match: str) -> None:
    made = pairing()
    with pytest.raises(CameraLostError, match=match):
        for topic, exposure, sequence in messages:
            made.add(topic, Arrived((exposure + 1) * PERIOD_NS, sequence, 1, (topic, exposure)))


def test_a_slop_of_half_the_period_is_refused() -> None:
    made = pairing(PERIOD_NS // 2)
    made.add(0, arrived(0, 0))
    with pytest.raises(CameraLostError, match="slop_ms"):
        made.add(0, arrived(0, 1))


def test_what_waits_is_bounded_in_number_and_bytes(caplog: pytest.LogCaptureFixture) -> None:
    made, small = pairing(), pairing(held_max_nbytes=3)
    for exposure in range(HELD_MAX + 10):
        for each in (made, small):
            assert not each.add(0, arrived(0, exposure))
    assert made.add(1, arrived(1, 9)) == [], "it was left out already"
    (pair,) = made.add(1, arrived(1, 10))
    assert pair.number == 11 and pair.messages == ((0, 10), (1, 10))
    (pair,) = small.add(1, arrived(1, HELD_MAX + 7))
    assert pair.number == HELD_MAX + 8
    assert len(caplog.records) == 10 + ros2_pairing.LOGGED_MAX
