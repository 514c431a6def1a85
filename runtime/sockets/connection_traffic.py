"""How much a connection of libzmq has sent so far, and how to end it, although libzmq owns its descriptor.

A descriptor's number may be reused for another file at any moment, so everything is done on a duplicate, which keeps
referring to the same file, and only after checking what it is: Linux gives each socket a unique number that is never
reused (SO_COOKIE). Only TCP counts bytes; for other connections nothing is known.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

_SO_COOKIE = 57
_RECEIVED = 128
"""Where ``struct tcp_info`` of Linux has ``tcpi_bytes_received``, 8 bytes."""


def look(handle: int) -> tuple[bytes, int] | None:
    """(cookie, bytes received) of a TCP connection; None: it is none, or it is gone."""
    with _copy(handle) as end:
        if end is None or end.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        try:
            info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED + 8)
            cookie = end.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
        except OSError:
            return None
        return (cookie, struct.unpack_from("=Q", info, _RECEIVED)[0]) if len(info) >= _RECEIVED + 8 else None


def cut(handle: int, cookie: bytes) -> None:
    """End the connection of this descriptor, if it is still the one with this cookie."""
    with _copy(handle) as end:
        try:
            if end is not None and end.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8) == cookie:
                end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended meanwhile


@contextmanager
def _copy(handle: int) -> Iterator[socket.socket | None]:
    try:
        end = socket.socket(fileno=os.dup(handle))
    except OSError:  # no descriptor any more, or none of a socket
        yield None
        return
    with closing(end):
        yield end
