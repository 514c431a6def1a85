"""The journal: a memory-mapped ring of admitted frames and their results, one file a station.

It answers one question after a crash: what do we still owe? When a frame is admitted, its slot gets the complete
encoded result that would have to be published if the process died now (unknown, RESTARTED). When it is answered, the
final result is written into the slot's other half, and then one byte is flipped. A reader sees the one or the other,
never a mixture, because a single byte is stored at once.

    file   = header page (4096 bytes: two copies of the header, the valid one of the higher generation counts)
             + 64 promise slots + result slots
    slot   = state byte, padding to 64 bytes, half A, half B          slot of a result: result_id % slots
    half   = result_id u64, length u32, CRC-32 u32 over id + length + payload, payload (<= 2048 bytes), padding to 2080
    state  = 0 empty, 1 owed in A, 2 owed in B, 3 answered in A, 4 answered in B; all little endian

A trigger owes a result as well, but has no result_id before its frame comes or is given up, so that nobody waits for
that id meanwhile. It is kept as a *promise*: a slot whose id field says which result_id was next when it was given. A
promise is kept when an entry of at least that id carries its trigger.

It survives the process (kill -9), since the pages belong to the kernel. It does not survive a power cut whole: ids
are therefore reserved in blocks that are synced to disk before the first of them is used, and go on after the reserved
block (a named gap) when the box was booted anew without a clean close. A slot that fails its CRC is named and never
believed.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from runtime.errors import JournalError

VERSION = 1
PAYLOAD_MAX = 2048
PROMISES_MAX = 64
HEADER_NBYTES = 4096
SLOT_NBYTES = 64 + 2 * 2080

_RESULTS_AT = HEADER_NBYTES + PROMISES_MAX * SLOT_NBYTES
_MAGIC = b"ASPJRNL\0"
_HEADER = struct.Struct("<8sIIIQQQ?36s32s")  # as in _Header.pack
_HEADER_AT = (0, 2048)
_HALF = struct.Struct("<QII")
_HALF_AT = (64, 64 + 2080)
_CRC = struct.Struct("<I")

_EMPTY = 0
_OWED = (1, 2)
_ANSWERED = (3, 4)


@dataclass(frozen=True, slots=True)
class _Header:
    slots: int
    generation: int
    first_id: int
    reserved: int  # every id below is spoken for, on disk
    clean: bool
    boot_id: str
    station: str

    def pack(self) -> bytes:
        body = _HEADER.pack(
            _MAGIC,
            VERSION,
            self.slots,
            SLOT_NBYTES,
            self.generation,
            self.first_id,
            self.reserved,
            self.clean,
            self.boot_id.encode(),
            self.station.encode(),
        )
        return body + _CRC.pack(zlib.crc32(body))


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the ring: the encoded result, and whether it is still owed."""

    result_id: int
    payload: bytes
    owed: bool


class Journal:
    """A station's journal. One process at a time; used by the thread that owns it alone."""

    def __init__(self, path: Path, fd: int, header: _Header, reserve_ids: int) -> None:
        self.path = path
        self.notes: list[str] = []
        """What was found at opening that a person should know: corrupt slots, a gap in the ids."""
        self._fd = fd
        self._reserve_ids = reserve_ids
        self._map = mmap.mmap(fd, file_nbytes(header.slots))
        self._header = header
        boot_id = _boot_id()
        damaged = self._scan()
        next_id = max((entry.result_id for entry in self.entries()), default=header.first_id - 1) + 1
        survived = header.clean or (boot_id != "" and header.boot_id == boot_id)
        if (damaged or not survived) and header.reserved > next_id:
            self.notes.append(
                f"result ids {next_id} to {header.reserved - 1} are skipped: "
                + ("the box went down without closing the journal" if not survived else "the journal is damaged")
            )
            next_id = header.reserved
        self._next_id = next_id
        self._write_header(clean=False, boot_id=boot_id)

    @classmethod
    def open(
        cls, path: Path, station: str, *, slots: int = 4096, first_id: int = 1, reserve_ids: int = 4096
    ) -> Journal:
        """Open the journal at ``path``, or make it. ``first_id`` counts only when it is made.

        Raises JournalError: in use by another process, disk full, not a journal, of another version, size or station,
        or its header corrupt.
        """
        if not path.exists():
            _create(path, station, slots, first_id)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(f"journal {path} cannot be opened: {error.strerror}; set [journal] path") from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise JournalError(
                    f"journal {path} is in use by another process; stop the other inspector of station {station}, "
                    "or give this one another [station] name"
                ) from error
            header = _read_header(path, fd, station, slots)
            return cls(path, fd, header, reserve_ids)
        except BaseException:
            os.close(fd)
            raise

    def reserve(self) -> int:
        """The next result_id. No id is ever given twice for a station, whatever happens to the process or the box."""
        result_id = self._next_id
        if result_id >= self._header.reserved:
            self._write_header(reserved=result_id + self._reserve_ids)
        self._next_id = result_id + 1
        return result_id

    @property
    def last_id(self) -> int:
        """The newest id that was given; ``first_id - 1`` when there is none."""
        return self._next_id - 1

    @property
    def oldest_id(self) -> int:
        """The oldest id that the ring may still hold."""
        return max(self._header.first_id, self._next_id - self._header.slots)

    def owe(self, result_id: int, payload: bytes) -> None:
        """Enter ``payload`` as what is owed for ``result_id``, or put it in the place of what was owed so far.

        Raises JournalError where the slot still owes an older result (more frames in work than slots), or where the
        payload is too long.
        """
        self._put(result_id, payload, _OWED)

    def answer(self, result_id: int, payload: bytes) -> None:
        """Store the final result; to be published only after this returned."""
        self._put(result_id, payload, _ANSWERED)

    def get(self, result_id: int) -> bytes | None:
        """The final result of ``result_id``; None when it is not answered yet or no longer held."""
        entry = self._read(result_id % self._header.slots)
        return entry.payload if entry is not None and entry.result_id == result_id and not entry.owed else None

    def entries(self) -> Iterator[Entry]:
        """Everything the ring holds, in order of result_id."""
        found = (self._read(index) for index in range(self._header.slots))
        yield from sorted((entry for entry in found if entry is not None), key=lambda entry: entry.result_id)

    def promise(self, payload: bytes) -> int:
        """Enter what a trigger is owed; returns the promise's number. Raises JournalError when all are taken."""
        for number in range(PROMISES_MAX):
            at = HEADER_NBYTES + number * SLOT_NBYTES
            if self._map[at] == _EMPTY:
                self._write_half(at + _HALF_AT[0], self._next_id, payload)
                self._map[at] = _OWED[0]
                return number
        raise JournalError(f"journal {self.path}: {PROMISES_MAX} triggers are owed a result already")

    def redeem(self, number: int) -> None:
        """Forget a promise; only after the result that keeps it was entered."""
        self._map[HEADER_NBYTES + number * SLOT_NBYTES] = _EMPTY

    def promises(self) -> dict[int, Entry]:
        """Open promises by number; ``result_id`` is the one that was next when the promise was given."""
        found = {number: self._entry(HEADER_NBYTES + number * SLOT_NBYTES) for number in range(PROMISES_MAX)}
        return {number: entry for number, entry in found.items() if entry is not None}

    def close(self) -> None:
        """Write everything to disk and mark the journal as cleanly closed."""
        self._map.flush()
        self._write_header(clean=True)
        self._map.close()
        os.close(self._fd)  # gives up the lock as well

    def _put(self, result_id: int, payload: bytes, states: tuple[int, int]) -> None:
        at = _RESULTS_AT + (result_id % self._header.slots) * SLOT_NBYTES
        state = self._map[at]
        half = 0
        if state != _EMPTY:
            used = (state - 1) % 2
            (held_id,) = struct.unpack_from("<Q", self._map, at + _HALF_AT[used])
            if held_id == result_id:
                half = 1 - used
            elif state in _OWED:
                raise JournalError(
                    f"journal {self.path}: result {held_id} is still owed and result {result_id} wants its slot; "
                    "raise [journal] slots"
                )
            else:
                self._map[at] = _EMPTY
        self._write_half(at + _HALF_AT[half], result_id, payload)
        self._map[at] = states[half]

    def _write_half(self, start: int, result_id: int, payload: bytes) -> None:
        if len(payload) > PAYLOAD_MAX:
            raise JournalError(f"result {result_id} has {len(payload)} bytes; the journal takes at most {PAYLOAD_MAX}")
        head = _HALF.pack(result_id, len(payload), _crc(result_id, payload))
        self._map[start : start + len(head) + len(payload)] = head + payload

    def _read(self, index: int) -> Entry | None:
        return self._entry(_RESULTS_AT + index * SLOT_NBYTES)

    def _entry(self, at: int) -> Entry | None:
        state = self._map[at]
        if state == _EMPTY:
            return None
        start = at + _HALF_AT[(state - 1) % 2]
        result_id, length, _ = _HALF.unpack_from(self._map, start)
        return Entry(result_id, self._map[start + _HALF.size : start + _HALF.size + length], state in _OWED)

    def _scan(self) -> bool:
        """Empty every slot that cannot be believed, and name it. True if there was one."""
        for slot in range(PROMISES_MAX + self._header.slots):
            at = HEADER_NBYTES + slot * SLOT_NBYTES
            state = self._map[at]
            if state == _EMPTY:
                continue
            wrong = self._damage(slot - PROMISES_MAX, at, state)
            if wrong:
                name = f"slot {slot - PROMISES_MAX}" if slot >= PROMISES_MAX else f"promise {slot}"
                self.notes.append(f"journal {name} is corrupt ({wrong}): what it held is not known")
                self._map[at] = _EMPTY
        return bool(self.notes)

    def _damage(self, index: int, at: int, state: int) -> str | None:
        """What is wrong with a slot, ``index`` below 0 for a promise; None: nothing."""
        if state not in (*_OWED, *_ANSWERED):
            return f"state byte {state}"
        start = at + _HALF_AT[(state - 1) % 2]
        result_id, length, crc = _HALF.unpack_from(self._map, start)
        if length > PAYLOAD_MAX:
            return f"length {length}"
        payload = self._map[start + _HALF.size : start + _HALF.size + length]
        if crc != _crc(result_id, payload):
            return "checksum"
        if index >= 0 and (result_id % self._header.slots != index or result_id < self._header.first_id):
            return f"result id {result_id} does not belong there"
        return None

    def _write_header(
        self, *, reserved: int | None = None, clean: bool | None = None, boot_id: str | None = None
    ) -> None:
        old = self._header
        self._header = replace(
            old,
            generation=old.generation + 1,
            reserved=old.reserved if reserved is None else reserved,
            clean=old.clean if clean is None else clean,
            boot_id=old.boot_id if boot_id is None else boot_id,
        )
        packed = self._header.pack()
        at = _HEADER_AT[self._header.generation % 2]
        self._map[at : at + len(packed)] = packed
        try:
            self._map.flush(0, HEADER_NBYTES)
        except OSError as error:
            raise JournalError(
                f"journal {self.path} cannot be written to disk ({error.strerror}); see to the disk, or set "
                "[journal] path to another"
            ) from error


def file_nbytes(slots: int) -> int:
    """Size of a journal's file."""
    return _RESULTS_AT + slots * SLOT_NBYTES


def _crc(result_id: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<QI", result_id, len(payload))))


def _boot_id() -> str:
    """Changes with every boot of the box; "" where the system does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:36]
    return ""


def _create(path: Path, station: str, slots: int, first_id: int) -> None:
    """Make the file under another name and link it into place, so that a half-made one is never found at ``path``."""
    header = _Header(slots, 0, first_id, first_id, True, "", station).pack()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, file_nbytes(slots))  # a full disk must show now, not as SIGBUS in mid stream
            for at in _HEADER_AT:
                os.pwrite(fd, header, at)
            os.fsync(fd)
        finally:
            os.close(fd)
        with suppress(FileExistsError):  # another process was faster; the lock decides between us
            os.link(temporary, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise JournalError(
                f"no room for journal {path}: it needs {file_nbytes(slots) / 1e6:.1f} MB; free some, "
                "or set [journal] path to another disk or [journal] slots lower"
            ) from error
        raise JournalError(f"journal {path} cannot be made: {error.strerror}; set [journal] path") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _read_header(path: Path, fd: int, station: str, slots: int) -> _Header:
    remedy = "move the file away and set [journal] first_id above the last result_id that any receiver has seen"
    page = os.pread(fd, HEADER_NBYTES, 0)
    if len(page) < HEADER_NBYTES or not any(page[at : at + 8] == _MAGIC for at in _HEADER_AT):
        raise JournalError(f"{path} is not a journal of a station; {remedy}")
    headers = []
    for at in _HEADER_AT:
        body = page[at : at + _HEADER.size]
        (crc,) = _CRC.unpack_from(page, at + _HEADER.size)
        if zlib.crc32(body) != crc:
            continue
        _, version, slots_, slot_nbytes, generation, first_id, reserved, clean, boot, name = _HEADER.unpack(body)
        if version != VERSION or slot_nbytes != SLOT_NBYTES:
            raise JournalError(f"journal {path} has version {version}, this program writes {VERSION}; {remedy}")
        boot_id, owner = boot.rstrip(b"\0").decode(), name.rstrip(b"\0").decode()
        headers.append(_Header(slots_, generation, first_id, reserved, clean, boot_id, owner))
    if not headers:
        raise JournalError(f"journal {path} is corrupt (header checksum); {remedy}")
    header = max(headers, key=lambda h: h.generation)
    if header.station != station:
        raise JournalError(
            f"journal {path} belongs to station {header.station!r}, not {station!r}; set [journal] path or "
            "[station] name"
        )
    if header.slots != slots or os.fstat(fd).st_size != file_nbytes(slots):
        raise JournalError(
            f"journal {path} has {header.slots} slots and {os.fstat(fd).st_size} bytes, [journal] slots asks for "
            f"{slots}; set it to {header.slots}, or {remedy}"
        )
    return header
