"""Which exposures of a folder were taken, over restarts: a ring of fixed slots in a file, one file per folder.

An exposure is on the disk here before it is handed out, so a kill or a power cut at any moment can lose it, and never
gives it out twice. The file holds the last 1024, and the folder's name so that it is not used for another one.

    file = header page (4096 bytes: magic, version, folder; at 2048 the number that was passed on) + 1024 slots of 512
    slot = CRC-32 over the rest, number u64, state u8, picture 16 bytes, latest mtime_ns so far i64,
           2 x (there u8, inode u64, bytes u64, mtime_ns i64), length u16, stem
           all little endian; an exposure has slot number % 1024
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

from asperity.runtime.cameras.sources.folder.arrivals import MAX_STEM_NBYTES, REMEMBERED, Halves, Seen
from asperity.runtime.errors import CameraError, CameraLostError
from asperity.runtime.records.held_file import HeldFile, make_file

MAGIC = b"ASPTAKEN"
VERSION = 1
HEADER_NBYTES, SLOT_NBYTES = 4096, 512
EMPTY = bytes(SLOT_NBYTES)
FILE_NBYTES = HEADER_NBYTES + REMEMBERED * SLOT_NBYTES
HALVES = ("points", "colour")
NO_PICTURE = bytes(16)
"""Of an exposure that was refused."""

_HEADER = struct.Struct("<8sI32s")
_PASSED_AT = 2048
_NUMBER = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_SLOT = struct.Struct("<QB16sq" + "BQQq" * len(HALVES) + "H")
assert _CRC.size + _SLOT.size + MAX_STEM_NBYTES <= SLOT_NBYTES


class Entry(NamedTuple):
    """An exposure that was decided."""

    number: int
    stem: str
    halves: Halves
    taken: bool
    """False: it was refused."""
    picture: bytes
    """Digest of what was read."""
    latest_ns: int
    """Latest change of a file of this or any exposure before."""


class Taken:
    """The record of one folder, locked against other processes. Raises CameraError, CameraLostError."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self._file = _hold(path, folder)
        try:
            self.entries = self._read(folder)
            """What was decided by earlier runs, oldest first."""
        except BaseException:
            self._file.close()
            raise
        self._next = self.entries[-1].number + 1 if self.entries else 1
        self._latest_ns = self.entries[-1].latest_ns if self.entries else 0
        (self._passed,) = _NUMBER.unpack(self._file.read(_PASSED_AT, _NUMBER.size))
        last = next((entry for entry in reversed(self.entries) if entry.taken), None)
        self.doubtful = last if last is not None and last.number > self._passed else None
        """The exposure that an earlier run took and perhaps did not send."""

    def add(self, stem: str, halves: Halves, picture: bytes = NO_PICTURE, *, taken: bool) -> None:
        """Remember a decision; of one that was taken it is on the disk when this returns."""
        name = stem.encode(errors="surrogateescape")[:MAX_STEM_NBYTES]
        values: list[int] = []
        for half in HALVES:
            seen = halves.get(half)
            values += [0, 0, 0, 0] if seen is None else [1, *seen]
        self._latest_ns = max([self._latest_ns, *(seen.mtime_ns for seen in halves.values())])
        body = _SLOT.pack(self._next, taken, picture, self._latest_ns, *values, len(name)) + name
        body = body.ljust(SLOT_NBYTES - _CRC.size, b"\0")
        at = HEADER_NBYTES + self._next % REMEMBERED * SLOT_NBYTES
        if fault := self._file.fault():
            raise CameraLostError(f"{fault}; what was taken is no longer known. Restart the program")
        try:
            if taken:
                self._file.write_head(at, _CRC.pack(zlib.crc32(body)) + body)
            else:
                self._file.write(at, _CRC.pack(zlib.crc32(body)) + body)
        except OSError as error:
            raise CameraLostError(
                f"{self.path} cannot be written ({error.strerror}); no exposure is taken without it. Check the disk"
            ) from error
        self._next += 1

    def passed_on(self) -> None:
        """What was taken so far has been handed to the sender."""
        if self._passed == self._next - 1:
            return
        self._passed = self._next - 1
        try:
            self._file.write(_PASSED_AT, _NUMBER.pack(self._passed))
        except OSError as error:
            raise CameraLostError(f"{self.path} cannot be written ({error.strerror}); check the disk") from error

    def close(self) -> None:
        """Give up the lock."""
        self._file.close()

    def _read(self, folder: Path) -> list[Entry]:
        try:
            data = self._file.read(0, FILE_NBYTES)
        except OSError as error:
            raise CameraError(f"{self.path} cannot be read ({error.strerror}); check the disk") from error
        if len(data) != FILE_NBYTES or data[: _HEADER.size] != _header(folder):
            raise CameraError(
                f"{self.path} is not the record of what was taken from {folder}; move it away. What is in the folder "
                "then counts as taken unless [folder] before = take"
            )
        slots = (data[at : at + SLOT_NBYTES] for at in range(HEADER_NBYTES, FILE_NBYTES, SLOT_NBYTES))
        found = [_entry(slot) for slot in slots if slot != EMPTY]
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.number)


def record_path(state: Path, folder: Path) -> Path:
    """Where the record of a folder lies."""
    return state / "cameras" / f"folder-{_digest(folder).hex()[:16]}.taken"


def _entry(slot: bytes) -> Entry | None:
    """None: a slot that a power cut left half-written: its exposure was not handed out."""
    body = slot[_CRC.size :]
    if _CRC.unpack_from(slot)[0] != zlib.crc32(body):
        return None
    number, state, picture, latest_ns, *values, nbytes = _SLOT.unpack_from(body)
    halves = {
        half: Seen(*values[at * 4 + 1 : at * 4 + 4]) for at, half in enumerate(HALVES) if values[at * 4]
    }  # fmt: skip
    stem = body[_SLOT.size : _SLOT.size + nbytes].decode(errors="surrogateescape")
    return Entry(number, stem, halves, bool(state), picture, latest_ns)


def _hold(path: Path, folder: Path) -> HeldFile:
    try:
        try:
            return HeldFile(path)
        except FileNotFoundError:
            make_file(path, FILE_NBYTES, _header(folder).ljust(HEADER_NBYTES, b"\0"))
            return HeldFile(path)
    except BlockingIOError:
        raise CameraError(f"another program takes the exposures of {folder} ({path} is locked); end it first") from None
    except OSError as error:
        full = error.errno == errno.ENOSPC
        what = f"needs {FILE_NBYTES} bytes" if full else f"cannot be used ({error.strerror})"
        raise CameraError(
            f"the record of what was taken, {path}, {what}; free some space, or set [folder] record to a file on "
            "another disk of this user's"
        ) from error


def _header(folder: Path) -> bytes:
    return _HEADER.pack(MAGIC, VERSION, _digest(folder))


def _digest(folder: Path) -> bytes:
    return hashlib.sha256(os.fsencode(folder)).digest()
