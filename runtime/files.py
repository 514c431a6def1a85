"""Files and names from outside: opened so that nothing waits, bounded before they are read, shown without effect.

A pipe would make the reader wait for ever, a device may do anything, a link may lead anywhere, and a file may be larger
than memory. Whatever the station did not write itself just now is opened through here.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

OTHERS_MAY_USE = stat.S_IRWXG | stat.S_IRWXO
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class FileRefused(OSError):
    """A file that is not what it should be. ``strerror`` says why, as the system's own errors do."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(0, why, str(path))


def open_file(path: Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """A descriptor of the regular file at ``path``. Never waits, and never opens a device or pipe permanently.

    ``follow``: a link may lead to it; only for paths that the user of the box named himself. Raises OSError.
    """
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if not follow and path.is_symlink():
            raise FileRefused(path, "it is a link") from error
        raise
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise FileRefused(path, f"it is {_kind(mode)}, not a regular file")
    except BaseException:
        os.close(handle)
        raise
    return handle


def read_file(path: Path, limit_bytes: int, *, follow: bool = False, forbidden: int | None = None) -> bytes:
    """A regular file's bytes. Raises OSError, also when there are more than ``limit_bytes``.

    ``forbidden``: the file must belong to this user or root, and others must have none of these rights.
    """
    handle = open_file(path, follow=follow)
    with os.fdopen(handle, "rb") as file:
        if forbidden is not None and (why := others_reach(os.fstat(handle), forbidden)):
            raise FileRefused(path, why)
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise FileRefused(path, f"it is larger than {limit_bytes} bytes")
    return data


def others_reach(found: os.stat_result, forbidden: int) -> str:
    """Why others have more to do with a file than they may; empty: they have not."""
    if found.st_uid not in (os.geteuid(), 0):
        return f"it belongs to another user (uid {found.st_uid})"
    if found.st_mode & forbidden:
        return f"it has mode {stat.S_IMODE(found.st_mode):04o}, so other users may use it"
    return ""


def replace_file(path: Path, data: bytes) -> None:
    """Put a file of mode 0600 in place in one step, on the disk when this returns. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the folder's names on the disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def shown(text: object) -> str:
    """A text from outside as a log or terminal may show it: what could move the cursor, break the line or turn the
    direction of writing is written out as an escape."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in said)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a socket")
