"""However often something is logged, a kind of line is written so many times and what was held back is counted."""

from __future__ import annotations

import logging

from asperity.runtime.clock import MS
from asperity.runtime.settings.log_lines import BOUNDED, Rate, Repeats


def test_of_each_kind_so_many_lines_are_due_and_the_next_one_says_how_many_were_held_back() -> None:
    repeats = Repeats(repeat_ms=100, kinds_max=8, most=2)
    assert [repeats.due("a", 0) for _ in range(5)] == [0, 0, None, None, None]
    assert repeats.due("b", 99 * MS) == 0
    assert [repeats.due("a", 100 * MS) for _ in range(3)] == [3, 0, None]


def test_kinds_are_bounded() -> None:
    repeats = Repeats(repeat_ms=100, kinds_max=8)
    for kind in range(1000):
        assert repeats.due(kind, 0) == 0
    assert len(repeats._kinds) == 8


def test_a_flood_from_one_place_in_the_program_is_few_lines_whatever_is_in_them() -> None:
    log = logging.getLogger("test.rate")
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    handler = Keep()
    handler.addFilter(Rate(Repeats(repeat_ms=3_600_000, kinds_max=8, most=3)))
    log.addHandler(handler)
    log.propagate = False
    for number in range(1000):
        log.warning("%d%% of nothing", number)
    log.warning("something else")
    for number in range(5):
        log.warning("bounded %d", number, extra=BOUNDED)
    log.removeHandler(handler)
    assert written[:4] == ["0% of nothing", "1% of nothing", "2% of nothing", "something else"]
    assert written[4:] == [f"bounded {number}" for number in range(5)]
