"""One connection of the OPC UA gateway: bounded in bytes, in requests per turn and in its share of the loop's time.

The library decodes and answers in the gateway's loop. So one request is begun per turn of the loop, and a connection
that takes more than its share of the loop's time waits before its next request is begun.
"""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

from asyncua import Server, ua
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import ServiceError
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol

from asperity.runtime.gateways.config import Opcua, Users
from asperity.runtime.gateways.connection_limit import one_to_close
from asperity.runtime.gateways.opcua.decoding import DECODING, Budget
from asperity.runtime.gateways.opcua.server import BoundedServer, Processor, peer_text
from asperity.runtime.gateways.process import hold_more

CHUNK_MAX_NBYTES, CHUNK_MIN_NBYTES = 65_535, 8192
"""What a chunk may have, and what a client must at least take (OPC 10000-6, 7.1.2)."""
OPEN_MAX_NBYTES = 16_384
"""Of a request to open a channel; each 256 bytes of it are a private operation of RSA."""
PENDING_PAUSE = 16
"""Requests of a connection that wait: beyond these no more is read, beyond ``PENDING_MAX`` it is closed."""
BURST_S = 0.1
"""Time of the loop that a connection may take before its share is asked for."""
ACCEPTED_PART = 4
"""A fourth of all connections may come between two turns of the loop, so that none is closed before it was heard."""
KINDS = (b"HEL", b"OPN", b"MSG", b"CLO", b"ERR")


@types.coroutine
def metered(coroutine: Coroutine[Any, Any, Any], spent: Callable[[float], None]) -> Generator[Any, Any, Any]:
    """Runs a coroutine and says what time of the processor each of its steps took, in s; what it waits for is free."""
    step, value = coroutine.send, None
    while True:
        began_s = time.thread_time()
        try:
            waits_for = step(value)
        except StopIteration as end:
            return end.value
        finally:
            spent(time.thread_time() - began_s)
        try:
            step, value = coroutine.send, (yield waits_for)
        except BaseException as error:  # noqa: BLE001 - a cancellation goes in, and comes out of the next step
            step, value = coroutine.throw, error


class Limits(TransportLimits):
    """Limits of one connection."""

    def create_acknowledge_and_set_limits(self, msg: ua.Hello) -> ua.Acknowledge:
        """As the library's. Raises ServiceError for a client that would take an answer byte by byte."""
        if min(msg.ReceiveBufferSize, msg.SendBufferSize) < CHUNK_MIN_NBYTES:
            raise ServiceError(ua.StatusCodes.BadTcpNotEnoughResources)
        return super().create_acknowledge_and_set_limits(msg)

    def update_client_limits(self, msg: ua.Acknowledge) -> None:
        """A server is sent no Acknowledge; the library would let it set the limits."""
        raise ServiceError(ua.StatusCodes.BadTcpMessageTypeInvalid)


class Connection(OPCUAProtocol):
    """One client."""

    iserver: BoundedServer
    processor: Processor | None

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.since_s = self._logged_in_s = time.monotonic()
        self._working = False
        self._budget = Budget(self.iserver.bounds.operations_max)
        self._busy_s = 0.0
        """Time of the loop that it took beyond its share, up to ``_seen_s``."""
        self._seen_s = time.monotonic()

    @property
    def host(self) -> str:
        return str(self.peer_name[0]) if isinstance(self.peer_name, tuple) else ""

    @property
    def logged_in(self) -> bool:
        session = self.processor.session if self.processor is not None else None
        return session is not None and session.is_activated()

    @property
    def asked(self) -> bool:
        """As ``crowd.Guest``: it is logged in, or it is our turn to answer. One that guesses passwords is neither."""
        if self.logged_in or self.processor is None:
            return self.logged_in
        return (self._working or not self.messages.empty()) and not self.processor.at_the_door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """If there are too many, a silent one that is not logged in is closed; otherwise this one is."""
        if len(self.clients) >= self.iserver.bounds.connections_max:
            self.peer_name = transport.get_extra_info("peername")
            other = one_to_close(cast("list[Connection]", self.clients))
            if other.asked:
                self.iserver.refuse(
                    "a connection", peer_text(self.peer_name), "all others are logged in or being served"
                )
                transport.abort()  # type: ignore[attr-defined]
                return
            other.end("another connection needs its slot")
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = Processor(self.iserver, transport, self.limits)
            self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]

    def end(self, why: str) -> None:
        """Close it at once; what was not sent is dropped."""
        if self in self.clients:
            self.clients.remove(self)
            self.iserver.refuse("a connection", peer_text(self.peer_name), why)
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """As the library's, which would buffer any length that a message claims."""
        super().data_received(data)
        self.since_s = time.monotonic()
        if self._buffer and not any(kind.startswith(self._buffer[:3]) for kind in KINDS):
            self.end("it does not send valid OPC UA")
        elif len(self._buffer) > CHUNK_MAX_NBYTES:
            self.end(f"a chunk has at most {CHUNK_MAX_NBYTES} bytes")
        elif self.messages.qsize() > PENDING_PAUSE and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    async def _activation_watchdog(self) -> None:
        """Closes the connection once it has not been logged in for ``handshake_ms``, however busy it was."""
        wait_s = self.iserver.bounds.handshake_ms / 1000
        while (left_s := self._logged_in_s + wait_s - time.monotonic()) > 0:
            await asyncio.sleep(min(left_s, wait_s / 4))
            if self.logged_in:
                self._logged_in_s = time.monotonic()
        self.end(f"it did not log in within {self.iserver.bounds.handshake_ms} ms")

    async def _process_received_message_loop(self) -> None:
        DECODING.set(self._budget)
        await super()._process_received_message_loop()

    async def _process_one_msg(self, header: Any, buf: Any) -> bool:
        """As the library's, in its turn; whatever fails here ends the connection."""
        self._working = True
        try:
            await asyncio.sleep(self._wait_s())
            async with self.iserver.turns[self.logged_in]:
                await asyncio.sleep(0)
            return await self._answer(header, buf)
        except Exception as error:  # noqa: BLE001 - the library says in many ways that what came is no OPC UA
            self.end(f"it does not send valid OPC UA ({type(error).__name__})")
            return False
        finally:
            self._working = False

    async def _answer(self, header: Any, buf: Any) -> bool:
        if header.MessageType == ua.MessageType.SecureOpen and header.packet_size > OPEN_MAX_NBYTES:
            self.end(f"a request to open a channel has at most {OPEN_MAX_NBYTES} bytes")
            return False
        self._budget.begin()
        going_on = bool(await metered(super()._process_one_msg(header, buf), self._spend))
        if not going_on and header.MessageType == ua.MessageType.SecureMessage:
            most = self.iserver.bounds.message_max_nbytes
            self.end(f"a request has at most {most} bytes, and the first requests open a session")
        if self.transport is None or self.transport.is_closing():
            return going_on
        if self.transport.get_write_buffer_size() > self.iserver.bounds.unread_max_nbytes:
            self.end("it does not read its responses")
            return False
        if self.messages.qsize() <= PENDING_PAUSE:
            self.transport.resume_reading()
        return going_on

    def _spend(self, took_s: float) -> None:
        self._busy_s += took_s

    def _wait_s(self) -> float:
        """How long its next request must wait, so that all connections together leave the loop its time."""
        now_s, share = time.monotonic(), self.iserver.bounds.busy_share / max(1, len(self.clients))
        self._busy_s = max(0.0, self._busy_s - (now_s - self._seen_s) * share)
        self._seen_s = now_s
        return max(0.0, self._busy_s - BURST_S) / share


class Listener(BinaryServer):
    """Listens for connections of ours."""

    def _make_protocol(self) -> OPCUAProtocol:
        return Connection(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)

    async def start(self) -> None:
        """As the library's, with a bound on what comes in one turn."""
        at_once = max(1, self.iserver.max_connections // ACCEPTED_PART)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._make_protocol, self.hostname, self.port, backlog=at_once)
        hold_more(server)
        self._server = server
        self.port = server.sockets[0].getsockname()[1]
        self.cleanup_task = asyncio.create_task(self._close_task_loop())


class GatewayServer(Server):
    """The library's, with a listener of ours."""

    def __init__(self, config: Opcua, accounts: Users) -> None:
        self.iserver: BoundedServer
        super().__init__(iserver=BoundedServer(config, accounts))
        most = config.message_max_nbytes
        self.limits = Limits(CHUNK_MAX_NBYTES, CHUNK_MAX_NBYTES, most // CHUNK_MIN_NBYTES + 1, most)

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await self._setup_server_nodes()
        await self.iserver.start()
        host, port = self._get_bind_socket_info()
        self.bserver = Listener(self.iserver, host or "", port or 0, self.limits)
        self.bserver.set_policies(self._policies)
        try:
            await self.bserver.start()
        except OSError:
            await self.iserver.stop()
            raise
