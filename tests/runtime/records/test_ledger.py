"""Every exposure gets one fate, and received + lost = ok + ng + unknown + in_flight at every moment."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.records.ledger import Arrival, Ledger, Sequence

GAP = 64


def sequence(sessions_max: int = 4) -> Sequence:
    return Sequence(gap_max=GAP, sessions_max=sessions_max)


def test_frames_in_order_lose_nothing() -> None:
    seqs = sequence()
    assert [seqs.arrive("a", seq) for seq in (7, 8, 9)] == [Arrival()] * 3


def test_a_gap_is_lost_one_by_one_up_to_the_bound() -> None:
    seqs = sequence()
    seqs.arrive("a", 1)
    assert seqs.arrive("a", 2 + GAP) == Arrival(lost=range(2, 2 + GAP))
    assert len(seqs.arrive("a", 3 + 2 * GAP).lost) == GAP


def test_a_larger_gap_is_believed_when_the_next_frame_confirms_it() -> None:
    seqs = sequence()
    seqs.arrive("a", 1)
    assert seqs.arrive("a", 66 + 1) == Arrival(reason=Reason.SEQ_JUMP)
    assert seqs.arrive("a", 66 + 2) == Arrival(reason=Reason.SEQ_JUMP)
    assert seqs.arrive("a", 66 + 3) == Arrival()


def test_a_leap_that_nothing_confirms_changes_nothing() -> None:
    seqs = sequence()
    seqs.arrive("a", 1)
    for leap in (2**53 - 1, 5000, 9000, 5001):
        assert seqs.arrive("a", leap) == Arrival(reason=Reason.SEQ_JUMP)
    assert seqs.arrive("a", 2) == Arrival()
    assert seqs.arrive("a", 5002) == Arrival(reason=Reason.SEQ_JUMP), "a frame in order came between"
    assert seqs.arrive("a", 3) == Arrival()


def test_an_exposure_that_was_lost_and_comes_late_is_told_from_one_that_comes_twice() -> None:
    seqs = sequence()
    seqs.arrive("a", 1)
    assert seqs.arrive("a", 4).lost == range(2, 4)
    assert [seqs.comes_late("a", seq) for seq in (3, 3, 4, 9)] == [True, False, False, False]
    assert seqs.arrive("a", 3) == Arrival(reason=Reason.DUPLICATE_SEQ)


def test_what_was_seen_or_goes_back_is_a_duplicate_and_changes_nothing() -> None:
    seqs = sequence()
    seqs.arrive("a", 5)
    for seq in (5, 4, 0):
        assert seqs.arrive("a", seq) == Arrival(reason=Reason.DUPLICATE_SEQ)
    assert seqs.arrive("a", 6) == Arrival()


def test_each_run_of_the_camera_counts_for_itself() -> None:
    seqs = sequence()
    seqs.arrive("a", 100)
    assert seqs.arrive("b", 1) == Arrival()
    assert seqs.arrive("a", 101) == Arrival()


def test_only_so_many_runs_are_remembered() -> None:
    seqs = sequence(sessions_max=2)
    for session in "abc":
        seqs.arrive(session, 10)
    assert seqs.arrive("c", 10).reason is Reason.DUPLICATE_SEQ
    assert seqs.arrive("a", 10) == Arrival(), "the oldest run was forgotten"


def test_so_many_runs_are_remembered_and_the_one_that_was_silent_longest_goes_first() -> None:
    seqs = sequence(sessions_max=2)
    for session in "ab":
        seqs.arrive(session, 10)
    assert seqs.arrive("a", 11) == Arrival()
    assert seqs.arrive("c", 10) == Arrival(), "b is forgotten for it, which was silent"
    assert seqs.arrive("a", 11).reason is Reason.DUPLICATE_SEQ
    assert seqs.refused("a", 12) == range(12, 12), "a message that broke the contract is a sign of life too"
    seqs.arrive("d", 10)
    assert seqs.arrive("a", 12).reason is Reason.DUPLICATE_SEQ
    assert seqs.arrive("c", 10) == Arrival(), "c was silent longer"


def test_a_late_frame_is_known_among_the_last_256_lost_ones_or_those_of_the_largest_gap() -> None:
    for gap_max, remembered in ((GAP, 256), (1000, 1000)):
        seqs = Sequence(gap_max=gap_max, sessions_max=1)
        seq = 0
        seqs.arrive("a", seq)
        for _ in range(-(-2 * remembered // gap_max)):
            seq += gap_max + 1
            assert len(seqs.arrive("a", seq).lost) == gap_max
        late = [one for one in range(seq) if seqs.comes_late("a", one)]
        assert len(late) == remembered and max(late) == seq - 1


def test_a_refused_message_counts_where_its_seq_is_plausible() -> None:
    seqs = sequence()
    assert seqs.refused("a", 5) == range(0), "a run is not begun by a message that broke the contract"
    seqs.arrive("a", 5)
    assert seqs.refused("a", 7) == range(6, 7)
    assert seqs.refused("a", 10**9) == range(0)
    assert seqs.refused("a", 3) == range(0)
    assert seqs.arrive("a", 8) == Arrival()
    assert seqs.refused("a", 8 + GAP + 2) == range(0), "one more than is believed"
    assert seqs.refused("a", 8 + GAP + 1) == range(9, 9 + GAP)
    assert seqs.arrive("a", 8 + GAP + 2) == Arrival()


def test_a_refused_message_of_a_known_seq_does_not_stand_between_a_leap_and_what_confirms_it() -> None:
    seqs = sequence()
    seqs.arrive("a", 5)
    assert seqs.arrive("a", 500).reason is Reason.SEQ_JUMP
    assert seqs.refused("a", 5) == range(0)
    assert seqs.arrive("a", 501).reason is Reason.SEQ_JUMP
    assert seqs.arrive("a", 502) == Arrival()


def test_a_restored_lost_exposure_may_come_late_and_an_answered_one_may_not() -> None:
    seqs = sequence()
    seqs.restore("a", 3)
    seqs.restore("a", 4, lost=True)
    assert [seqs.comes_late("a", seq) for seq in (3, 4, 4)] == [False, True, False]
    assert not seqs.comes_late("b", 4)
    assert seqs.arrive("a", 5) == Arrival()


def test_restored_runs_go_on_where_they_were() -> None:
    seqs = sequence()
    for seq in (3, 9, 4):
        seqs.restore("a", seq)
    assert seqs.arrive("a", 12) == Arrival(lost=range(10, 12))


def result(verdict: Verdict, reason: Reason) -> Result:
    judged = verdict is not Verdict.UNKNOWN
    return Result("st1", "s", 1, verdict=verdict, reason=reason, score=0.5 if judged else None,
                  threshold=1.0 if judged else None)  # fmt: skip


FATES = [(Verdict.OK, Reason.GOOD), (Verdict.NG, Reason.SCORE_ABOVE_THRESHOLD), (Verdict.NG, Reason.SHAPE_OUT_OF_RANGE)]
FATES += [(Verdict.UNKNOWN, reason) for reason in Reason if reason not in JUDGED]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 300), st.sampled_from(FATES), st.booleans())))
def test_the_law_holds_and_every_exposure_has_one_fate(
    arrivals: list[tuple[str, int, tuple[Verdict, Reason], bool]],
) -> None:
    seqs, ledger = sequence(), Ledger()
    fates: dict[tuple[str, int], int] = {}
    waiting: list[Result] = []
    for session, seq, fate, at_once in arrivals:
        if seqs.comes_late(session, seq):
            continue
        arrival = seqs.arrive(session, seq)
        for lost in arrival.lost:
            ledger.lose()
            ledger.settle(result(Verdict.UNKNOWN, Reason.LOST))
            fates[session, lost] = fates.get((session, lost), 0) + 1
        ledger.receive()
        if arrival.reason is not None:
            ledger.settle(result(Verdict.UNKNOWN, arrival.reason))
        elif at_once:
            ledger.settle(result(*fate))
        else:
            waiting.append(result(*fate))
        if arrival.reason is None:
            fates[session, seq] = fates.get((session, seq), 0) + 1
        assert ledger.imbalance(len(waiting)) == 0
    for late in waiting:
        ledger.settle(late)
    assert ledger.imbalance(0) == 0
    assert all(count == 1 for count in fates.values())


def test_the_law_notices_each_kind_of_mistake() -> None:
    ledger = Ledger()
    ledger.receive()
    assert ledger.imbalance(0) == 1, "a frame without a result"
    ledger.settle(result(Verdict.OK, Reason.GOOD))
    assert ledger.imbalance(0) == 0
    ledger.settle(result(Verdict.OK, Reason.GOOD))
    assert ledger.imbalance(0) == -1, "a result too many"
    ledger.lose()
    assert ledger.imbalance(0) == 0
    ledger.unknown_by_reason[Reason.LOST] += 1
    assert ledger.imbalance(0) != 0, "a reason without its unknown"


def test_each_verdict_has_its_own_counter_and_each_unknown_its_reason() -> None:
    ledger = Ledger()
    assert (ledger.received, ledger.lost, ledger.ok, ledger.ng, ledger.unknown, ledger.late) == (0,) * 6
    for verdict, reason in [*FATES[:1] * 3, *FATES[1:3], (Verdict.UNKNOWN, Reason.LOST)]:
        ledger.settle(result(verdict, reason))
    assert (ledger.ok, ledger.ng, ledger.unknown) == (3, 2, 1)
    assert ledger.unknown_by_reason == {Reason.LOST: 1}
    assert ledger.deadline_missed == 0
    ledger.settle(replace(result(*FATES[0]), deadline_missed=True))
    assert (ledger.ok, ledger.deadline_missed) == (4, 1)
    ledger.unknown += 1
    for _ in range(8):
        ledger.receive()
    assert ledger.imbalance(0) == 1, "an unknown without its reason"
