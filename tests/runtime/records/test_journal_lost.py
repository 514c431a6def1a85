"""A station whose journal goes: to Error with an alarm that names it, nothing passes unkept, no id comes twice."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asperity.runtime.states import State
from tests.runtime.inspector.station_floor import MakeFloor, balanced, floors


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeFloor]:
    with floors(tmp_path) as make:
        yield make


LOSSES = pytest.mark.parametrize(
    ("lose", "words"),
    [
        (Path.unlink, "was removed"),
        (lambda path: os.truncate(path, 0), "was truncated"),
        (lambda path: (path.rename(path.with_name("old")), path.symlink_to("old")), "was replaced by another file"),
    ],
    ids=["removed", "cut", "replaced"],
)


@LOSSES
def test_a_lost_journal_is_an_error_that_a_reset_does_not_lead_out_of(
    make: MakeFloor, lose: Callable[[Path], object], words: str
) -> None:
    floor = make("ok")
    floor.send()
    floor.serve()
    lose(floor.journal.path)
    floor.desk.turn()
    assert floor.state.state == State.ERROR and "JOURNAL" in floor.state.alarms
    text = next(event.text for event in floor.events if event.code == "JOURNAL")
    assert words in text and str(floor.journal.path) in text and "restart the station" in text
    assert floor.ask("reset").ok
    floor.settle()
    assert floor.state.state == State.ERROR and "JOURNAL" in floor.state.alarms
    assert not floor.ask("start", mode="continuous").ok
    floor.send()
    floor.settle()
    assert floor.reasons == ["GOOD", "NOT_RUNNING"] and balanced(floor)
    assert floor.ask("halt").ok
    floor.settle()
    assert floor.state.state == State.HALTED


@LOSSES
def test_a_good_result_that_cannot_be_kept_passes_no_part(
    make: MakeFloor, lose: Callable[[Path], object], words: str
) -> None:
    floor = make("ok")
    floor.send()
    floor.desk.turn()
    floor.desk.engine_thread.serve(0.0)  # judged, and not yet seen by the desk
    lose(floor.journal.path)
    floor.desk.turn()
    assert floor.reasons == ["ENGINE"] and not floor.results[0].accept
    assert floor.state.state == State.ERROR and balanced(floor)


def test_what_waits_is_answered_and_ids_are_new_after_the_next_start(make: MakeFloor) -> None:
    floor = make("ok")
    path = floor.journal.path
    for _ in range(3):
        floor.send()
        floor.serve()
    floor.send()
    path.unlink()
    floor.send()
    floor.settle()
    for _ in range(5):
        floor.send()
    floor.settle()
    assert floor.reasons[:3] == ["GOOD"] * 3 and set(floor.reasons[3:]) == {"ENGINE", "NOT_RUNNING"}
    assert len(floor.results) == 10 and balanced(floor)
    floor.close()
    after = make("ok", journal=path)
    assert "JOURNAL" in after.state.alarms
    after.send(100)
    after.settle()
    ids = [result.result_id for result in floor.results]
    assert min(result.result_id for result in after.results) > max(ids) and len(set(ids)) == len(ids)
    assert after.reasons[-1] == "GOOD", "the new journal serves"


def test_another_station_of_the_process_goes_on(make: MakeFloor) -> None:
    floor = make("ok", names=("left", "right"))
    floor.desk.stations[0].journal.path.unlink()
    floor.desk.turn()
    assert floor.state_of("left").state == State.ERROR
    assert floor.state_of("right").state == State.CONTINUOUS_EXECUTION
    floor.send(camera="right")
    floor.settle()
    assert floor.reasons_of("right") == ["GOOD"] and floor.reasons_of("left") == []
