"""What a station counts: each result once, through kill and restart, in a bounded number of rows; reset on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime import wire
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.reasons import JUDGED, Reason
from asperity.runtime.records.counters import Tallies
from tests.runtime.inspector.station_floor import SESSION, Floor, MakeFloor, floors
from tests.runtime.wire.test_wire_properties import batch_texts


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as build:
        yield build


def said(floor: Floor) -> wire.Counters:
    """As it was published last, once all is."""
    floor.pass_ms(6000)
    return wire.decode_counters(floor.of_kind("counters")[-1])


def totals(tally: wire.Tally) -> tuple[int, int, int]:
    return tally.ok, tally.ng, tally.unknown


def adds_up(counters: wire.Counters) -> bool:
    parts = [*counters.rows, counters.other]
    sums = tuple(map(sum, zip(*map(totals, parts), strict=True)))
    reasons: Counter[str] = Counter()
    for part in parts:
        reasons.update(part.by_reason)
        assert sum(part.by_reason.values()) == part.ng + part.unknown
    return sums == totals(counters) and dict(reasons) == dict(counters.by_reason)


def test_each_result_is_counted_by_recipe_lot_and_shift(make: MakeFloor) -> None:
    floor = make("ok ng ok")
    floor.ask("set_batch", lot="L1", shift="early")
    for _ in range(3):
        floor.send()
        floor.settle()
    floor.ask("set_batch", lot="L2")
    floor.send(camera="another")
    floor.send(5)  # the fourth is lost
    floor.settle()
    counters = said(floor)
    rows = {(row.recipe, row.lot, row.shift): totals(row) for row in counters.rows}
    verdicts = Counter(result.verdict for result in floor.results)
    assert totals(counters) == (verdicts[Verdict.OK], verdicts[Verdict.NG], verdicts[Verdict.UNKNOWN])
    assert rows[("a", "L1", "early")] == (2, 1, 0) and sum(rows[("a", "L2", "early")]) == 3
    assert counters.by_reason["LOST"] == counters.by_reason["WRONG_CAMERA"] == 1 and adds_up(counters)
    state = floor.state
    assert (state.ok, state.ng, state.unknown) == totals(counters), "of one session, they are the ledger's"


@pytest.mark.parametrize("clean", [True, False])
def test_a_restart_loses_no_count_and_counts_nothing_twice(tmp_path: Path, clean: bool) -> None:
    """Killed between two writings of the file: what the journal answered since is counted again, what it owes once."""
    journal = tmp_path / "st1.journal"
    before = Floor(journal, "ok ng")
    before.ask("set_batch", lot="L1", order="o", shift="late")
    for _ in range(5):
        before.send()
        before.settle()
    before.pass_ms(6000)  # written
    before.send()  # in work at the next writing
    before.pass_ms(1)
    before.station.counting.save(before.station.work)
    before.settle()
    for _ in range(2):
        before.send()
        before.settle()
    before.send()  # owed
    expected = Counter(result.verdict for result in before.results)
    if clean:
        before.station.counting.close(before.station.work)
    before.close()
    after = Floor(journal, "ok")
    counters = said(after)
    assert totals(counters) == (expected[Verdict.OK], expected[Verdict.NG], expected[Verdict.UNKNOWN] + 1)
    assert counters.by_reason["RESTARTED"] == 1 and adds_up(counters)
    assert (after.state.lot, after.state.order, after.state.shift) == ("L1", "o", "late"), "until it is changed"
    after.close()


@pytest.mark.parametrize("damage", [b"", b"rubbish"])
def test_a_lost_or_damaged_file_costs_counts_and_nothing_else(tmp_path: Path, damage: bytes) -> None:
    journal = tmp_path / "st1.journal"
    before = Floor(journal, "ok")
    before.send()
    before.settle()
    before.pass_ms(6000)
    before.close()
    file = tmp_path / "st1.journal.counters"
    file.write_bytes(damage)
    after = Floor(journal, "ok")
    assert any(event.code == "COUNTERS" for event in after.events) == bool(damage)
    after.send(2)
    after.settle()
    assert after.results[-1].accept and totals(said(after)) == (1, 0, 0)
    assert after.state.alarms == ()
    after.close()


def test_a_file_that_cannot_be_written_is_an_alarm_and_judging_goes_on(make: MakeFloor, tmp_path: Path) -> None:
    floor = make("ok", journal=tmp_path / "x.journal")
    file = tmp_path / "x.journal.counters"
    floor.pass_ms(6000)
    file.unlink()
    file.mkdir()
    floor.send()
    floor.settle()
    floor.pass_ms(6000)
    assert floor.results[-1].accept and "COUNTERS" in floor.state.alarms
    file.rmdir()
    floor.pass_ms(6000)
    assert "COUNTERS" not in floor.state.alarms and file.stat().st_size > 0


def test_a_reset_counts_from_0_and_is_audited_with_what_had_been_counted(make: MakeFloor) -> None:
    floor = make("ok ng")
    for _ in range(3):
        floor.send()
        floor.settle()
    assert floor.ask("reset_counters", actor="opcua smith").code == "OK"
    floor.send()
    floor.settle()
    counters = said(floor)
    assert (counters.ok + counters.ng + counters.unknown, counters.resets, len(counters.rows)) == (1, 1, 1)
    assert counters.since_us > 0 and (floor.state.ok, floor.state.ng) != totals(counters)[:2]
    (entry,) = [entry for entry in floor.audit() if entry["op"] == "counters_reset"]
    assert entry["actor"]["says"] == "opcua smith" and (entry["fields"]["ok"], entry["fields"]["ng"]) == (1, 2)


results = st.builds(
    lambda verdict, reason, recipe, lot, shift: Result(
        station="st1", session=SESSION, result_id=1, verdict=verdict,
        reason={Verdict.OK: Reason.GOOD, Verdict.NG: Reason.SHAPE_OUT_OF_RANGE}.get(verdict, reason),
        score=None if verdict is Verdict.UNKNOWN else 0.5, threshold=None if verdict is Verdict.UNKNOWN else 1.0,
        recipe=recipe, lot=lot, shift=shift,
    ),
    st.sampled_from(Verdict), st.sampled_from(sorted(set(Reason) - JUDGED)), st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "L1"]) | batch_texts, st.sampled_from(["early", "late"]),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(results, max_size=30), st.integers(1, 4))
def test_whatever_comes_rows_and_other_add_up_to_the_total_and_the_rows_are_bounded(
    counted: list[Result], most: int
) -> None:
    tallies = Tallies(most, 1)
    for result in counted:
        tallies.count(result)
    counters = wire.decode_counters(wire.encode_counters(tallies.message("st1", SESSION)))
    assert adds_up(counters) and len(counters.rows) <= most and counters.results == len(counted)
    assert counters.ok == sum(result.accept for result in counted)
    again = Tallies(most, 2)
    again.take_over(counters)
    assert again.message(counters.station, counters.session) == counters
    if counted:
        last = counted[-1]
        assert counters.row(last.recipe, last.lot, last.shift).results >= 1, "the present one always has its row"


def test_the_longest_counters_fit_their_message_and_their_file() -> None:
    reasons = {reason.name: wire.MAX_INTEGER for reason in Reason}
    most = {"ok": wire.MAX_INTEGER, "ng": wire.MAX_INTEGER, "unknown": wire.MAX_INTEGER, "by_reason": reasons}
    row = wire.CounterRow(recipe="r" * 32, lot='"' * 64, shift="\\" * 64, **most)
    counters = wire.Counters(
        station="s" * 32, session=SESSION, rows=(row,) * wire.MAX_COUNTER_ROWS,
        other=wire.Tally(**most), since_us=wire.MAX_INTEGER, resets=wire.MAX_INTEGER, **most,
    )  # fmt: skip
    assert len(wire.encode_counters(counters)[1]) <= wire.MAX_COUNTERS_BYTES
