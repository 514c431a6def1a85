"""The desk over a crash and at its end: what it still owed is answered, and once only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from asperity.runtime import wire
from asperity.runtime.errors import AsperityError
from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import Floor, MakeFloor, balanced, floors

OTHER_SESSION = "6f1c3b0e-0f5a-4c57-9a53-222222222222"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


def died(floor: Floor) -> Path:
    """The journal as kill -9 would leave it."""
    path = floor.journal.path
    left = path.read_bytes()
    floor.close()
    path.write_bytes(left)
    return path


def test_after_a_crash_everything_owed_is_answered_restarted_once(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    for seq in (1, 2):
        floor.ask("trigger", trigger_id=seq, part_id=f"P{seq}", timeout_ms=500)
        floor.send(seq, trigger_id=seq, part_id=f"P{seq}")
        if seq == 1:
            floor.serve()
    floor.ask("trigger", trigger_id=5, part_id="P5", timeout_ms=500)
    floor.ask("trigger", trigger_id=6, part_id="P6", timeout_ms=500)
    floor.send(3, trigger_id=5, part_id="P5")
    after = make("ok", journal=died(floor))
    assert [(r.result_id, r.seq, r.trigger_id, r.part_id, r.reason.name) for r in after.results] == [
        (2, 2, 2, "P2", "RESTARTED"), (3, 3, 5, "P5", "RESTARTED"), (4, 0, 6, "P6", "RESTARTED"),
    ]  # fmt: skip
    assert balanced(after)
    after.send(6)
    after.settle()
    assert [(r.result_id, r.seq, r.reason.name) for r in after.results[3:]] == [
        (5, 4, "LOST"), (6, 5, "LOST"), (7, 6, "GOOD"),
    ]  # fmt: skip
    again = make("ok", journal=died(after))
    assert again.results == []


def test_a_duplicate_is_still_known_after_a_restart(make: MakeFloor) -> None:
    floor = make("ok")
    for seq in (1, 2):
        floor.send(seq)
        floor.serve()
    floor.send(1)
    after = make("ok", journal=died(floor))
    after.send(2)
    after.send(3)
    after.send(1, camera_session=OTHER_SESSION)
    after.settle()
    assert Counter(after.reasons) == {"DUPLICATE_SEQ": 1, "GOOD": 2}


def test_a_promise_kept_just_before_the_crash_is_not_kept_twice(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software")
    floor.ask("trigger", trigger_id=5, timeout_ms=500)
    redeem = floor.journal.redeem
    floor.journal.redeem = lambda number: None  # type: ignore[method-assign]  # the crash comes before this
    floor.send(1, trigger_id=5)
    floor.serve()
    floor.journal.redeem = redeem  # type: ignore[method-assign]
    after = make("ok", journal=died(floor))
    assert after.results == []
    assert after.journal.promises() == {}


def test_ending_answers_everything_and_refuses_what_still_comes(make: MakeFloor) -> None:
    floor = make("ok", trigger_mode="software", timing={"shutdown_ms": 0})
    floor.ask("trigger", trigger_id=5, timeout_ms=500)
    floor.send()
    floor.send()
    late = iter([[wire.encode_frame(floor.frame())]])
    floor.sockets.frames = lambda: iter(next(late, []))  # type: ignore[method-assign]
    floor.desk._answer_everything()
    assert Counter(floor.reasons) == {"SHUTDOWN": 2, "UNANNOUNCED": 2}
    assert [entry for entry in floor.journal.entries() if entry.owed] == []
    assert floor.journal.promises() == {}
    assert wire.decode_state(floor.of_kind("state")[-1]).state == State.HALTED
    assert balanced(floor)


def test_a_signal_to_end_that_comes_while_the_desk_looks_round_is_heeded(make: MakeFloor) -> None:
    """It comes between any two steps: also after the desk saw that nothing ends it, before it goes on."""
    floor = make("ok")
    looked = floor.desk.failure

    def signalled_meanwhile() -> AsperityError | None:
        floor.desk.ending = True
        return looked()

    floor.desk.failure = signalled_meanwhile  # type: ignore[method-assign]
    floor.desk.on_time()
    assert floor.desk.ending
