"""A TCP server whose messages say in their first bytes how long they are, with bounds on everything a client may take.

How many clients, how long one may be silent, how long a message may take to come and an answer to be read, how many
messages are answered before the others have their turn, how much waits for a client that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Protocol, cast

from asperity.runtime.gateways.connection_limit import one_to_close
from asperity.runtime.gateways.process import hold_more

log = logging.getLogger("asperity.gateway")

MESSAGES_PER_TURN = 16
"""Messages of one client that are answered before the others have their turn."""
SEND_NBYTES = 32_768
"""Answers that the system holds for a client that does not read; asyncio holds 64 KiB more."""
NO_ADDRESS = "0.0.0.0"
"""Of a client that is gone before it was looked at."""


class MalformedError(Exception):
    """Where the next message would begin is not known any more."""


class Bounds(Protocol):
    """What the table of a protocol says."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def connections_max(self) -> int: ...
    @property
    def idle_ms(self) -> int: ...
    @property
    def request_ms(self) -> int: ...


class Conversation(Protocol):
    """The protocol's part of one connection."""

    head_nbytes: int
    """So many bytes say how long a message is."""

    @property
    def asked(self) -> bool:
        """It has asked something whole: others are closed before it."""

    @property
    def in_use(self) -> bool:
        """It may stay although it says nothing."""

    def nbytes(self, head: bytes) -> int:
        """Of the whole message that begins so. Raises MalformedError."""

    def answer(self, message: bytes) -> bytes | None:
        """To a whole message; empty: nothing; None: close the connection."""

    def ended(self) -> None:
        """The connection is closed."""


class TcpServer:
    """Listens, and keeps at most ``connections_max`` clients. For one loop."""

    def __init__(self, bounds: Bounds, table: str, name: str, begin: Callable[[str, str], Conversation]) -> None:
        """``table``: of gateway.toml; ``name``: of the protocol; ``begin``: called with the client's address and ours
        by which it reaches us."""
        self.bounds = bounds
        self.name = name
        self.malformed = 0
        """Connections closed because what came was not of the protocol."""
        self.begin = begin
        self._table = table
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Listen; the port. Raises OSError."""
        loop, bounds = asyncio.get_running_loop(), self.bounds
        self._server = await loop.create_server(
            lambda: _Client(self), bounds.host, bounds.port, backlog=bounds.connections_max
        )
        hold_more(self._server)
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._clients)

    def admit(self, client: _Client) -> None:
        """A client came. When there are too many, one is closed, so that a controller that was switched off and on does
        not find its old connections in its way."""
        if len(self._clients) >= self.bounds.connections_max:
            least = one_to_close(self._clients)
            log.info(
                "too many %s clients: closing the connection from %s to make room for a new one; if all are needed, "
                "raise [%s] connections_max", self.name, least.host, self._table,
            )  # fmt: skip
            self.end(least)
        self._clients.add(client)

    def end(self, client: _Client) -> None:
        """Close a connection at once; what was not sent is dropped."""
        self._clients.discard(client)
        if not client.over:
            client.over = True
            client.conversation.ended()
        client.transport.abort()

    def sweep(self) -> None:
        """End the connections that are silent or slow; to be called now and then."""
        now_s = time.monotonic()
        for client in list(self._clients):
            if client.conversation.in_use and not client.unfinished:
                continue
            waits_ms = self.bounds.request_ms if client.unfinished else self.bounds.idle_ms
            if (now_s - client.since_s) * 1000 > waits_ms:
                self.end(client)

    def close(self) -> None:
        """Listen no longer and end every connection."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            self.end(client)


class _Client(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport
    conversation: Conversation

    def __init__(self, server: TcpServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._full = False
        self.over = False
        self.host = NO_ADDRESS
        self.since_s = time.monotonic()
        """When the last whole message came; while one is unfinished, when its first byte came."""

    @property
    def asked(self) -> bool:
        """As ``connection_limit.Guest``."""
        return self.conversation.asked

    @property
    def unfinished(self) -> bool:
        """Part of a message has come, or an answer waits for the client to read."""
        return bool(self._buffer) or self._full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.host = str(peer[0]) if peer else NO_ADDRESS
        plain = transport.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_NBYTES)
        self.conversation = self._server.begin(self.host, str(own[0]) if own else NO_ADDRESS)
        self._server.admit(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server.end(self)

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self.since_s = time.monotonic()
        self._buffer += data
        self._work()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._work()

    def _work(self) -> None:
        """Answer what has come whole, in order; then read on."""
        for _ in range(MESSAGES_PER_TURN):
            if self.over or self._full or not self._answer_one():
                break
        else:
            # Others first; meanwhile nothing more is read from this one.
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._work)
            return
        if self._full:
            self.transport.pause_reading()
        elif not self.over:
            self.transport.resume_reading()

    def _answer_one(self) -> bool:
        """False: no whole message is left, or the connection is closed."""
        head = bytes(self._buffer[: self.conversation.head_nbytes])
        if len(head) < self.conversation.head_nbytes:
            return False
        try:
            end = self.conversation.nbytes(head)
        except MalformedError:
            self._server.malformed += 1
            log.warning("%s sent an invalid %s message; closing the connection", self.host, self._server.name)
            self._server.end(self)
            return False
        if len(self._buffer) < end:
            return False
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        self.since_s = time.monotonic()
        answer = self.conversation.answer(message)
        if answer is None:
            self._server.end(self)
            return False
        if answer:
            self.transport.write(answer)
        return True
