"""Does anyone listen at an endpoint? Asked where nothing was received, so that a client says where it waits in vain.

No connection is made to a station that is there: it would count it among the failed handshakes.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import closing
from pathlib import Path

_LISTENS = "0A"
"""State of a socket in /proc/net/tcp."""


def nobody_at(endpoint: str, setting: str) -> str:
    """Why nobody can answer at ``endpoint``, and what to do; empty: a process listens, or it cannot be known.

    ``setting``: what names the endpoint, for example ``[station] control``.
    """
    if endpoint.startswith("ipc://"):
        why = _nobody_at_file(Path(endpoint.removeprefix("ipc://")))
        here = os.environ.get("XDG_RUNTIME_DIR") or "not set"
        if here == "not set" and (of_service := os.environ.get("RUNTIME_DIRECTORY")):
            here += f", and RUNTIME_DIRECTORY is {of_service}"
        other = f"another XDG_RUNTIME_DIR (here it is {here}) or user"
    else:
        why = _nobody_at_port(*endpoint.removeprefix("tcp://").rpartition(":")[::2])
        other = "another port"
    if not why:
        return ""
    return (
        f"nobody listens at {endpoint} ({why}): start the inspector, or, if it runs with {other}, set {setting} to its "
        "endpoint"
    )


def _nobody_at_file(path: Path) -> str:
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return "it is not a socket"
        if any(line.endswith(f" {path}") for line in _table("unix")):
            return ""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.settimeout(0.1)
            probe.connect(str(path))
    except FileNotFoundError:
        return "there is no such file"
    except PermissionError:
        return "this user may not use it"
    except ConnectionRefusedError:
        return "its process has ended"
    except OSError:
        pass
    return ""


def _nobody_at_port(host: str, port: str) -> str:
    """Only of this computer it is known without asking."""
    if not (host in ("localhost", "[::1]") or host.startswith("127.")) or not port.isdecimal():
        return ""
    lines = [line.split() for line in _table("tcp") + _table("tcp6")]
    ending = f":{int(port):04X}"
    listens = any(line[1].endswith(ending) and line[3] == _LISTENS for line in lines)
    return "" if listens or not lines else "the port is not open"


def _table(name: str) -> list[str]:
    """Lines of the system's table of sockets; none where it is hidden from this process."""
    try:
        return Path(f"/proc/net/{name}").read_text().splitlines()
    except OSError:
        return []
