"""Every request to the station, its sender and its outcome: JSON lines in an append-only file.

The I/O thread makes the entries and never waits for the disk: they go into a bounded queue, from which another thread
writes them. Each batch is synced (fdatasync) before the next one is taken, so a killed process loses only entries of
the last milliseconds, and a power cut no more than that. What the disk refuses stays in the queue and is retried;
what no longer fits the queue is counted, and the count becomes an entry as soon as there is room. A batch that failed
half-way is written again whole: ``n``, which counts entries in a session, reveals repeats and gaps.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from asperity.runtime.clock import MS, Now, look
from asperity.runtime.errors import AuditError
from asperity.runtime.files import OTHERS_MAY_WRITE, FileRefused, OthersReach, make_folder, open_file, sync_folder

log = logging.getLogger("asperity.station")

RETRY_S = 1.0
"""A disk that failed is retried after this long."""
STALLED_NS = 10_000 * MS
"""A disk that has taken nothing for this long while entries wait counts as failing."""
CLOSE_S = 5.0
"""Longest wait for the disk when the process ends."""
BATCH_MAX = 64
"""Entries of one write, 3 KB each at most."""
MINUTE_NS = 60_000 * MS
FULL_OR_FAILING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
"""Errors that another try may cure: an alarm, and no reason not to judge parts."""
ACTOR_MAX = 64


@dataclass(frozen=True, slots=True)
class Actor:
    """Sender of a request. Without CURVE none of it is proven."""

    name: str = ""
    """The client's name in the station's list; proven by its key."""
    key: str = ""
    """The key's id; proven."""
    says: str = ""
    """On whose behalf, as the request says: claimed by a gateway, not proven."""

    @property
    def text(self) -> str:
        """For events: what is proven first, so that no claim can be taken for it. Printable ASCII."""
        proven = f"{self.name} (key {self.key})".strip() if self.key else self.name
        claimed = f"says {self.says}" if self.says else ""
        return ", ".join(part for part in (proven, claimed) if part)[:ACTOR_MAX]


ITSELF = Actor(name="the station")
"""No client can be called so: their names hold no space."""


class Bounds(Protocol):
    """How much an audit keeps and holds: the table [audit] of a configuration file."""

    @property
    def max_mbytes(self) -> int: ...
    @property
    def files(self) -> int: ...
    @property
    def queue_entries(self) -> int: ...
    @property
    def refusals_per_min(self) -> int: ...


class AuditFile:
    """``path`` and the older ``path.1`` to ``path.(files - 1)``. Raises AuditError or OSError."""

    def __init__(self, path: Path, max_bytes: int, files: int, setting: str = "[audit] path") -> None:
        """``setting``: the key of the configuration that names the file, for messages."""
        self.path = path
        self._max_bytes = max_bytes
        self._files = files
        self._setting = setting
        self._fd = -1
        self._size = 0

    def open(self) -> None:
        """Open the file, or make it for this user alone. One that others could have changed is not continued."""
        self.close()
        try:
            make_folder(self.path.parent)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            fd = open_file(self.path, flags, forbidden=OTHERS_MAY_WRITE, root=False)
        except OSError as error:
            if error.errno in FULL_OR_FAILING:
                raise
            raise AuditError(f"audit file {self.path} cannot be used: {self._repair(error)}") from error
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                os.write(fd, b"\n")  # an entry that a power cut tore must not take the next one with it
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._size = fd, size

    def append(self, data: bytes) -> None:
        """Add lines; they are on the disk when this returns."""
        if not self._is_there():
            self.open()
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
            self._size += len(data)
            os.fdatasync(self._fd)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _repair(self, error: OSError) -> str:
        if isinstance(error, OthersReach) and not error.foreign:
            return f"{error.strerror}; run `chmod 600 {self.path}`"
        if isinstance(error, FileRefused):
            return f"{error.strerror}; remove it or set {self._setting}"
        return f"{error.strerror}; set {self._setting}"

    def _is_there(self) -> bool:
        """The open file is still the one of this path: one that was moved away or removed is not written on."""
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        self.close()
        for number in range(self._files - 1, 0, -1):
            older = self.path if number == 1 else self._older(number - 1)
            if os.path.lexists(older):
                older.replace(self._older(number))
        self.open()
        sync_folder(self.path.parent)

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


class Audit:
    """The audit of one process. All methods are for one thread, the I/O thread's; none of them waits for the disk.

    (``start`` and ``close`` do, at the begin and the end.)
    """

    def __init__(
        self,
        bounds: Bounds,
        path: Path,
        session: str,
        clock: Callable[[], Now] = look,
        setting: str = "[audit] path",
    ) -> None:
        """``setting``: the key of the configuration that names ``path``."""
        self.lost = 0
        """Entries that did not fit the queue."""
        self._file = AuditFile(path, bounds.max_mbytes * 1_000_000, bounds.files, setting)
        self._session = session
        self._clock = clock
        self._queue_max = bounds.queue_entries
        self._queue: deque[bytes] = deque()
        self._n = 0
        self._lost_told = 0
        self._refusals_max = bounds.refusals_per_min
        self._minute_ns = clock().ns
        self._refusals = 0
        self._problem = ""  # of the writer: why the last batch is not on the disk
        self._written_ns = clock().ns
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the file and write from here on. Raises AuditError for a file that cannot be relied on."""
        try:
            self._file.open()
        except OSError as error:
            self._problem = f"{self._file.path}: {error.strerror}"
        self._thread = threading.Thread(target=self._write, name="audit", daemon=True)
        self._thread.start()

    def record(
        self, station: str, op: str, actor: Actor, code: str, text: str = "", *, refused: bool = False, **fields: Any
    ) -> None:
        """One action. ``refused``: nothing was done; of these a limited number is written each minute.

        ``fields``: what it was done with; JSON values. ``station`` empty: of no one station.
        """
        if refused:
            self._refusals += 1
            if self._refusals > self._refusals_max:
                return
        self._put(station, op, actor, code, text, fields)

    def log_in(self, where: str, actor: Actor, refusal: str = "", **fields: Any) -> None:
        """A client connected to or logged in at ``where`` (a socket, a gateway); ``refusal``: why it was not
        admitted."""
        self.record("", "log_in", actor, refusal or "OK", refused=bool(refusal), where=where, **fields)

    def look(self) -> str:
        """Why entries are not written or were lost, as text; empty: nothing is wrong. To be called often.

        Writes too what is only counted.
        """
        self._count_refusals()
        untold = self.lost - self._lost_told
        if untold and len(self._queue) < self._queue_max // 2:
            self._lost_told = self.lost
            self._put("", "audit", ITSELF, "LOST", "the disk was too slow or failed", {"entries": untold})
        return self._trouble()

    def write_waiting(self) -> bool:
        """Write what waits; False where the disk did not take it. For the writer's thread (or where there is none)."""
        while self._queue:
            batch = [self._queue[at] for at in range(min(len(self._queue), BATCH_MAX))]
            try:
                self._file.append(b"".join(batch))
            except (OSError, AuditError) as error:
                self._problem = str(error)
                return False
            for _ in batch:
                self._queue.popleft()
            self._problem = ""
            self._written_ns = self._clock().ns
        return True

    def close(self) -> None:
        """Write what waits, for at most CLOSE_S, and end."""
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        if self._queue or self.lost > self._lost_told:
            log.error(
                "%d audit entries were not written: %s",
                len(self._queue) + self.lost - self._lost_told, self._problem or "the disk is too slow",
            )  # fmt: skip

    # ------------------------------------------------------------------

    def _put(self, station: str, op: str, actor: Actor, code: str, text: str, fields: dict[str, Any]) -> None:
        now = self._clock()
        self._n += 1
        if len(self._queue) >= self._queue_max:
            self.lost += 1
            return
        moment = datetime.fromtimestamp(now.wall_us // 1_000_000, timezone.utc)
        entry = {
            "t": f"{moment:%Y-%m-%dT%H:%M:%S}.{now.wall_us % 1_000_000:06d}Z",
            "n": self._n,
            "session": self._session,
            "station": station,
            "op": op,
            "fields": fields,
            "code": code,
            "text": text,
            "actor": asdict(actor),
        }
        if not self._queue:
            self._written_ns = now.ns
        # ASCII only: a name from outside can neither end the line nor turn the direction of the text in a viewer.
        self._queue.append(json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
        self._wake.set()

    def _count_refusals(self) -> None:
        now_ns = self._clock().ns
        if now_ns - self._minute_ns < MINUTE_NS:
            return
        more = self._refusals - self._refusals_max
        if more > 0:
            self._put(
                "", "audit", ITSELF, "REFUSALS", "more requests were refused than are recorded", {"entries": more}
            )
        self._minute_ns, self._refusals = now_ns, 0

    def _trouble(self) -> str:
        lost = f"; {self.lost} entries are lost" if self.lost else ""
        if self._problem:
            return f"the audit file cannot be written ({self._problem}); free some space or repair the disk{lost}"
        if self.lost > self._lost_told:
            return f"{self._queue_max} audit entries are waiting for the disk{lost}; check what keeps it busy"
        stalled = self._thread is not None and bool(self._queue)
        if stalled and self._clock().ns - self._written_ns > STALLED_NS:
            return (
                f"the disk has not accepted an audit entry for {STALLED_NS // MS // 1000} s; check what keeps it busy"
            )
        return ""

    def _write(self) -> None:
        while True:
            self._wake.wait(RETRY_S)
            self._wake.clear()
            ending = self._ending.is_set()  # before the last look at the queue
            written = self.write_waiting()
            if ending:
                break  # a disk that fails keeps no process from ending
            if not written:
                self._ending.wait(RETRY_S)
        self._file.close()
