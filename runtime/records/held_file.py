"""A file that stays open as long as the station runs, read and written by calls; its removal is noticed.

It is not mapped into memory: truncating a mapped file kills the process at its next access (SIGBUS). What is
written belongs to the kernel at once, so it survives the process anyway.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from asperity.runtime.files import OTHERS_MAY_WRITE, make_folder, open_file, sync_folder


class HeldFile:
    """The regular file at ``path``, writable only by this user, locked against other processes.

    Raises BlockingIOError where another process holds it, OSError with words where it may not be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = open_file(path, os.O_RDWR, forbidden=OTHERS_MAY_WRITE)
        try:
            found = os.fstat(self._fd)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._fd)
            raise
        self.nbytes = found.st_size
        self._identity = found.st_dev, found.st_ino
        self._head = 0, b""

    def fault(self) -> str:
        """Why this is no longer the file at ``path``; empty: it is. A few microseconds."""
        try:
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) != self._identity:
                return f"{self.path} was replaced by another file"
            if found.st_size != self.nbytes:
                return f"{self.path} was truncated or grew to {found.st_size} bytes; it should have {self.nbytes}"
            at, data = self._head
            return "" if self.read(at, len(data)) == data else f"{self.path} was overwritten"
        except FileNotFoundError:
            return f"{self.path} was removed"
        except OSError as error:
            return f"{self.path} cannot be read ({error.strerror})"

    def read(self, at: int, nbytes: int) -> bytes:
        """Bytes of the file; fewer where it ends before. Raises OSError."""
        return os.pread(self._fd, nbytes, at)

    def write(self, at: int, data: bytes) -> None:
        """Hand bytes over to the kernel. Raises OSError."""
        if os.pwrite(self._fd, data, at) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def write_head(self, at: int, data: bytes) -> None:
        """Put bytes on the disk before this returns, and expect them there from now on. Raises OSError."""
        self._head = at, data
        if os.pwritev(self._fd, [data], at, os.RWF_DSYNC) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def sync(self) -> None:
        """Put everything on the disk. Raises OSError."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Gives up the lock as well; a second time it does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def make_file(path: Path, nbytes: int, head: bytes) -> None:
    """A file of that size that begins with ``head``, mode 0600, its room taken on the disk. Raises OSError.

    It is made under another name and linked into place: a half-made one is never found at ``path``, and one that is
    there already stays.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.posix_fallocate(fd, 0, nbytes)  # a full disk must show now, not in mid stream
            os.pwrite(fd, head, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        with suppress(FileExistsError):  # another process was faster; the lock decides between us
            os.link(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(path.parent)
