"""What waits for the broker, and what was given to it: bounded, in order, nothing twice and nothing lost unnamed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import msgspec

from runtime.gateways.link import Item
from runtime.gateways.users import write_private
from runtime.ordering import Gap
from runtime.wire import MAX_INTEGER

log = logging.getLogger("asperity.gateway")

FULL = "the broker was away and the gateway's buffer was full"
UNCERTAIN = "sent, but the connection ended before the broker acknowledged: perhaps delivered, not sent again"
RESTARTED = "sent, but the gateway ended before the broker acknowledged: perhaps delivered, not sent again"
MAX_STATE_BYTES = 4096


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


class _Progress(msgspec.Struct, frozen=True):
    station: str
    sent: int
    """Highest result given to the broker, written before it is."""
    acknowledged: int
    """Highest that the broker has acknowledged; may lag behind."""


class StateFile:
    """How far the gateway got, so that it goes on from there when it is started again. It survives the process."""

    def __init__(self, path: Path, station: str) -> None:
        """Read what is there; what cannot be read is told and counts as nothing: then the gateway begins with now."""
        self._path = path
        self._station = station
        self._written: tuple[int, int] | None = None
        self.sent = self.acknowledged = 0
        progress = self._read()
        if progress is not None:
            self.sent, self.acknowledged = progress.sent, min(progress.acknowledged, progress.sent)

    @property
    def since(self) -> int | None:
        """First result wanted after a restart; None: whatever comes."""
        return self.sent + 1 if self.sent else None

    def gaps(self) -> list[Gap]:
        """What was sent in the run before and perhaps not delivered."""
        return [Gap(self.acknowledged + 1, self.sent, RESTARTED)] if self.acknowledged < self.sent else []

    def write(self, sent: int, acknowledged: int) -> None:
        """Put on file, in one step, if it is news. Raises OSError: without it results could come twice."""
        if (sent, acknowledged) == self._written:
            return
        self.sent, self.acknowledged = sent, acknowledged
        write_private(self._path, msgspec.json.encode(_Progress(self._station, sent, acknowledged)))
        self._written = (sent, acknowledged)

    def _read(self) -> _Progress | None:
        try:
            with self._path.open("rb") as file:
                progress = msgspec.json.decode(file.read(MAX_STATE_BYTES), type=_Progress)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("%s cannot be read (%s): results are published from now on", self._path, error)
            return None
        if progress.station != self._station or not 0 < progress.sent <= MAX_INTEGER or progress.acknowledged < 0:
            log.warning("%s is not of station %s: results are published from now on", self._path, self._station)
            return None
        return progress
