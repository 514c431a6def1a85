"""Messages waiting for the broker and those passed to it: bounded, in order, none twice, every loss reported."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.files import OTHERS_MAY_WRITE, make_folder, open_file, read_file
from asperity.runtime.gateways.link import Item
from asperity.runtime.wire import MAX_INTEGER

log = logging.getLogger("asperity.gateway")

FULL = "the broker was unreachable and the gateway's buffer was full"
UNCERTAIN = "sent, but the connection ended before the broker acknowledged it: possibly delivered, not sent again"
RESTARTED = "sent, but the gateway ended before the broker acknowledged it: possibly delivered, not sent again"
MAGIC = b"ASPMQTT1"
RECORD = struct.Struct("<8sQ32sQQ")
"""Magic, number of the record, station, highest result given to the broker (written before it is), highest that the
broker has acknowledged (may lag behind)."""
CRC = struct.Struct("<I")
SLOT_BYTES = 128


class Outbox:
    """Items in order. When it is full the oldest go, and are named in one gap."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._first: deque[Gap] = deque()  # named before anything that waits
        self._dropped: Gap | None = None
        self._waiting: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._first) + (self._dropped is not None) + len(self._waiting)

    def put(self, item: Item) -> None:
        """One more at the end."""
        self._waiting.append(item)
        while len(self._waiting) > self._most:
            first_id, last_id = ids(self._waiting.popleft())
            if self._dropped is not None and self._dropped.last_id < first_id:
                first_id = self._dropped.first_id
            elif self._dropped is not None:
                # Ids went back: the station counts anew, and one range cannot name both.
                self._first.append(self._dropped)
            self._dropped = Gap(first_id, last_id, FULL)

    def name(self, gaps: Iterable[Gap]) -> None:
        """Gaps that come before everything that waits."""
        self._first.extendleft(reversed(list(gaps)))

    def take(self) -> Item | None:
        """The next, if there is one."""
        if self._first:
            return self._first.popleft()
        if self._dropped is not None:
            gap, self._dropped = self._dropped, None
            return gap
        return self._waiting.popleft() if self._waiting else None


def ids(item: Item) -> tuple[int, int]:
    """First and last result that an item tells of."""
    return (item.first_id, item.last_id) if isinstance(item, Gap) else (item.result.result_id, item.result.result_id)


def uncertain(items: Iterable[Item]) -> list[Gap]:
    """Gaps for what was sent and not acknowledged, in order. A gap that may not have arrived is named again."""
    gaps: list[Gap] = []
    for item in items:
        if isinstance(item, Gap):
            gaps.append(item)
            continue
        result_id = item.result.result_id
        if gaps and gaps[-1].why == UNCERTAIN and gaps[-1].last_id == result_id - 1:
            gaps[-1] = Gap(gaps[-1].first_id, result_id, UNCERTAIN)
        else:
            gaps.append(Gap(result_id, result_id, UNCERTAIN))
    return gaps


class StateFile:
    """How far the gateway got, so that it continues from there after a restart. It survives the process.

    Two records in turn, each with a number and a CRC-32, written in place: what was killed in the middle of one leaves
    the other. A file put in place of another (rename) would be safer on a power cut, and waits for the disk.
    """

    @classmethod
    def held(cls, path: Path, station: str) -> StateFile:
        """The file, of this process alone: what two gateways write by turns would let each skip results of its broker
        after a restart. Raises ConfigError, GatewayError."""
        try:
            there = os.path.lexists(path)
            file = _open(path)
        except OSError as error:
            raise ConfigError(
                f"[mqtt] state_file: {path} cannot be written: {error.strerror or error}; set another file, in a "
                "folder of this user's"
            ) from error
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise GatewayError(
                f"[mqtt] state_file: another gateway uses {path}; end it, or, if the station has two brokers, set "
                "state_file to another file for each"
            ) from None
        except OSError as error:
            file.close()
            raise ConfigError(
                f"[mqtt] state_file: {path} cannot be locked: {error.strerror}; set a local file"
            ) from error
        try:
            # A full disk shows now and not at the first result, which could then not be published.
            os.posix_fallocate(file.fileno(), 0, 2 * SLOT_BYTES)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # what a file system without reservation says
                file.close()
                raise ConfigError(
                    f"[mqtt] state_file: {path} cannot be written: {error.strerror}; free some space or set a file on "
                    "another disk"
                ) from error
        return cls(path, station, file, new=not there)

    def __init__(self, path: Path, station: str, file: BinaryIO | None = None, *, new: bool = False) -> None:
        """Read what is there; what cannot be read is reported and counts as nothing: then the gateway begins with
        now. ``file``: it, if it is open already; ``new``: made for that."""
        self._path = path
        self._station = station.encode()
        self._number = 0
        self._file = file
        self._written: tuple[int, int] | None = None
        self.sent = self.acknowledged = 0
        if not new:
            self._read()

    @property
    def since(self) -> int | None:
        """First result wanted after a restart; None: whatever comes."""
        return self.sent + 1 if self.sent else None

    def gaps(self) -> list[Gap]:
        """What the previous run sent and may not have been delivered."""
        return [Gap(self.acknowledged + 1, self.sent, RESTARTED)] if self.acknowledged < self.sent else []

    def write(self, sent: int, acknowledged: int) -> None:
        """Put on file if it is news. Raises OSError: without it results could come twice."""
        if (sent, acknowledged) == self._written:
            return
        if self._file is None:
            self._file = _open(self._path)
        self._number += 1
        body = RECORD.pack(MAGIC, self._number, self._station, sent, min(acknowledged, MAX_INTEGER))
        os.pwrite(self._file.fileno(), body + CRC.pack(zlib.crc32(body)), SLOT_BYTES * (self._number % 2))
        self.sent, self.acknowledged = sent, acknowledged
        self._written = (sent, acknowledged)

    def close(self) -> None:
        """Close the file; another gateway may have it."""
        if self._file is not None:
            self._file.close()

    def _read(self) -> None:
        try:
            data = read_file(self._path, 2 * SLOT_BYTES, forbidden=OTHERS_MAY_WRITE)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s cannot be read (%s): publishing starts with new results", self._path, error.strerror)
            return
        if data == bytes(2 * SLOT_BYTES):  # reserved by a run that published nothing
            return
        records = [self._record(data[start : start + SLOT_BYTES]) for start in (0, SLOT_BYTES)]
        found = max((record for record in records if record is not None), default=None)
        if found is None:
            log.warning("%s has no record of this station: publishing starts with new results", self._path)
            return
        self._number, self.sent, acknowledged = found
        self.acknowledged = min(acknowledged, self.sent)

    def _record(self, slot: bytes) -> tuple[int, int, int] | None:
        """Number, sent and acknowledged of a slot that is whole and of this station."""
        if len(slot) < RECORD.size + CRC.size:
            return None
        body = slot[: RECORD.size]
        if CRC.unpack_from(slot, RECORD.size) != (zlib.crc32(body),):
            return None
        magic, number, station, sent, acknowledged = RECORD.unpack(body)
        known = magic == MAGIC and station.rstrip(b"\0") == self._station and 0 < sent <= MAX_INTEGER
        return (number, sent, acknowledged) if known else None


def _open(path: Path) -> BinaryIO:
    make_folder(path.parent)
    return os.fdopen(open_file(path, os.O_RDWR | os.O_CREAT, forbidden=OTHERS_MAY_WRITE), "r+b", buffering=0)
