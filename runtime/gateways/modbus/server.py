"""A small Modbus TCP server: framing, function codes 3, 4, 6 and 16, and bounds on everything a client may take.

Why not pymodbus's server (3.16.1): it throws away what waits in its buffer when it answers, so of five requests sent
together one was answered; after bytes that are not Modbus it neither replied nor closed; it kept 500 silent
connections and has no bound on them, nor on what waits for a client that does not read; and it hides why it could
not listen.

Source: MODBUS Application Protocol V1.1b3 and MODBUS Messaging on TCP/IP Implementation Guide V1.0b (modbus.org).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from typing import Protocol, cast

from asperity.runtime.gateways.config import Modbus

log = logging.getLogger("asperity.gateway")

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 1, 2, 3, 6
READ_MAX, WRITE_MAX = 125, 123
"""Registers in one request."""
REQUESTS_PER_TURN = 16
"""Requests of one client that are answered before the others have their turn."""
SEND_NBYTES = 32_768
"""Answers that the system holds for a client that does not read; asyncio holds 64 KiB more."""
MBAP = struct.Struct(">HHHB")
"""Transaction, protocol (0), bytes that follow (unit among them), unit."""
PDU_MAX_NBYTES = 253


class Refusal(Exception):
    """A request answered with a Modbus exception."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Registers(Protocol):
    """The registers served. Both may raise Refusal; a write that does has had no effect."""

    def read(self, address: int, count: int) -> bytes:
        """``count`` registers, two bytes each, all of one moment."""

    def write(self, address: int, words: list[int], peer: str) -> None:
        """Write registers; ``peer`` is the client's address."""


def answer(registers: Registers, pdu: bytes, peer: str) -> bytes:
    """The response to a request of ``peer``, both without MBAP header. Never raises Refusal."""
    function, body = pdu[0], pdu[1:]
    try:
        return bytes([function]) + _answer(registers, function, body, peer)
    except Refusal as refusal:
        return bytes([function | 0x80, refusal.code])


def _answer(registers: Registers, function: int, body: bytes, peer: str) -> bytes:
    if function not in (3, 4, 6, 16):
        raise Refusal(ILLEGAL_FUNCTION)
    if len(body) < 4 or (function != 16 and len(body) != 4):
        raise Refusal(ILLEGAL_VALUE)
    address, second = struct.unpack_from(">HH", body)
    if function == 6:
        registers.write(address, [second], peer)
    elif function == 16:
        if not 1 <= second <= WRITE_MAX or len(body) != 5 + 2 * second or body[4] != 2 * second:
            raise Refusal(ILLEGAL_VALUE)
        registers.write(address, list(struct.unpack_from(f">{second}H", body, 5)), peer)
    else:
        if not 1 <= second <= READ_MAX:
            raise Refusal(ILLEGAL_VALUE)
        data = registers.read(address, second)
        return bytes([len(data)]) + data
    return body[:4]


class ModbusServer:
    """Listens, and keeps at most ``connections_max`` clients. For one loop."""

    def __init__(self, registers: Registers, config: Modbus) -> None:
        self.registers = registers
        self.malformed = 0
        """Connections closed because what came was no Modbus."""
        self._config = config
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Listen; the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self._config.host, self._config.port, backlog=self._config.connections_max
        )
        return int(self._server.sockets[0].getsockname()[1])

    def admit(self, connection: _Connection) -> None:
        """A client came. When there are too many, one is closed: one that never asked anything, else the one that has
        been silent longest, so that a PLC that was switched off and on does not find its old connections in its way."""
        if len(self._connections) >= self._config.connections_max:
            least = min(self._connections, key=lambda c: (c.asked, c.heard_s))
            log.info(
                "too many Modbus clients: closing the connection from %s to make room for a new one; if all are "
                "needed, raise [modbus] connections_max", least.peer,
            )  # fmt: skip
            self.end(least)
        self._connections.add(connection)

    def end(self, connection: _Connection) -> None:
        """Close a connection at once; what was not sent is dropped."""
        self._connections.discard(connection)
        connection.ended = True
        connection.transport.abort()

    def sweep(self) -> None:
        """End the connections that are silent or slow; to be called now and then."""
        now_s = time.monotonic()
        for connection in list(self._connections):
            waits_ms = self._config.request_ms if connection.unfinished else self._config.idle_ms
            if (now_s - connection.heard_s) * 1000 > waits_ms:
                self.end(connection)

    def close(self) -> None:
        """Listen no longer and end every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            self.end(connection)


class _Connection(asyncio.Protocol):
    """One client."""

    transport: asyncio.Transport

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._full = False
        self.ended = False
        self.asked = False
        self.heard_s = time.monotonic()
        """When the last whole request came; while one is unfinished, when its first byte came."""
        self.peer = self._address = ""

    @property
    def unfinished(self) -> bool:
        """Part of a request has come, or an answer waits for the client to read."""
        return bool(self._buffer) or self._full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer)
        self._address = str(peer[0]) if peer else "unknown"  # None where it is gone already
        plain = transport.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_NBYTES)
        self._server.admit(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.end(self)

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self.heard_s = time.monotonic()
        self._buffer += data
        self._work()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._work()

    def _work(self) -> None:
        """Answer what has come whole, in order; then read on."""
        for _ in range(REQUESTS_PER_TURN):
            if self.ended or self._full or not self._answer_one():
                break
        else:
            # Others first; meanwhile nothing more is read from this one.
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._work)
            return
        if self._full:
            self.transport.pause_reading()
        elif not self.ended:
            self.transport.resume_reading()

    def _answer_one(self) -> bool:
        if len(self._buffer) < MBAP.size:
            return False
        transaction, protocol, nbytes, unit = MBAP.unpack_from(self._buffer)
        if protocol != 0 or not 2 <= nbytes <= PDU_MAX_NBYTES + 1:
            # Where the next request would begin is not known any more.
            self._server.malformed += 1
            log.warning("%s sent an invalid Modbus frame; closing the connection", self.peer)
            self._server.end(self)
            return False
        end = MBAP.size - 1 + nbytes
        if len(self._buffer) < end:
            return False
        response = answer(self._server.registers, bytes(self._buffer[MBAP.size : end]), self._address)
        del self._buffer[:end]
        self.asked, self.heard_s = True, time.monotonic()
        self.transport.write(MBAP.pack(transaction, 0, len(response) + 1, unit) + response)
        return True
