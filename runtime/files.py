"""Files and names from outside: opened so that nothing waits, bounded before they are read, shown without effect.

A pipe would make the reader wait forever, a device may do anything, a link may lead anywhere, and a file may be larger
than memory. Everything that the station has not just written itself is opened through here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

OTHERS_MAY_USE = stat.S_IRWXG | stat.S_IRWXO
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class FileRefused(OSError):
    """A file that is not what it should be. ``strerror`` says why, as the system's own errors do."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(0, why, str(path))


class OthersReach(FileRefused):
    """A file or folder that others have more to do with than they may."""

    def __init__(self, path: Path, why: str, foreign: bool) -> None:
        super().__init__(path, why)
        self.foreign = foreign
        """It belongs to another user, so changing its mode does not help."""


def open_file(
    path: Path, flags: int = os.O_RDONLY, *, follow: bool = False, forbidden: int | None = None, root: bool = True
) -> int:
    """A descriptor of the regular file at ``path``. Never waits, and never opens a device or pipe permanently.

    ``follow``: a link may lead to it; only for paths that the machine's user named themselves. ``forbidden``: the file
    must belong to this user (or, with ``root``, to root), and others must have none of these rights. A file that
    ``flags`` makes has mode 0600. Raises OSError.
    """
    flags = flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        if not follow and path.is_symlink():
            raise FileRefused(path, "it is a link") from error
        raise
    try:
        found = os.fstat(handle)
        mode = found.st_mode
        if not stat.S_ISREG(mode):
            raise FileRefused(path, f"it is {_kind(mode)}, not a regular file")
        if forbidden is not None:
            _check_reach(path, found, forbidden, root)
    except BaseException:
        os.close(handle)
        raise
    return handle


def read_file(
    path: Path, limit_bytes: int, *, follow: bool = False, forbidden: int | None = None, root: bool = True
) -> bytes:
    """A regular file's bytes; see ``open_file``. Raises OSError, also when there are more than ``limit_bytes``."""
    with os.fdopen(open_file(path, follow=follow, forbidden=forbidden, root=root), "rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise FileRefused(path, f"it is larger than {limit_bytes} bytes")
    return data


def check_folder(path: Path, forbidden: int, *, follow: bool = False, root: bool = True) -> None:
    """Raises OSError when ``path`` is not a folder, or others have a hand in it; see ``open_file``."""
    found = path.stat(follow_symlinks=follow)
    if not stat.S_ISDIR(found.st_mode):
        raise FileRefused(path, f"it is {_kind(found.st_mode)}, not a folder")
    _check_reach(path, found, forbidden, root)


def is_foreign(found: os.stat_result, *, root: bool = True) -> bool:
    """It belongs to another user than this one, and (with ``root``) than root."""
    return found.st_uid != os.geteuid() and not (root and found.st_uid == 0)


def make_folder(folder: Path) -> None:
    """Make the folder and what is missing above it, for this user alone. Raises OSError."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.is_dir()]):
        try:
            missing.mkdir(mode=0o700, exist_ok=True)
        except FileExistsError:  # a file, or a link that leads nowhere
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(missing)) from None


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put a file in place in one step, on the disk when this returns; see ``replacing``. Raises OSError."""
    with replacing(path, mode=mode) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when the block ends well and vanishes when it does not.

    It is on the disk when this returns. ``mode``: less what the process's umask forbids. A link in its place is
    replaced, not followed. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_folder(draft: Path, target: Path) -> None:
    """Rename a folder into place; the one that is there goes, or stays where that fails. Both are on one disk.

    What an end in between leaves lies next to the draft and begins with its name. Raises OSError.
    """
    aside = Path(tempfile.mkdtemp(prefix=f"{draft.name}.old.", dir=draft.parent))
    old = aside / target.name
    try:
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
        draft.rename(target)
    except OSError:
        if os.path.lexists(old):
            old.rename(target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
    sync_folder(target.parent)


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


def _check_reach(path: Path, found: os.stat_result, forbidden: int, root: bool) -> None:
    if is_foreign(found, root=root):
        raise OthersReach(path, f"it belongs to another user (uid {found.st_uid})", foreign=True)
    if reach := found.st_mode & forbidden:
        others_may = "use" if reach & ~OTHERS_MAY_WRITE else "write"
        mode = stat.S_IMODE(found.st_mode)
        raise OthersReach(path, f"it has mode {mode:04o}, so other users may {others_may} it", foreign=False)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFREG: "a file", stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "a socket")
