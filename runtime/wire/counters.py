"""What a station counts of its results since the last reset: ``[counters/<station>/][JSON]``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from asperity.runtime.errors import WireError
from asperity.runtime.wire.common import (
    Count,
    Name,
    NameOrEmpty,
    Part,
    Text,
    Uuid,
    body_of,
    check_part,
    read_json,
    topic,
    write_json,
)

MAX_COUNTERS_BYTES = 256 * 1024
MAX_COUNTER_ROWS = 128

ByReason = Annotated[dict[Text, Count], msgspec.Meta(max_length=64)]


class Tally(msgspec.Struct, frozen=True):
    """Results by verdict, and those that are not ok by reason."""

    ok: Count = 0
    ng: Count = 0
    unknown: Count = 0
    by_reason: ByReason = {}
    """Reason's name -> count; adds up to ng + unknown."""

    @property
    def results(self) -> int:
        """All of them."""
        return self.ok + self.ng + self.unknown

    @property
    def yielded(self) -> float | None:
        """Share of ok among all; None: nothing was counted."""
        return self.ok / self.results if self.results else None


class CounterRow(Tally, frozen=True, kw_only=True):
    """What was counted of one recipe, lot and shift."""

    recipe: NameOrEmpty = ""
    lot: str = ""
    shift: str = ""


class Counters(Tally, frozen=True, kw_only=True):
    """All that a station has counted since ``since_us``. The rows and ``other`` add up to it."""

    v: int = 1
    station: Name
    session: Uuid
    since_us: Count = 0
    resets: Count = 0
    """How often it was reset."""
    rows: Annotated[tuple[CounterRow, ...], msgspec.Meta(max_length=MAX_COUNTER_ROWS)] = ()
    other: Tally = Tally()
    """Of recipes, lots and shifts that have no row any more."""

    def row(self, recipe: str, lot: str, shift: str) -> Tally:
        """What was counted of these; nothing if there is no row."""
        wanted = (recipe, lot, shift)
        return next((row for row in self.rows if (row.recipe, row.lot, row.shift) == wanted), Tally())


_counters = msgspec.json.Decoder(Counters)


def encode_counters(counters: Counters) -> list[bytes]:
    """``[topic, JSON]``. Raises WireError when they break the contract."""
    _check(counters)
    return [topic("counters", counters.station), write_json(_counters, counters, MAX_COUNTERS_BYTES, "counters")]


def decode_counters(parts: Sequence[Part]) -> Counters:
    """The counters of a message. Raises WireError and nothing else."""
    station, body = body_of(parts, "counters")
    counters = read_json(_counters, body, MAX_COUNTERS_BYTES, "counters")
    if counters.station != station:
        raise WireError(f"topic names station {station}, the counters {counters.station}; both must be the same")
    _check(counters)
    return counters


def _check(counters: Counters) -> None:
    for row in counters.rows:
        check_part("counters", None, row.lot, None, row.shift)
