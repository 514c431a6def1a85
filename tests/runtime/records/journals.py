"""Journals of a few slots."""

from __future__ import annotations

from pathlib import Path

from asperity.runtime.records.journal import HEADER_NBYTES, PROMISES_MAX, SLOT_NBYTES, Journal

SLOTS = 64
RESULTS_AT = HEADER_NBYTES + PROMISES_MAX * SLOT_NBYTES


def opened(path: Path, **options: int) -> Journal:
    return Journal.open(path, "st1", slots=SLOTS, **{"reserve_ids": 100, **options})


def fill(journal: Journal, count: int) -> None:
    for _ in range(count):
        result_id = journal.reserve()
        journal.owe(result_id, b"owed %d" % result_id)
        journal.answer(result_id, b"done %d" % result_id)
