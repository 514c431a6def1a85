"""The two files of a journal (``runtime.records.journal``): their header, and how they are made and opened."""

from __future__ import annotations

import errno
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from asperity.runtime.errors import JournalError
from asperity.runtime.records.held_file import HeldFile, make_file

VERSION = 1
PROMISES_MAX = 64
HEADER_NBYTES = 4096
SLOT_NBYTES = 64 + 2 * 2080
RESULTS_AT = HEADER_NBYTES + PROMISES_MAX * SLOT_NBYTES
HEADER_AT = (0, 2048)
IDS_SUFFIX = ".ids"
"""Of the second file's name: a copy of the header page."""

_MAGIC = b"ASPJRNL\0"
_HEADER = struct.Struct("<8sIIIQQQ?36s32s")  # as in Header.pack
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Header:
    """The file's header; its first page holds two copies."""

    slots: int
    generation: int
    first_id: int
    reserved: int  # every id below is spoken for, on disk
    clean: bool
    boot_id: str
    station: str

    def pack(self) -> bytes:
        """One copy, with its checksum."""
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

    def page(self) -> bytes:
        """A whole header page, both copies alike."""
        page = bytearray(HEADER_NBYTES)
        for at in HEADER_AT:
            packed = self.pack()
            page[at : at + len(packed)] = packed
        return bytes(page)


def file_nbytes(slots: int) -> int:
    """Size of a journal's file."""
    return RESULTS_AT + slots * SLOT_NBYTES


def remedy(path: Path) -> str:
    """What to do with a journal that cannot be used."""
    first_id = "set [journal] first_id above the last result_id that any receiver has received"
    if path.name.endswith(IDS_SUFFIX):
        return f"move it away if the journal next to it is intact; otherwise move both away and {first_id}"
    return (
        f"move the file away: ids then continue after those recorded in {path.name}{IDS_SUFFIX} next to it; if that is "
        f"missing or damaged, move both away and {first_id}"
    )


def make(path: Path, nbytes: int, header: Header, smaller: str) -> None:
    """A new file. Raises JournalError."""
    try:
        make_file(path, nbytes, header.page())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise JournalError(
                f"no room for journal {path}: it needs {nbytes / 1e6:.1f} MB; free some, or set [journal] path to "
                f"another disk or [journal] {smaller}"
            ) from error
        raise JournalError(f"journal {path} cannot be made: {error.strerror}; set [journal] path") from error


def hold(path: Path, station: str) -> HeldFile:
    """The file, opened and locked. Raises JournalError."""
    try:
        return HeldFile(path)
    except BlockingIOError as error:
        raise JournalError(
            f"journal {path} is in use by another process; stop the other inspector of station {station}, "
            "or give this one a different [station] name"
        ) from error
    except OSError as error:
        raise JournalError(
            f"journal {path} cannot be opened: {error.strerror}; make it a file owned by this user, mode 0600, or set "
            "[journal] path"
        ) from error


def read_header(file: HeldFile, station: str) -> Header:
    """The valid copy of the higher generation. Raises JournalError."""
    path, advice = file.path, remedy(file.path)
    try:
        page = file.read(0, HEADER_NBYTES)
    except OSError as error:
        raise JournalError(f"journal {path} cannot be read ({error.strerror}); check the disk, or {advice}") from error
    if len(page) < HEADER_NBYTES or not any(page[at : at + 8] == _MAGIC for at in HEADER_AT):
        raise JournalError(f"{path} is not a journal of a station; {advice}")
    headers = []
    for at in HEADER_AT:
        body = page[at : at + _HEADER.size]
        (crc,) = _CRC.unpack_from(page, at + _HEADER.size)
        if zlib.crc32(body) != crc:
            continue
        _, version, slots, slot_nbytes, generation, first_id, reserved, clean, boot, name = _HEADER.unpack(body)
        if version != VERSION or slot_nbytes != SLOT_NBYTES:
            raise JournalError(f"journal {path} has version {version}, this program writes {VERSION}; {advice}")
        boot_id, owner = (text.rstrip(b"\0").decode(errors="replace") for text in (boot, name))
        headers.append(Header(slots, generation, first_id, reserved, clean, boot_id, owner))
    if not headers:
        raise JournalError(f"journal {path} is corrupt (header checksum); {advice}")
    header = max(headers, key=lambda h: h.generation)
    if header.station != station:
        raise JournalError(
            f"journal {path} belongs to station {header.station!r}, not {station!r}; set [journal] path or "
            "[station] name"
        )
    return header
