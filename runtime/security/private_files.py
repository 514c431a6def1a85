"""Files that only this user can change (keys, passwords, built networks): checked before use, written whole.

The checks apply to the opened file that is then read: its kind, owner, mode and size. The caller chooses only the
error type, the text on what others could do and how to repair it, and whether root may own the file too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from asperity.runtime import files
from asperity.runtime.errors import AsperityError, ConfigError, UsageError
from asperity.runtime.files import OTHERS_MAY_USE, OthersReach, make_folder, read_file, write_whole
from asperity.runtime.folders import configuration_folder
from asperity.runtime.text.encoding import TextRefused, decode
from asperity.runtime.text.names import has_stray_bytes, path_from

KEYS_VARIABLE = "ASPERITY_KEYS"
CLIENT_KEY_VARIABLE = "ASPERITY_CLIENT_KEY"
"""The path of a client's key file, for commands that connect to a station."""
MAX_KEY_FILE_BYTES = 16 * 1024
MAX_SECRET_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Private:
    """What others must not do with a file or folder, and the error text if they can."""

    error: type[AsperityError]
    danger: str
    repair: str = "run `chmod 600 {}`"
    """Of the mode; ``{}`` stands for the path."""
    chown: str = "make it yours with `chown`"
    """Of what belongs to another user."""
    forbidden: int = OTHERS_MAY_USE
    root: bool = True
    """Root may own it as well as this user."""

    def refusal(self, path: Path, found: OthersReach) -> AsperityError:
        """The error to raise."""
        repair = self.chown if found.foreign else self.repair.format(path)
        return self.error(f"{path}: {found.strerror} ({self.danger}); {repair}")


SECRET = Private(ConfigError, "it holds a password or a private key")


def default_key_folder() -> Path:
    """``$ASPERITY_KEYS``, else ``keys`` in the user's configuration folder. Raises ConfigError."""
    chosen = os.environ.get(KEYS_VARIABLE)
    if not chosen:
        return configuration_folder(f"--keys or {KEYS_VARIABLE}") / "keys"
    if has_stray_bytes(chosen):
        return Path(chosen)
    try:
        return path_from(chosen, Path())
    except TextRefused as error:
        raise ConfigError(f"{KEYS_VARIABLE} {error}") from None


def check_folder(folder: Path, private: Private, *, follow: bool = False) -> None:
    """Raises the error of ``private`` when others have a hand in the folder, OSError when it is not one.

    ``follow``: a link may lead to it; only for a path that the user of the machine named themselves.
    """
    try:
        files.check_folder(folder, private.forbidden, follow=follow, root=private.root)
    except OthersReach as error:
        raise private.refusal(folder, error) from None


def read_private(path: Path, private: Private, limit_bytes: int = MAX_KEY_FILE_BYTES, *, follow: bool = False) -> bytes:
    """The bytes of a file that others have no hand in. ``follow``: as in ``check_folder``.

    Raises the error of ``private``, and OSError, also when there are more bytes than the limit.
    """
    try:
        return read_file(path, limit_bytes, follow=follow, forbidden=private.forbidden, root=private.root)
    except OthersReach as error:
        raise private.refusal(path, error) from None


def read_secret(path: Path) -> str:
    """The text of a file with a password or key that a configuration names. Raises ConfigError."""
    try:
        return decode(read_private(path, SECRET, MAX_SECRET_BYTES, follow=True))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; give a file of this user's, mode 0600") from error
    except TextRefused as error:
        raise ConfigError(f"{path} {error}") from None


def write_private(path: Path, data: bytes, remedy: str) -> None:
    """In one step, mode 0600, in folders that are made with mode 0700. Raises UsageError naming ``remedy``."""
    try:
        make_folder(path.parent)
        write_whole(path, data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; {remedy}") from None
