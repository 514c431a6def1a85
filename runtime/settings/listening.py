"""Addresses to listen on: which can be, and why one could not be bound, as a sentence with its remedy. Pure."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path
from typing import NamedTuple

UNPRIVILEGED_PORT = 1024
PORT_MAX = 65_535
_OUT_OF_HANDLES = "too many files are open; raise LimitNOFILE of the systemd unit, or `ulimit -n`"


class Place(NamedTuple):
    """Where a socket listens: a host and port, or a file."""

    host: str = ""
    port: int = 0
    """0: any free one."""
    path: Path | None = None


def place_of(endpoint: str) -> Place:
    """The place that an endpoint names. Raises ValueError with what is wrong about it, and what to write."""
    scheme, separator, rest = endpoint.partition("://")
    if not separator or scheme not in ("tcp", "ipc"):
        raise ValueError("it is neither tcp://HOST:PORT nor ipc:///FOLDER/NAME")
    if scheme == "ipc":
        return Place(path=Path(rest))
    host, _, port = rest.rpartition(":")
    if not re.fullmatch(r"\*|[0-9]{1,5}", port) or (port != "*" and int(port) > PORT_MAX):
        raise ValueError(f"{port!r} is not a port; use tcp://HOST:PORT with a port of 0 to {PORT_MAX}, or * for any")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or any(character in "[] /" or not character.isprintable() for character in bare):
        raise ValueError("its host is missing or malformed; use an IP address, * for all, or a name")
    if ":" in bare and bare == host:
        raise ValueError("an IPv6 address stands in brackets: tcp://[::1]:5560")
    return Place(bare, 0 if port == "*" else int(port))


def why_not_bound(error: Exception, place: Place, process: str) -> str:
    """Why a socket could not be bound. ``process``: what else may listen there, for example ``another inspector``."""
    number = getattr(error, "errno", None)
    if isinstance(error, (socket.gaierror, UnicodeError)) or number == errno.ENODEV:
        return (
            f"{place.host} is neither an address nor a name that this computer knows ({_text(error)}); use an IP "
            "address of this computer (`ip address` lists them)"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return _OUT_OF_HANDLES
    said = _of_path(number, place.path, process) if place.path is not None else _of_port(number, place, process)
    return said or f"{_text(error)}; choose another"


def _of_path(number: int | None, path: Path, process: str) -> str:
    return {
        errno.EADDRINUSE: f"another process listens there; is {process} running? Stop it, or choose another path",
        errno.EACCES: f"this user may not create files in {path.parent}; run it as the user of that folder, or choose "
        "another",
        errno.EPERM: f"files cannot be created in {path.parent}; choose another folder",
        errno.ENOENT: f"the folder {path.parent} does not exist; create it with mode 0700, or choose another",
        errno.ENOTDIR: f"{path.parent} is not a folder; choose another",
        errno.EROFS: f"{path.parent} is on a read-only file system; choose a folder that can be written, such as one "
        "in /run",
        errno.ENOSPC: f"there is no space left in {path.parent}",
        errno.ENAMETOOLONG: "the path is too long for a socket; choose a shorter one",
    }.get(number or 0, "")


def _of_port(number: int | None, place: Place, process: str) -> str:
    host, port, six = place.host, place.port, ":" in place.host
    privilege = (
        f"ports below {UNPRIVILEGED_PORT} need a privilege; choose a higher port, or give the process "
        "CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
    )
    barred = "this system does not allow it (SELinux, AppArmor, a container); choose another port"
    off = ", or IPv6 is off (`sysctl net.ipv6.conf.all.disable_ipv6`)" if six else ""
    instead = (
        "set the loopback interface up (`ip link set lo up`), or use ::1, with which it may have IPv6 alone"
        if host.startswith("127.")
        else "use one of those that `ip address` lists, or 127.0.0.1"
    )
    return {
        errno.EADDRINUSE: f"port {port} is in use; is {process} running? Stop what listens there (`ss -ltnp` lists "
        "it), or choose another port",
        errno.EADDRNOTAVAIL: f"{host} is not an address of this computer{off}; {instead}",
        errno.EAFNOSUPPORT: "IPv6 is off on this computer; use an IPv4 address" if six else "",
        errno.EACCES: privilege if 0 < port < UNPRIVILEGED_PORT else barred,
        errno.EPERM: barred,
        errno.EINVAL: f"{host} needs its interface, as in fe80::1%eth0" if host.startswith("fe80:") else "",
    }.get(number or 0, "")


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
