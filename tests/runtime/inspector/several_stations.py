"""Floors of several stations on one journal folder, for tests of what they share and what they do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.runtime.inspector.station_floor import Floor, MakeFloor, floors

NAMES = ("left", "right", "top")


@contextmanager
def several(folder: Path) -> Iterator[MakeFloor]:
    """Makes floors of several stations, all on the same journals in ``folder``; they end with the test."""
    with floors(folder) as make:

        def build(script: str = "ok", **options: Any) -> Floor:
            return make(script, folder / "journal", names=NAMES, **options)

        yield build


def each_balanced(floor: Floor) -> None:
    for name in floor.desk.by_name:
        station = floor.of(name)
        assert station.ledger.imbalance(len(station.work)) == 0
        assert floor.state_of(name).balanced
