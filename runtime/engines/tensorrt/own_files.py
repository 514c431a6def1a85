"""Files that only this user may have written: built networks are executable code. Raises EngineError otherwise."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from asperity.runtime.errors import EngineError

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_owner(path: Path, found: os.stat_result, right_kind: bool, repair: str) -> None:
    """Raises EngineError when the path is not of the right kind, belongs to another user or others may write it."""
    danger = "built networks are executable code and are used only if no other user could have modified them"
    if not right_kind:
        raise EngineError(f"{path} is a link, or not a regular file or folder; {danger}: remove it")
    if found.st_uid != os.geteuid():
        raise EngineError(f"{path} belongs to another user (uid {found.st_uid}); {danger}: remove it and build again")
    if found.st_mode & OTHERS_MAY_WRITE:
        raise EngineError(
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, so other users may write to it; {danger}: remove "
            f"what is in it, run `{repair} {path}` and build again"
        )


def read_own(path: Path, limit_bytes: int) -> bytes:
    """A file's bytes, no more than the limit and one, following no link; owner and mode are those of the open file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise EngineError(f"{path} cannot be read ({error.strerror}); build the bundle's networks again") from error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        check_owner(path, found, stat.S_ISREG(found.st_mode), "chmod 600")
        try:
            return file.read(limit_bytes + 1)
        except OSError as error:
            raise EngineError(f"{path} cannot be read ({error.strerror}); build the networks again") from error


def write_own(path: Path, data: bytes) -> None:
    """A file of mode 0600 whose bytes are on the disk when this returns."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(handle)
