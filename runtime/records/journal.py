"""The journal: a ring of admitted frames and their results in a file, one file per station.

It answers one question after a crash: what do we still owe? When a frame is admitted, its slot gets the complete
encoded result that would have to be published if the process died now (unknown, RESTARTED). When it is answered, the
final result is written into the slot's other half, and then one byte is flipped. A reader sees one or the other,
never a mixture, because a single byte is stored at once.

    file   = header page (4096 bytes: two copies of the header, the valid one of the higher generation counts)
             + 64 promise slots + result slots
    slot   = state byte, padding to 64 bytes, half A, half B          slot of a result: result_id % slots
    half   = result_id u64, length u32, CRC-32 u32 over id + length + payload, payload (<= 2048 bytes), padding to 2080
    state  = 0 empty, 1 owed in A, 2 owed in B, 3 answered in A, 4 answered in B; all little endian

A trigger owes a result as well, but has no result_id before its frame comes or is given up, so that no client waits for
that id meanwhile. It is kept as a *promise*: a slot whose id field says which result_id was next when it was given, or
that of the oldest frame in work, where that frame may be the part's. A promise is kept when an entry of at least that
id carries its trigger.

It survives the process (kill -9), since what is written belongs to the kernel. It does not survive a power cut whole:
ids are therefore reserved in blocks that are synced to disk before the first of them is used, and go on after the
reserved block (a named gap) after a restart without a clean close. A slot that fails its CRC is named
and never trusted.

A second file, ``NAME.journal.ids``, is a copy of the header page. From it ids continue if the journal is gone. A
journal that is removed, replaced, cut or cannot be written while the station runs is a ``fault``: nothing more is kept,
and ids are reserved in the second file alone.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from asperity.runtime.errors import JournalError
from asperity.runtime.files import make_folder, write_whole
from asperity.runtime.records.held_file import HeldFile
from asperity.runtime.records.journal_files import (
    HEADER_AT,
    HEADER_NBYTES,
    IDS_SUFFIX,
    PROMISES_MAX,
    RESULTS_AT,
    SLOT_NBYTES,
    Header,
    file_nbytes,
    hold,
    make,
    read_header,
    remedy,
)

__all__ = ["HEADER_NBYTES", "PAYLOAD_MAX", "PROMISES_MAX", "SLOT_NBYTES", "Entry", "Journal", "file_nbytes"]

PAYLOAD_MAX = 2048

_HALF = struct.Struct("<QII")
_HALF_AT = (64, 64 + 2080)
_HALF_NBYTES = _HALF.size + PAYLOAD_MAX
_EMPTY = 0
_OWED = (1, 2)
_ANSWERED = (3, 4)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the ring: the encoded result, and whether it is still owed."""

    result_id: int
    payload: bytes
    owed: bool


class Journal:
    """A station's journal. One process at a time; used by the thread that owns it alone."""

    def __init__(self, file: HeldFile, ids: HeldFile, header: Header, reserve_ids: int, notes: list[str]) -> None:
        self.path = file.path
        self.notes = notes
        """What was found at opening that a person should know: corrupt slots, a gap in the ids."""
        self.fault = ""
        """Why nothing more is kept: what happened to the files; empty: all is well."""
        self.closed = False
        self._file = file
        self._ids = ids
        self._reserve_ids = reserve_ids
        self._header = header
        boot_id = _boot_id()
        damaged = self._scan()
        next_id = max((entry.result_id for entry in self.entries()), default=header.first_id - 1) + 1
        survived = header.clean or (boot_id != "" and header.boot_id == boot_id)
        elsewhere = read_header(ids, header.station)
        if elsewhere.reserved > header.reserved:
            self._header = header = replace(header, reserved=elsewhere.reserved)
            why = f"{ids.path} records ids that the journal does not"
        elif damaged:
            why = "the journal is damaged"
        else:
            why = "" if survived else "the computer went down without closing the journal"
        if why and header.reserved > next_id:
            self.notes.append(f"result ids {next_id} to {header.reserved - 1} are skipped: {why}")
            next_id = header.reserved
        self._next_id = next_id
        self._write_header(clean=False, boot_id=boot_id)
        if self.fault:
            self.close()
            raise JournalError(f"{self.fault}; check the disk, or set [journal] path to another one")

    @classmethod
    def open(
        cls, path: Path, station: str, *, slots: int = 4096, first_id: int = 1, reserve_ids: int = 4096
    ) -> Journal:
        """Open the journal at ``path``, or make it. ``first_id`` counts only when it is made, and not below ids given.

        Raises JournalError: in use by another process, a link or another user's, disk full, not a journal, of another
        version, size or station, or its header corrupt.
        """
        ids_path = path.with_name(path.name + IDS_SUFFIX)
        notes: list[str] = []
        held: list[HeldFile] = []
        try:
            if os.path.lexists(ids_path):
                held.append(hold(ids_path, station))
                given = read_header(held[0], station)
                if not os.path.lexists(path):
                    first_id = max(first_id, given.reserved)
                    notes.append(
                        f"journal {path} was not there although ids below {given.reserved} may have been given "
                        f"({ids_path.name}): pending results are unknown, and ids continue at {first_id}"
                    )
            if not os.path.lexists(path):
                make(path, file_nbytes(slots), Header(slots, 0, first_id, first_id, True, "", station), "slots lower")
            held.append(hold(path, station))
            header = read_header(held[-1], station)
            if header.slots != slots or held[-1].nbytes != file_nbytes(slots):
                raise JournalError(
                    f"journal {path} has {header.slots} slots and {held[-1].nbytes} bytes, [journal] slots asks for "
                    f"{slots}; set it to {header.slots}, or {remedy(path)}"
                )
            if len(held) == 1:
                make(ids_path, HEADER_NBYTES, header, "path to another disk")
                held.insert(0, hold(ids_path, station))
            return cls(held[1], held[0], header, reserve_ids, notes)
        except BaseException:
            for file in held:
                file.close()
            raise

    def look(self) -> str:
        """Check whether the files are unchanged; returns ``fault``. A few microseconds; for every turn.

        Raises JournalError where ids cannot be reserved any more, so that none may be given.
        """
        if not self.fault and (found := self._file.fault() or self._ids.fault()):
            self._lose(f"journal {found}")
        return self.fault

    def reserve(self) -> int:
        """The next result_id. No id is ever given twice for a station, whatever happens to process or machine."""
        result_id = self._next_id
        if result_id >= self._header.reserved:
            self.look()
        if result_id >= self._header.reserved:  # a journal that is found lost has reserved already
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

    def owe(self, result_id: int, payload: bytes) -> bool:
        """Enter ``payload`` as what is owed for ``result_id``, or put it in the place of what was owed so far.

        False: it is not kept (``fault``). Raises JournalError where the slot still owes an older result (more frames in
        work than slots), or where the payload is too long.
        """
        return self._put(result_id, payload, _OWED)

    def answer(self, result_id: int, payload: bytes) -> bool:
        """Store the final result; to be published only after this returned. False: it is not kept (``fault``)."""
        return self._put(result_id, payload, _ANSWERED)

    def get(self, result_id: int) -> bytes | None:
        """The final result of ``result_id``; None when it is not answered yet or no longer held."""
        entry = self._result(result_id % self._header.slots)
        return entry.payload if isinstance(entry, Entry) and entry.result_id == result_id and not entry.owed else None

    def entries(self) -> Iterator[Entry]:
        """Everything the ring holds, in order of result_id."""
        found = (self._result(index) for index in range(self._header.slots))
        yield from sorted((entry for entry in found if isinstance(entry, Entry)), key=lambda entry: entry.result_id)

    def promise(self, payload: bytes, from_id: int = 0) -> int:
        """Enter what a trigger is owed; returns the promise's number. Raises JournalError when all are taken.

        ``from_id``: lowest id whose result may keep it; 0: the next that is given.
        """
        if self.look():
            return 0
        for number in range(PROMISES_MAX):
            at = HEADER_NBYTES + number * SLOT_NBYTES
            if self._state(at) == _EMPTY:
                self._write(at + _HALF_AT[0], _half(from_id or self._next_id, payload))
                self._write(at, bytes([_OWED[0]]))
                return number
        raise JournalError(f"journal {self.path}: {PROMISES_MAX} triggers are already waiting for a result")

    def redeem(self, number: int) -> None:
        """Forget a promise; only after the result that keeps it was entered."""
        if not self.look():
            self._write(HEADER_NBYTES + number * SLOT_NBYTES, bytes([_EMPTY]))

    def promises(self) -> dict[int, Entry]:
        """Open promises by number; ``result_id`` is the lowest whose result may keep it."""
        found = {number: self._entry(-1, HEADER_NBYTES + number * SLOT_NBYTES) for number in range(PROMISES_MAX)}
        return {number: entry for number, entry in found.items() if isinstance(entry, Entry)}

    def close(self) -> None:
        """Write everything to disk and mark the journal as cleanly closed; a second time it does nothing."""
        if self.closed:
            return
        self.closed = True
        try:
            if not self.look():
                self._file.sync()
                self._write_header(clean=True)
        except OSError as error:
            self._lose(self._cannot_write(error))
        finally:
            self._file.close()
            self._ids.close()

    def _put(self, result_id: int, payload: bytes, states: tuple[int, int]) -> bool:
        half = _half(result_id, payload)
        if self.look():
            return False
        at = RESULTS_AT + (result_id % self._header.slots) * SLOT_NBYTES
        state = self._state(at)
        into = 0
        if state != _EMPTY:
            used = (state - 1) % 2
            held_id = int.from_bytes(self._read(at + _HALF_AT[used], 8), "little")
            if held_id == result_id:
                into = 1 - used
            elif state in _OWED:
                raise JournalError(
                    f"journal {self.path}: result {held_id} is still pending and result {result_id} needs its slot; "
                    "increase [journal] slots"
                )
            else:
                self._write(at, bytes([_EMPTY]))
        self._write(at + _HALF_AT[into], half)
        self._write(at, bytes([states[into]]))
        return not self.fault

    def _lose(self, why: str) -> None:
        """Keep nothing more; ids continue from the second file, which is written again in case it is gone too."""
        self.fault = why
        self._write_header(reserved=self._next_id + self._reserve_ids)

    def _cannot_write(self, error: OSError) -> str:
        return f"journal {self.path} cannot be written ({error.strerror})"

    def _state(self, at: int) -> int:
        return self._read(at, 1)[0]

    def _read(self, at: int, nbytes: int) -> bytes:
        """Zeros where there is nothing to be read: a slot of zeros is empty."""
        found = b""
        with suppress(OSError):
            found = self._file.read(at, nbytes)
        return found.ljust(nbytes, b"\0")

    def _write(self, at: int, data: bytes) -> None:
        if self.fault:
            return
        try:
            self._file.write(at, data)
        except OSError as error:
            self._lose(self._cannot_write(error))

    def _result(self, index: int) -> Entry | str | None:
        return self._entry(index, RESULTS_AT + index * SLOT_NBYTES)

    def _entry(self, index: int, at: int) -> Entry | str | None:
        """What a slot holds, ``index`` below 0 for a promise; None: nothing. A text: why it cannot be trusted."""
        state = self._state(at)
        if state == _EMPTY:
            return None
        if state not in (*_OWED, *_ANSWERED):
            return f"state byte {state}"
        half = self._read(at + _HALF_AT[(state - 1) % 2], _HALF_NBYTES)
        result_id, length, crc = _HALF.unpack_from(half)
        if length > PAYLOAD_MAX:
            return f"length {length}"
        payload = half[_HALF.size : _HALF.size + length]
        if crc != _crc(result_id, payload):
            return "checksum"
        if index >= 0 and (result_id % self._header.slots != index or result_id < self._header.first_id):
            return f"result id {result_id} does not belong there"
        return Entry(result_id, payload, state in _OWED)

    def _scan(self) -> bool:
        """Empty every slot that cannot be trusted, and name it. True if there was one."""
        damaged = False
        for slot in range(PROMISES_MAX + self._header.slots):
            at = HEADER_NBYTES + slot * SLOT_NBYTES
            wrong = self._entry(slot - PROMISES_MAX, at)
            if isinstance(wrong, str):
                name = f"slot {slot - PROMISES_MAX}" if slot >= PROMISES_MAX else f"promise {slot}"
                self.notes.append(f"journal {name} is corrupt ({wrong}): its content is unknown")
                self._write(at, bytes([_EMPTY]))
                damaged = True
        return damaged

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
        packed, at = self._header.pack(), HEADER_AT[self._header.generation % 2]
        if not self.fault:
            try:
                # The journal first: killed in between, it knows of more ids than the copy, and nothing is skipped.
                self._file.write_head(at, packed)
                self._ids.write_head(at, packed)
            except OSError as error:
                self._lose(self._cannot_write(error))
            return
        ids_path = self.path.with_name(self.path.name + IDS_SUFFIX)
        try:
            make_folder(ids_path.parent)
            write_whole(ids_path, self._header.page())
            self._ids.close()
            self._ids = HeldFile(ids_path)
        except OSError as error:
            raise JournalError(
                f"{self.fault}, and {ids_path} cannot be written ({error.strerror}), so that no result id is safe to "
                "give; check the disk, or set [journal] path to another one"
            ) from error


def _crc(result_id: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<QI", result_id, len(payload))))


def _boot_id() -> str:
    """Changes with every boot of the machine; "" if the system does not report it."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:36]
    return ""


def _half(result_id: int, payload: bytes) -> bytes:
    if len(payload) > PAYLOAD_MAX:
        raise JournalError(f"result {result_id} has {len(payload)} bytes; the journal accepts at most {PAYLOAD_MAX}")
    return _HALF.pack(result_id, len(payload), _crc(result_id, payload)) + payload


