"""Where this user's state, cache, configuration and sockets lie, where no path is configured.

In this order: the user's variable (XDG base directories), their home folder by ``HOME``, the folder that systemd made
for a service (``StateDirectory=`` and its like), their home folder by the system's list of users. A ``HOME`` that is
empty or ``/`` is none: containers set that for a user whom they do not know.
"""

from __future__ import annotations

import os
from pathlib import Path

from asperity.runtime.errors import ConfigError

NAME = "asperity"


def state_folder(instead: str = "") -> Path:
    """For what is to be kept: journals. ``instead``: what else may be set, for the error. Raises ConfigError."""
    return _folder("state", "XDG_STATE_HOME", "STATE_DIRECTORY", ".local/state", instead)


def cache_folder(instead: str = "") -> Path:
    """For what can be made again; as ``state_folder``."""
    return _folder("cache", "XDG_CACHE_HOME", "CACHE_DIRECTORY", ".cache", instead)


def configuration_folder(instead: str = "") -> Path:
    """For keys; as ``state_folder``."""
    return _folder("configuration", "XDG_CONFIG_HOME", "CONFIGURATION_DIRECTORY", ".config", instead)


def runtime_folder() -> Path:
    """For sockets; without a variable one in /tmp, which every process of this user finds. Raises ConfigError."""
    if base := _absolute("XDG_RUNTIME_DIR"):
        return base / NAME
    return _of_service("RUNTIME_DIRECTORY") or Path(f"/tmp/asperity-{os.getuid()}") / NAME


def _folder(what: str, variable: str, of_service: str, below_home: str, instead: str) -> Path:
    if base := _absolute(variable):
        return base / NAME
    home = _absolute("HOME")
    if home == Path("/"):
        home = None
    if home is None and (folder := _of_service(of_service)):
        return folder
    home = home or _listed_home()
    if home is None:
        said = f"HOME={os.environ['HOME']}" if os.environ.get("HOME") else "HOME is not set"
        raise ConfigError(
            f"there is no {what} folder: {said} and the system knows no home folder of uid {os.getuid()}; set "
            f"{variable} or HOME to a folder of this user's" + (f", or {instead}" if instead else "")
        )
    return home / below_home / NAME


def _absolute(variable: str) -> Path | None:
    """The folder that a variable names; None: it names none. Raises ConfigError."""
    value = os.environ.get(variable, "")
    if value and not value.startswith("/"):
        raise ConfigError(f"{variable}={value} is not an absolute path; set one that begins with /, or unset it")
    return Path(value) if value else None


def _of_service(variable: str) -> Path | None:
    """The first folder that systemd made; it is ours alone already."""
    first = os.environ.get(variable, "").split(":")[0]
    return Path(first) if first.startswith("/") else None


def _listed_home() -> Path | None:
    import pwd

    try:
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None
    return home if home.is_absolute() and home != Path("/") else None
