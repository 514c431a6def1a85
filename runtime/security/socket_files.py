"""Sockets that are files (``ipc://``): only this user and root can have made one, or can replace it.

A client cannot ask libzmq who is at the other end of an ipc connection (``SO_PEERCRED``), and libzmq reconnects by
itself, without asking, whenever the other end comes back. So the whole path to the file is checked, before connecting
and before binding: what only this user and root can change stays as it was found. Otherwise another user could make
``/tmp/asperity-UID`` first and answer in the station's place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from asperity.runtime.errors import AsperityError, StationError
from asperity.runtime.files import OTHERS_MAY_WRITE, is_foreign
from asperity.runtime.text.addresses import check_endpoint
from asperity.runtime.text.encoding import TextRefused

PATH_NBYTES_MAX = 107
"""Linux's ``sun_path``, less its last zero."""


def check_ipc(endpoint: str, *, make_folder: bool = False, error: type[AsperityError] = StationError) -> Path | None:
    """The file of an ``ipc://`` endpoint, which need not be there yet; None: the endpoint is of another kind, or empty.

    Every folder down to the file belongs to this user or root, and none can be written by others (one above the last
    may be, if it is sticky as /tmp is); no link is among them; the file, if it is there, is such a user's socket.
    ``make_folder``: make what is missing of the folders, for this user alone. Without it that is done only where
    another user could come first. Raises StationError naming the path and the remedy, and ``error`` where the text is
    not an endpoint.
    """
    try:
        if endpoint and not make_folder:  # what this process binds comes from its settings, which were checked
            check_endpoint(endpoint)
    except TextRefused as refused:
        raise error(f"the endpoint {refused}") from None
    if not endpoint.startswith("ipc://"):
        return None
    path = _path_of(endpoint)
    others_may_make = False  # in the folder before
    for folder in reversed(path.parents):
        found = _look(folder)
        if found is None and not (make_folder or others_may_make):
            return path  # only this user and root can make it
        if found is None:
            found = _make(folder, endpoint)
        _check_owner(folder, found, endpoint)
        if not stat.S_ISDIR(found.st_mode):
            raise StationError(f"{folder} in the path of {endpoint} is not a folder; choose another place")
        others_may_make = bool(found.st_mode & OTHERS_MAY_WRITE)
        if others_may_make and not found.st_mode & stat.S_ISVTX:
            raise StationError(
                f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}: other users could put their own socket in the "
                f"place of {endpoint}; run `chmod go-w {folder}` or choose another place"
            )
    if others_may_make:
        raise StationError(
            f"any user may create files in {path.parent}, also in place of {endpoint}; give the socket a folder of "
            "its own, with mode 0700"
        )
    found = _look(path)
    if found is not None:
        _check_owner(path, found, endpoint)
        if not stat.S_ISSOCK(found.st_mode):
            raise StationError(f"{path} exists and is not a socket; choose another name for {endpoint}")
    return path


def _path_of(endpoint: str) -> Path:
    name = endpoint.removeprefix("ipc://")
    if not name or name[0] in "@*":
        raise StationError(f"{endpoint} is not a file, so any user could bind it; use ipc:///FOLDER/NAME")
    if "\0" in name:
        raise StationError(f"{endpoint!r} contains a NUL character; choose another path")
    if (nbytes := len(os.fsencode(name))) > PATH_NBYTES_MAX:
        raise StationError(
            f"the path of {endpoint} has {nbytes} bytes, a socket's may have {PATH_NBYTES_MAX}; choose a shorter one, "
            "or set XDG_RUNTIME_DIR to a shorter folder if it is the default of the control socket"
        )
    return Path(name).absolute()


def _look(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StationError(f"{path} cannot be checked: {error.strerror}; choose another place") from error


def _make(folder: Path, endpoint: str) -> os.stat_result:
    """Create a folder before another user does; one that already exists is checked like any other."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder.lstat()
    except OSError as error:
        raise StationError(
            f"the folder {folder} of {endpoint} cannot be made: {error.strerror}; set XDG_RUNTIME_DIR to a folder you "
            "own or choose another place"
        ) from error


def _check_owner(path: Path, found: os.stat_result, endpoint: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise StationError(f"{path} in the path of {endpoint} is a link; give the real path of the endpoint")
    if is_foreign(found):
        raise StationError(
            f"{path} belongs to another user (uid {found.st_uid}), who could impersonate the station at "
            f"{endpoint}; run this as the inspector's user (`sudo -u`), set XDG_RUNTIME_DIR to a folder you own or "
            "choose another place"
        )
