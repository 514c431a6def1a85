"""Files that hold keys: who may read them is checked before they are used, and they are written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from asperity.runtime.errors import AsperityError, UsageError
from asperity.runtime.files import OTHERS_MAY_USE, OTHERS_MAY_WRITE, open_file

__all__ = [
    "CLIENT_KEY_VARIABLE", "KEYS_VARIABLE", "OTHERS_MAY_USE", "OTHERS_MAY_WRITE", "check_private",
    "default_key_folder", "read_private", "write_private",
]  # fmt: skip

KEYS_VARIABLE = "ASPERITY_KEYS"
CLIENT_KEY_VARIABLE = "ASPERITY_CLIENT_KEY"
"""The path of a client's key file, for commands that connect to a station."""
MAX_KEY_FILE_BYTES = 16 * 1024


def default_key_folder() -> Path:
    """``$ASPERITY_KEYS``, else ``asperity/keys`` in the user's configuration folder (XDG base directories)."""
    if chosen := os.environ.get(KEYS_VARIABLE):
        return Path(chosen)
    configuration = os.environ.get("XDG_CONFIG_HOME", "")
    # XDG: a relative path in the variable is invalid and must be ignored.
    root = Path(configuration) if Path(configuration).is_absolute() else Path.home() / ".config"
    return root / "asperity" / "keys"


def check_private(path: Path, forbidden: int, danger: str, repair: str, error: type[AsperityError]) -> None:
    """Raises ``error`` when others have one of the ``forbidden`` rights, or the owner is another user."""
    _check(path, path.stat(), forbidden, danger, repair, error)


def read_private(
    path: Path, forbidden: int, danger: str, repair: str, error: type[AsperityError], *, follow: bool = False
) -> bytes:
    """The bytes of a key file that only its owner has a hand in; what is checked is the file that is then read.

    ``follow``: a link may lead to it. Raises OSError, and ``error`` as ``check_private`` does.
    """
    handle = open_file(path, follow=follow)
    with os.fdopen(handle, "rb") as file:
        _check(path, os.fstat(handle), forbidden, danger, repair, error)
        return file.read(MAX_KEY_FILE_BYTES)


def _check(
    path: Path, found: os.stat_result, forbidden: int, danger: str, repair: str, error: type[AsperityError]
) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise error(f"{path} belongs to another user (uid {found.st_uid}); make it yours with `chown`")
    if found.st_mode & forbidden:
        raise error(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: {danger}; run `{repair} {path}`")


def write_private(path: Path, data: bytes, remedy: str) -> None:
    """Atomic, mode 0600; a folder that is not there is made with mode 0700. Raises UsageError naming ``remedy``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent)  # mkstemp opens with mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; {remedy}") from None
