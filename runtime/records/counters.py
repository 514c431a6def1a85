"""Counts a station's results since the last reset, by recipe, lot and shift; survives a restart.

A file holds the counts as they were when it was written, with the highest result_id given by then and the ids that had
no result yet. What the journal has answered since is counted again at the start, so that a process that is killed loses
nothing: the file is written long before the journal's ring comes round. No verdict depends on any of it.

    file = two slots in turn, each: magic, number, length, CRC-32, JSON     (the valid one of the higher number counts)
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from asperity.runtime.files import OTHERS_MAY_WRITE, make_folder, open_file
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.text.part_identity import NO_BATCH, Batch, batch_text_fault
from asperity.runtime.wire.counters import CounterRow, Counters, Tally

SLOT_NBYTES = 512 * 1024
_MAGIC = b"ASPCNTR1"
_HEAD = struct.Struct("<8sQII")


class Key(NamedTuple):
    """What results are counted by."""

    recipe: str
    lot: str
    shift: str


@dataclass(slots=True)
class Counted:
    """Results of one kind."""

    ok: int = 0
    ng: int = 0
    unknown: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)

    def count(self, result: Result) -> None:
        """One more. Anything that is neither ok nor ng is unknown."""
        if result.verdict is Verdict.OK:
            self.ok += 1
            return
        if result.verdict is Verdict.NG:
            self.ng += 1
        else:
            self.unknown += 1
        self.by_reason[result.reason.name] += 1

    def add(self, other: Counted) -> None:
        """What ``other`` has counted as well."""
        self.ok, self.ng, self.unknown = self.ok + other.ok, self.ng + other.ng, self.unknown + other.unknown
        self.by_reason.update(other.by_reason)

    @classmethod
    def of(cls, tally: Tally) -> Counted:
        """As a message or the file has it; reasons that this version does not know keep their names."""
        return cls(tally.ok, tally.ng, tally.unknown, Counter(tally.by_reason))


class Tallies:
    """The counts. At most ``rows_max`` recipes, lots and shifts together have a row: the one that was counted longest
    ago then joins ``other``. The total is never affected."""

    def __init__(self, rows_max: int, since_us: int) -> None:
        self.since_us = since_us
        self.resets = 0
        self.total = Counted()
        self.other = Counted()
        self.rows: OrderedDict[Key, Counted] = OrderedDict()
        self._rows_max = rows_max

    def count(self, result: Result) -> None:
        """A result that is published."""
        key = Key(result.recipe, result.lot, result.shift)
        self.total.count(result)
        self.rows.setdefault(key, Counted()).count(result)
        self.rows.move_to_end(key)
        self._bound()

    def reset(self, now_us: int) -> None:
        """From 0 again."""
        self.since_us, self.resets = now_us, self.resets + 1
        self.total, self.other = Counted(), Counted()
        self.rows.clear()

    def message(self, station: str, session: str) -> Counters:
        """As it is published."""
        rows = tuple(CounterRow(**_fields(counted), **key._asdict()) for key, counted in self.rows.items())
        return Counters(
            station=station, session=session, since_us=self.since_us, resets=self.resets, rows=rows,
            other=Tally(**_fields(self.other)), **_fields(self.total),
        )  # fmt: skip

    def take_over(self, kept: Counters) -> None:
        """What an earlier run had counted."""
        self.since_us, self.resets = kept.since_us, kept.resets
        self.total, self.other = Counted.of(kept), Counted.of(kept.other)
        self.rows = OrderedDict((Key(row.recipe, row.lot, row.shift), Counted.of(row)) for row in kept.rows)
        self._bound()

    def _bound(self) -> None:
        while len(self.rows) > self._rows_max:
            self.other.add(self.rows.popitem(last=False)[1])


class Kept(msgspec.Struct, frozen=True):
    """What the file holds."""

    counters: Counters
    last_id: int
    """Highest result_id given when it was written."""
    pending: tuple[int, ...] = ()
    """Ids up to it that had no result yet."""
    batch: tuple[str, str, str] = NO_BATCH

    def counts(self, result_id: int) -> bool:
        """A result of this id is in the counts."""
        return result_id <= self.last_id and result_id not in self.pending

    @property
    def of_station(self) -> Batch:
        """Lot, order and shift as they were set."""
        return Batch(*("" if batch_text_fault(text) else text for text in self.batch))


_kept = msgspec.json.Decoder(Kept)


class CounterFile:
    """The file at ``path``, made when it is not there. Nothing waits for the disk: it survives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._number = 0

    def read(self) -> Kept | None:
        """What was written last; None: nothing yet. Raises OSError, and ValueError for what is not such a file."""
        slots = [self._slot(at) for at in range(2)]
        found = max((slot for slot in slots if slot is not None), default=None, key=lambda slot: slot[0])
        if found is None:
            if os.fstat(self._open().fileno()).st_size:
                raise ValueError(f"{self.path} is damaged or not a file of counters")
            return None
        self._number = found[0]
        return _kept.decode(found[1])

    def write(self, kept: Kept) -> None:
        """Raises OSError; it is tried again with the next call."""
        body = msgspec.json.encode(kept)
        if len(body) > SLOT_NBYTES - _HEAD.size:
            raise OSError(0, f"{len(body)} bytes do not fit")
        try:
            if not self._is_there():
                self.close()
            self._number += 1
            head = _HEAD.pack(_MAGIC, self._number, len(body), zlib.crc32(body))
            os.pwrite(self._open().fileno(), head + body, SLOT_NBYTES * (self._number % 2))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            make_folder(self.path.parent)
            fd = open_file(self.path, os.O_RDWR | os.O_CREAT, forbidden=OTHERS_MAY_WRITE)
            self._file = os.fdopen(fd, "r+b", buffering=0)
        return self._file

    def _is_there(self) -> bool:
        """The open file is still the one of this path."""
        with suppress(FileNotFoundError):
            return self._file is not None and os.path.samestat(os.fstat(self._file.fileno()), os.lstat(self.path))
        return False

    def _slot(self, at: int) -> tuple[int, bytes] | None:
        data = os.pread(self._open().fileno(), SLOT_NBYTES, SLOT_NBYTES * at)
        if len(data) < _HEAD.size:
            return None
        magic, number, length, crc = _HEAD.unpack_from(data)
        body = data[_HEAD.size : _HEAD.size + length]
        return (number, body) if magic == _MAGIC and len(body) == length and zlib.crc32(body) == crc else None


def _fields(counted: Counted) -> dict[str, Any]:
    numbers = {"ok": counted.ok, "ng": counted.ng, "unknown": counted.unknown}
    return {**numbers, "by_reason": dict(counted.by_reason)}


