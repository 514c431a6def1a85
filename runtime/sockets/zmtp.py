"""ZMTP 3 with the mechanism NULL (https://rfc.zeromq.org/spec/37/) as the side that binds: bytes <-> types, no sockets.

Older peers (ZMTP 1 and 2) are refused: they do not take part in a handshake, so nothing is known about them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from asperity.runtime.wire import Part

GREETING_NBYTES = 64
_MECHANISM = b"NULL".ljust(20, b"\0")
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + _MECHANISM + bytes(32)
COMMAND_MAX_NBYTES = 512
"""Of a command, READY included: names and texts of peers are short."""
PING_CONTEXT_MAX_NBYTES = 16
PING = b"\x04\x07\x04PING\x00\x00"
"""A whole frame. Its time to live is 0: the peer decides for itself when the station is silent for too long."""
PEERS = {b"PULL": {b"PUSH"}, b"PUB": {b"SUB", b"XSUB"}, b"ROUTER": {b"DEALER", b"REQ", b"ROUTER"}}
"""Which socket types may connect to which."""
_MORE, _LONG, _COMMAND = 1, 2, 4


class ProtocolError(Exception):
    """A peer broke the protocol. What it said is not quoted."""


class Header(NamedTuple):
    """The flags in the first byte of a frame."""

    more: bool
    command: bool
    size_nbytes: int
    """Length of the size that follows: 1 or 8."""


def check_greeting(greeting: bytes) -> None:
    """Raises ProtocolError where it is not a greeting of ZMTP 3 with NULL."""
    if greeting[:1] != b"\xff" or greeting[9:10] != b"\x7f":
        raise ProtocolError("not a ZMTP greeting")
    if greeting[10] < 3:
        raise ProtocolError("a ZMTP version before 3")
    if greeting[12:32] != _MECHANISM:
        raise ProtocolError("a security mechanism other than NULL; remove its key, or start the station with --curve")


def header(flags: int) -> Header:
    """Raises ProtocolError on reserved bits, and on a command with more to follow."""
    if flags & ~(_MORE | _LONG | _COMMAND) or flags & (_MORE | _COMMAND) == _MORE | _COMMAND:
        raise ProtocolError("not a ZMTP frame")
    return Header(bool(flags & _MORE), bool(flags & _COMMAND), 8 if flags & _LONG else 1)


def command(body: bytes) -> tuple[bytes, bytes]:
    """``(name, data)``. Raises ProtocolError."""
    if not body or len(body) <= body[0] or body[0] == 0:
        raise ProtocolError("a command without a name")
    return body[1 : 1 + body[0]], body[1 + body[0] :]


def ready(own_type: bytes) -> bytes:
    """The command READY, a whole frame."""
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(own_type)) + own_type
    return bytes((_COMMAND, len(body))) + body


def check_ready(body: bytes, own_type: bytes) -> None:
    """Raises ProtocolError unless it is READY of a socket type that may connect to ``own_type``."""
    name, data = command(body)
    if name != b"READY":
        raise ProtocolError("not READY")
    while data:
        key_nbytes = data[0]
        key, data = data[1 : 1 + key_nbytes], data[1 + key_nbytes :]
        if len(data) < 4:
            raise ProtocolError("READY with an incomplete property")
        (value_nbytes,) = struct.unpack_from(">I", data)
        if len(data) < 4 + value_nbytes:
            raise ProtocolError("READY with an incomplete property")
        value, data = data[4 : 4 + value_nbytes], data[4 + value_nbytes :]
        if key.lower() == b"socket-type":
            if value not in PEERS[own_type]:
                raise ProtocolError("its socket type does not match this socket")
            return
    raise ProtocolError("READY without a socket type")


def pong(data: bytes) -> bytes:
    """The answer to the data of a PING, a whole frame. Raises ProtocolError."""
    if not 2 <= len(data) <= 2 + PING_CONTEXT_MAX_NBYTES:
        raise ProtocolError("a PING of invalid length")
    body = b"\x04PONG" + data[2:]
    return bytes((_COMMAND, len(body))) + body


def encode(parts: Sequence[Part]) -> list[Part]:
    """A message as buffers to be sent one after the other; large parts are not copied."""
    buffers: list[Part] = []
    for number, part in enumerate(parts):
        nbytes = part.nbytes if isinstance(part, memoryview) else len(part)
        more = _MORE if number + 1 < len(parts) else 0
        buffers.append(bytes((more, nbytes)) if nbytes < 256 else struct.pack(">BQ", more | _LONG, nbytes))
        if nbytes:
            buffers.append(part)
    return buffers


def subscription(body: bytes) -> tuple[bool, bytes]:
    """``(subscribe, topic)`` of a message on a PUB socket. Raises ProtocolError."""
    if body[:1] not in (b"\x00", b"\x01"):
        raise ProtocolError("not a subscription")
    return body[0] == 1, body[1:]
