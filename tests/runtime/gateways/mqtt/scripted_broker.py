"""A broker that does as a test says, at each connection something else: MQTT 3.1.1 and 5, bytes by hand."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


@dataclass(frozen=True)
class Behaviour:
    """What the broker does with one connection."""

    code: int = 0
    """Of CONNACK."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """Of CONNACK, by paho's names."""
    then: bytes | None = None
    """Sent after the first PUBLISH; None: nothing, and the connection is kept."""
    closes: bool = False
    """After that it closes the connection."""
    answers: bool = True
    """False: it says nothing at all."""
    closes_at_once: bool = False
    """It closes the connection in place of a CONNACK."""
    puback: Mapping[str, int] = field(default_factory=dict)
    """Last part of a topic -> code of the PUBACK; other messages are accepted."""
    suback: int = 1
    suback_codes: int | None = None
    """So many codes in SUBACK; None: one for each topic."""
    before: bytes = b""
    """Sent before CONNACK."""


HOLD = Behaviour()
CLOSE_AFTER = Behaviour(closes=True)
TAKE_OVER = Behaviour(then=bytes([0xE0, 2, 0x8E, 0]), closes=True)


class ScriptedBroker:
    """Listens at ``port``. The last behaviour is that of all further connections."""

    def __init__(self, five: bool, *script: Behaviour, context: ssl.SSLContext | None = None) -> None:
        self.five = five
        self.connects: list[bytes] = []
        """Client ids in the order of their connections."""
        self.published: list[tuple[str, bytes]] = []
        self.subscribed: list[str] = []
        self._context = context
        self._script = list(script)
        self._to_client: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def send(self, topic: str, body: bytes, claims_nbytes: int | None = None) -> None:
        """Publish to the client of the newest connection, QoS 0; or the beginning of a packet of that size."""
        inside = struct.pack(">H", len(topic.encode())) + topic.encode() + (b"\0" if self.five else b"") + body
        assert self._to_client is not None
        self._to_client.sendall(b"\x30" + _length(claims_nbytes or len(inside)) + inside)

    def close(self) -> None:
        self._listener.close()
        with contextlib.suppress(OSError):
            if self._to_client is not None:
                self._to_client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                does = self._script.pop(0) if len(self._script) > 1 else self._script[0]
                threading.Thread(target=self._serve, args=(end, does), daemon=True).start()

    def _serve(self, end: socket.socket, does: Behaviour) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, EOFError):
            stack.enter_context(end)
            if self._context is not None:
                end = stack.enter_context(self._context.wrap_socket(end, server_side=True))
            for first, body in _packets(end):
                kind = first & 0xF0
                if kind == 0x10:
                    self._to_client = end
                    at = 10 + (1 + body[10] if self.five else 0)
                    self.connects.append(bytes(body[at + 2 : at + 2 + struct.unpack_from(">H", body, at)[0]]))
                    if does.closes_at_once:
                        return
                    if not does.answers:
                        continue
                    end.sendall(does.before + self._connack(does))
                    if does.code:
                        return
                elif kind == 0x80:
                    self.subscribed += [body[at + 2 : at + 2 + n].decode() for at, n in _topics(body, self.five)]
                    codes = bytes([does.suback] * len(list(_topics(body, self.five))))[: does.suback_codes]
                    inside = bytes(body[:2]) + (b"\0" if self.five else b"") + codes
                    end.sendall(b"\x90" + _length(len(inside)) + inside)
                elif kind == 0x30:
                    self._publish(end, first, body, does)
                    if does.then:
                        end.sendall(does.then)
                    if does.closes:
                        return
                elif kind == 0xC0:
                    end.sendall(b"\xd0\0")
                elif kind == 0xE0:
                    return

    def _publish(self, end: socket.socket, first: int, body: bytes, does: Behaviour) -> None:
        (nbytes,) = struct.unpack_from(">H", body)
        topic, at, qos = body[2 : 2 + nbytes].decode(), 2 + nbytes, (first >> 1) & 3
        number, at = body[at : at + 2 * (qos > 0)], at + 2 * (qos > 0)
        payload = body[at + (1 + body[at] if self.five else 0) :]
        self.published.append((topic, bytes(payload)))
        code = does.puback.get(topic.rpartition("/")[2], 0)
        if qos:
            end.sendall(b"\x40" + (b"\x03" + number + bytes([code]) if code else b"\x02" + number))
        if topic in self.subscribed and not code:
            self.send(topic, bytes(payload))

    def _connack(self, does: Behaviour) -> bytes:
        inside = bytes([0, does.code])
        if self.five:
            properties = Properties(PacketTypes.CONNACK)  # type: ignore[no-untyped-call]
            for name, value in does.properties.items():
                setattr(properties, name, value)
            inside += properties.pack()
        return b"\x20" + _length(len(inside)) + inside


def _packets(end: socket.socket) -> Iterator[tuple[int, bytes]]:
    while True:
        first, nbytes, shift = _read(end, 1)[0], 0, 0
        while True:
            digit = _read(end, 1)[0]
            nbytes, shift = nbytes | (digit & 127) << shift, shift + 7
            if digit < 128:
                break
        yield first, _read(end, nbytes)


def _read(end: socket.socket, nbytes: int) -> bytes:
    found = b""
    while len(found) < nbytes:
        more = end.recv(nbytes - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def _length(nbytes: int) -> bytes:
    found = b""
    while True:
        nbytes, digit = nbytes >> 7, nbytes & 127
        found += bytes([digit | 128 * (nbytes > 0)])
        if not nbytes:
            return found


def _topics(body: bytes, five: bool) -> Iterator[tuple[int, int]]:
    """Where each topic of a SUBSCRIBE begins, and its length."""
    at = 2 + (1 + body[2] if five else 0)
    while at < len(body):
        (nbytes,) = struct.unpack_from(">H", body, at)
        yield at, nbytes
        at += 2 + nbytes + 1
