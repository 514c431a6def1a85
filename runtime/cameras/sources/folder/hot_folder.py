"""A folder that another program writes into: its names, its files, and whether it is still the same folder."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from asperity.runtime.cameras.sources.folder.arrivals import A_FOLDER, Seen
from asperity.runtime.errors import CameraError, CameraLostError
from asperity.runtime.files import open_file, shown

IDLE_SHARE, BUSY_SHARE = 20, 4
"""Listing the names takes at most one part in this many of the time: while nothing changes, and while files come."""
TICK_NS = 1_000_000_000
"""Two changes of a folder this near to one another may have one time."""
MTIME_MAX_NS = 2**62
"""In 2116; a file may bear a later time, which no record could hold."""
KINDS = {
    stat.S_IFLNK: "a link", stat.S_IFDIR: A_FOLDER, stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


class HotFolder:
    """The folder and those below it in which files are expected. Raises CameraError when it cannot be used."""

    def __init__(self, path: Path, below: Iterable[str], names_max: int, clock: Callable[[], int]) -> None:
        """``below``: relative paths, empty: the folder itself. ``clock``: nanoseconds, monotonic."""
        self.path = path
        self._below = sorted(set(below))
        self._names_max, self._clock = names_max, clock
        self._changed: list[int] = []
        self._unsure = True
        """The last list may lack a name that came within the same tick of the clock."""
        self._listed_ns = self._cost_ns = 0
        try:
            self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CameraError(
                f"the folder {path} cannot be used ({error.strerror}); mount it or set [folder] path"
            ) from error
        try:
            self._lock()
            self._identity = [self._stat_folder(name)[:2] for name in self._below]
        except BaseException:
            self.close()
            raise

    def is_due(self, files_may_change: bool) -> bool:
        """Whether it is time to list the names. ``files_may_change``: without the folder showing it, as in place.

        Raises CameraLostError when it is not the same folder any more.
        """
        stats = [self._stat_folder(name) for name in self._below]
        if [found[:2] for found in stats] != self._identity:
            raise CameraLostError(
                f"the folder {self.path} was replaced or unmounted; mount it again and restart the program"
            )
        changed = files_may_change or self._unsure or [found[2] for found in stats] != self._changed
        return self._clock() - self._listed_ns >= (BUSY_SHARE if changed else IDLE_SHARE) * self._cost_ns

    def names(self) -> set[str]:
        """Every name. Raises CameraLostError when there are too many, or the folder is gone."""
        self._listed_ns = self._clock()
        stats = [self._stat_folder(name) for name in self._below]
        found: set[str] = set()
        for folder in self._below:
            before = f"{folder}/" if folder else ""
            try:
                with os.scandir(self.path / folder) as entries:
                    found.update(before + entry.name for entry in islice(entries, self._names_max + 1 - len(found)))
            except OSError as error:
                raise self._gone(folder, error) from error
            if len(found) > self._names_max:
                raise CameraLostError(
                    f"the folder {self.path} holds more than {self._names_max} files ([folder] files_max); move or "
                    "delete old ones, or set after = move"
                )
        self._changed = [each[2] for each in stats]
        now_ns = time.time_ns()
        self._unsure = any(abs(now_ns - each) < TICK_NS for each in self._changed)
        self._cost_ns = self._clock() - self._listed_ns
        return found

    def stat(self, name: str) -> Seen | str | None:
        """The file of this name; what it is, if not a regular file; None: there is none."""
        try:
            found = os.lstat(self.path / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CameraLostError(
                f"{shown(self.path / name)} cannot be looked at ({error.strerror}); check the folder and its share"
            ) from error
        kind = stat.S_IFMT(found.st_mode)
        if kind != stat.S_IFREG:
            return KINDS.get(kind, "something else")
        return Seen(found.st_ino, found.st_size, max(-MTIME_MAX_NS, min(MTIME_MAX_NS, found.st_mtime_ns)))

    def has_hole(self, name: str) -> bool:
        """Whether parts of the file were never written, as in one that was made in its full size and is being filled.

        They would read as zeros, which are missing points. False where the file system does not say.
        """
        try:
            handle = open_file(self.path / name)
        except OSError:
            return False  # the reader says why
        try:
            size = os.fstat(handle).st_size
            return size > 0 and os.lseek(handle, 0, os.SEEK_HOLE) < size
        except OSError:
            return False
        finally:
            os.close(handle)

    def move(self, names: Iterable[str], target: Path) -> None:
        """Move files to the folder ``target`` on the same disk; none there is replaced. Raises CameraLostError."""
        for name in names:
            place = target / name
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                number = 1
                while os.path.lexists(place):
                    number += 1
                    place = (target / name).with_name(f"{Path(name).stem}~{number}{Path(name).suffix}")
                with suppress(FileNotFoundError):  # removed by the camera's program meanwhile
                    (self.path / name).rename(place)
            except OSError as error:
                raise CameraLostError(
                    f"{shown(self.path / name)} cannot be moved to {target} ({error.strerror}); free some space or "
                    "correct the permissions, and restart the program"
                ) from error

    def delete(self, names: Iterable[str]) -> None:
        """Delete files. Raises CameraLostError."""
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise CameraLostError(
                    f"{shown(self.path / name)} cannot be deleted ({error.strerror}); correct the permissions, and "
                    "restart the program"
                ) from error

    def close(self) -> None:
        """Give up the lock. A second time it does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CameraError(
                f"another program takes the exposures of {self.path}; end it first, or give each camera its own folder"
            ) from None
        except OSError:  # a network share without locks of folders: the record's lock remains
            pass

    def _stat_folder(self, name: str) -> tuple[int, int, int]:
        try:
            found = (self.path / name).stat()
        except OSError as error:
            raise self._gone(name, error) from error
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def _gone(self, name: str, error: OSError) -> CameraLostError:
        return CameraLostError(
            f"the folder {self.path / name} is gone or cannot be read ({error.strerror}); mount or make it, and "
            "restart the program"
        )
