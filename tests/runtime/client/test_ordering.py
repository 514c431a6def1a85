"""Results in order, none twice, gaps named: the pure core under any loss and disorder."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime import wire
from asperity.runtime.client.ordering import Gap, Ordering
from asperity.runtime.frame import Result

SESSION = "7d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
OTHER = "8d1c2b3a-4e5f-4a6b-8c7d-9e0f1a2b3c4d"


def result(result_id: int, session: str = SESSION) -> wire.ReceivedResult:
    return wire.decode_result_body(wire.encode_result_body(Result(station="st1", session=session, result_id=result_id)))


def state(last_result_id: int, in_flight: int = 0, session: str = SESSION) -> wire.StationState:
    return wire.StationState(station="st1", session=session, last_result_id=last_result_id, in_flight=in_flight)


def taken(order: Ordering) -> list[int | tuple[int, int]]:
    """What is ready: ids, and gaps as pairs."""
    items: list[int | tuple[int, int]] = []
    while (item := order.take()) is not None:
        items.append((item.first_id, item.last_id) if isinstance(item, Gap) else item.result_id)
    return items


def test_nothing_is_handed_on_before_a_state_came() -> None:
    order = Ordering(None, 100)
    order.add(result(7), 0.0)
    assert taken(order) == [] and order.missing() is None
    order.observe(state(7))
    assert taken(order) == [7]


def test_a_newcomer_begins_after_the_last_result_and_what_was_in_work() -> None:
    order = Ordering(None, 100)
    order.observe(state(10, in_flight=2))
    assert order.missing() == (9, 10)
    fresh = Ordering(None, 100)
    fresh.observe(state(10))
    assert fresh.missing() is None
    fresh.add(result(10), 0.0)
    fresh.add(result(11), 0.0)
    assert taken(fresh) == [11]


def test_one_who_comes_again_asks_for_what_it_missed() -> None:
    order = Ordering(4, 100)
    order.observe(state(9))
    assert order.missing() == (4, 9)
    order.answer([result(number) for number in (6, 7)], oldest_id=6, looked_to=0, now_s=0.0)
    assert taken(order) == [(4, 5), 6, 7] and order.missing() == (8, 9)


def test_a_state_tells_of_a_lost_last_result() -> None:
    order = Ordering(None, 100)
    order.observe(state(0))
    order.add(result(1), 0.0)
    order.observe(state(3))
    assert taken(order) == [1] and order.missing() == (2, 3)


def test_a_result_out_of_turn_waits_and_is_no_gap() -> None:
    order = Ordering(None, 100)
    order.observe(state(0))
    order.add(result(2), 5.0)
    assert taken(order) == [] and order.missing() == (1, 1) and order.missed_s(9.0) == 5.0
    order.answer([], oldest_id=1, looked_to=0, now_s=6.0)
    assert taken(order) == []
    order.add(result(1), 7.0)
    assert taken(order) == [1, 2] and order.missing() is None


def test_ids_that_were_never_given_are_a_gap_at_once() -> None:
    order = Ordering(None, 100)
    order.observe(state(5))
    order.observe(state(4101, session=OTHER))
    order.answer([], oldest_id=1, looked_to=4101, now_s=0.0)
    assert taken(order) == [(6, 4101)] and order.missing() is None


def test_several_holes_of_an_answer_are_several_gaps() -> None:
    order = Ordering(None, 100)
    order.observe(state(0))
    order.observe(state(9))
    order.answer([result(number) for number in (2, 3, 6)], oldest_id=1, looked_to=8, now_s=0.0)
    assert taken(order) == [(1, 1), 2, 3, (4, 5), 6, (7, 8)] and order.missing() == (9, 9)


def test_a_journal_that_was_lost_is_named() -> None:
    order = Ordering(None, 100)
    order.observe(state(500))
    order.observe(state(3, session=OTHER))
    assert taken(order) == [(1, 3)]
    order.add(result(4, OTHER), 0.0)
    assert taken(order) == [4]
    late = Ordering(900, 100)
    late.observe(state(3))
    assert taken(late) == [(1, 3)] and late.missing() is None


def test_what_waits_is_bounded() -> None:
    order = Ordering(None, 10)
    order.observe(state(0))
    for number in range(2, 12):
        order.add(result(number), 0.0)
    assert taken(order) == []
    order.add(result(12), 0.0)
    assert taken(order) == [(1, 1), *range(2, 13)]


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.floats(0, 1), st.integers(0, 5))
def test_every_result_comes_once_and_in_order(rng: random.Random, count: int, loss: float, disorder: int) -> None:
    """PUB loses, repeats and disorders; states come now and then; the journal answers what it has."""
    order = Ordering(None, 1000)
    order.observe(state(0))
    published = sorted(range(1, count + 1), key=lambda number: number + rng.uniform(0, disorder))
    journal: list[int] = []
    got: list[int | tuple[int, int]] = []
    for number in published:
        journal.append(number)
        for _ in range(rng.choice((1, 1, 2))):
            if rng.random() >= loss:
                order.add(result(number), 0.0)
        if rng.random() < 0.3:
            order.observe(state(max(journal), in_flight=max(journal) - len(journal)))
        if rng.random() < 0.3 and (missing := order.missing()) is not None:
            found = [number for number in sorted(journal) if missing[0] <= number <= missing[1]]
            order.answer([result(number) for number in found][:3], oldest_id=min(journal), looked_to=0, now_s=0.0)
        got += taken(order)
    order.observe(state(count))
    while (missing := order.missing()) is not None:
        order.answer([result(number) for number in range(missing[0], missing[1] + 1)][:3], 1, 0, 0.0)
    got += taken(order)
    ids = [item for item in got if isinstance(item, int)]
    lost = {number for item in got if isinstance(item, tuple) for number in range(item[0], item[1] + 1)}
    assert ids == sorted(set(ids))
    assert set(ids) | lost == set(range(1, count + 1)) and not set(ids) & lost


def test_an_answer_is_taken_of_settled_ids_only() -> None:
    order = Ordering(None, 100)
    order.observe(state(4))
    order.observe(state(9, in_flight=1))
    forged = [result(number) for number in (5, 6, 7, 12)]
    order.answer(forged, oldest_id=9, looked_to=20, now_s=0.0)
    assert order.missing() == (5, 9) and order.to_ask() is None and taken(order) == []
    assert order.add(result(5), 0.0) and taken(order) == [5], "the true one still comes"
    order.observe(state(9))
    assert order.to_ask() == (6, 9)
    order.answer(forged, oldest_id=1, looked_to=9, now_s=0.0)
    assert taken(order) == [6, 7, (8, 9)] and order.missing() is None


def test_ids_are_settled_once_no_frame_can_be_in_work_so_long() -> None:
    def busy(last_result_id: int, uptime_ms: int, session: str = SESSION) -> wire.StationState:
        return wire.StationState(
            station="st1", session=session, last_result_id=last_result_id, in_flight=1, uptime_ms=uptime_ms
        )

    order = Ordering(1, 100)
    order.observe(busy(2, 1000))
    order.observe(busy(5, 1300))
    order.observe(busy(7, 1600))
    assert order.to_ask() is None, "beat_timeout_ms is 600"
    order.observe(busy(7, 1601))
    assert order.to_ask() == (1, 2)
    order.observe(busy(8, 1901))
    assert order.to_ask() == (1, 5)
    order.observe(busy(9, 0, OTHER))
    order.observe(busy(9, 600, OTHER))
    assert order.to_ask() == (1, 5), "each session has a clock of its own"
    order.observe(busy(9, 601, OTHER))
    assert order.to_ask() == (1, 9)


def test_a_result_that_differs_from_the_answer_is_told_and_comes_once() -> None:
    order = Ordering(1, 100)
    order.observe(state(1))
    order.answer([result(1)], oldest_id=1, looked_to=1, now_s=0.0)
    other = wire.decode_result_body(
        wire.encode_result_body(Result(station="st1", session=SESSION, result_id=1, part_id="another"))
    )
    assert order.add(result(1), 0.0) and not order.add(other, 0.0)
    assert taken(order) == [1]


def test_ids_of_an_earlier_session_are_known_by_what_it_gave() -> None:
    order = Ordering(None, 100)
    order.observe(state(5))
    order.add(result(6), 0.0)
    order.add(result(8, OTHER), 0.0)  # before the new session's first state
    order.observe(state(9, session=OTHER))
    assert order.earlier_id == 6
