"""The adapter's sockets: sessions over TCP, discovery and cyclic data over UDP, with bounds on all of it.

Why not cpppo's server (5.2.5): GPL-3. Why not OpENer: C, and its assemblies are fixed memory that a stuck process
would leave as it is; here each is computed as it is read or sent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from typing import cast

from asperity.runtime.gateways.connection_limit import one_to_close
from asperity.runtime.gateways.ethernetip.assemblies import COMMAND, WRITE_STATUS
from asperity.runtime.gateways.ethernetip.cip import CipError
from asperity.runtime.gateways.ethernetip.connections import Connections, Cyclic
from asperity.runtime.gateways.ethernetip.encapsulation import (
    HEADER,
    Command,
    EncapsulationError,
    ItemType,
    data_nbytes,
    decode_message,
    encode_items,
    encode_services,
)
from asperity.runtime.gateways.ethernetip.objects import Identity, Objects
from asperity.runtime.gateways.ethernetip.router import Router
from asperity.runtime.gateways.ethernetip.session import Session
from asperity.runtime.gateways.ethernetip.settings import Ethernetip
from asperity.runtime.gateways.modbus.server import REQUESTS_PER_TURN, SEND_NBYTES, Registers
from asperity.runtime.gateways.process import hold_more

log = logging.getLogger("asperity.gateway")

DISCOVERIES_PER_S = 50
"""Datagrams of discovery that are answered; an answer is longer than its question, and goes where that says it is from.
"""
PORT_TRIES = 10


class EthernetIpServer:
    """Listens, and keeps at most ``connections_max`` clients. For one loop."""

    def __init__(self, registers: Registers, config: Ethernetip, station: str) -> None:
        self.config = config
        self.malformed = 0
        """Clients closed because what came was no EtherNet/IP."""
        identity = Identity.of(station, config.vendor_id)
        self.connections = Connections(config, identity)
        self.objects = Objects(
            registers, identity, config.idle_ms // 1000, self._owner, lambda: self.connections.status
        )
        self.router = Router(self.objects, self.connections, self._begin_cyclic)
        self.cyclic_port = 0
        self.opening = 0
        """The port that is being opened."""
        self._port = 0
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None
        self._discovery: asyncio.DatagramTransport | None = None
        self._cyclic: asyncio.DatagramTransport | None = None
        self._cyclic_protocol = _Datagrams(self.cyclic_came)
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._answered, self._second = 0, 0

    async def open(self) -> int:
        """Listen; the port. Raises OSError."""
        for left in reversed(range(PORT_TRIES)):
            try:
                await self._open()
                return self._port
            except OSError:
                self.close()
                # Any free port of TCP may be taken for UDP.
                if self.config.port or not left:
                    raise
        raise AssertionError

    async def _open(self) -> None:
        loop, config = asyncio.get_running_loop(), self.config
        self.opening = config.port
        self._server = await loop.create_server(
            lambda: _Client(self), config.host, config.port, backlog=config.connections_max
        )
        hold_more(self._server)
        self._port = int(self._server.sockets[0].getsockname()[1])
        self._discovery, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self.discovered), local_addr=(config.host, self._port)
        )
        if config.cyclic_max:
            self.opening = config.cyclic_port
            self._cyclic, _ = await loop.create_datagram_endpoint(
                lambda: self._cyclic_protocol, local_addr=(config.host, config.cyclic_port)
            )
            self.cyclic_port = int(self._cyclic.get_extra_info("sockname")[1])

    def admit(self, client: _Client) -> None:
        """A client came. When there are too many, one is closed, so that a controller that was switched off and on does
        not find its old connections in its way."""
        if len(self._clients) >= self.config.connections_max:
            least = one_to_close(self._clients)
            log.info(
                "too many EtherNet/IP clients: closing the connection from %s to make room for a new one; if all are "
                "needed, raise [ethernetip] connections_max", least.host,
            )  # fmt: skip
            self.end(least)
        self._clients.add(client)

    def end(self, client: _Client) -> None:
        """Close a connection at once; what was not sent is dropped, and its connections of requests end."""
        self._clients.discard(client)
        self.connections.end_session(client.session.number)
        client.ended = True
        client.transport.abort()

    def sweep(self) -> None:
        """End what is silent or slow; to be called now and then."""
        now_s = time.monotonic()
        for client in list(self._clients):
            if client.unfinished:
                waits_ms = self.config.request_ms
            elif self.connections.used_by(client.session.number, client.host):
                continue
            else:
                waits_ms = self.config.idle_ms
            if (now_s - client.since_s) * 1000 > waits_ms:
                self.end(client)
        for cyclic in self.connections.sweep(now_s):
            log.warning(
                "the cyclic connection of %s is closed: nothing came for %d ms", cyclic.host, cyclic.timeout_s * 1000
            )

    def close(self) -> None:
        """Listen no longer and end every connection."""
        if self._server is not None:
            self._server.close()
        for client in list(self._clients):
            self.end(client)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for transport in (self._discovery, self._cyclic):
            if transport is not None:
                transport.close()
        self._discovery = self._cyclic = None

    def list_identity(self, own_host: str) -> bytes:
        """The data of the answer to ListIdentity."""
        item = self.objects.identity.encode_item(own_host, self._port, self.connections.status)
        return encode_items([(ItemType.IDENTITY, item)])

    def list_services(self) -> bytes:
        """The data of the answer to ListServices."""
        return encode_services(cyclic=self._cyclic is not None)

    def discovered(self, data: bytes, peer: tuple[str, int]) -> None:
        """A datagram of discovery came."""
        now = int(time.monotonic())
        if now != self._second:
            self._answered, self._second = 0, now
        if self._answered >= DISCOVERIES_PER_S or self._discovery is None or len(data) < HEADER.size:
            return
        try:
            whole = len(data) == HEADER.size + data_nbytes(data)
        except EncapsulationError:
            return
        message = decode_message(data) if whole else None
        if message is None:
            return
        answers: dict[int, Callable[[], bytes]] = {
            Command.LIST_IDENTITY: lambda: self.list_identity(_own_host(self.config.host, peer)),
            Command.LIST_SERVICES: self.list_services,
            Command.LIST_INTERFACES: lambda: encode_items([]),
        }
        answer = answers.get(message.command)
        if answer is not None:
            self._answered += 1
            self._discovery.sendto(message.reply(answer()), peer)

    def cyclic_came(self, data: bytes, peer: tuple[str, int]) -> None:
        """A datagram of a controller came."""
        taken = self.connections.take(data, peer[0], time.monotonic())
        if taken is None:
            return
        cyclic, written = taken
        if written is None:
            if cyclic.consumed is not None and not cyclic.running:
                self.objects.idle()
            return
        before = self.objects.write_status
        try:
            self.objects.write_assembly(COMMAND, written, cyclic.host, cyclic=True)
        except CipError:
            if self.objects.write_status != before:
                name, meaning = WRITE_STATUS[self.objects.write_status]
                log.warning("the command assembly of %s is not done: %s, %s", cyclic.host, name, meaning)

    def _owner(self) -> str:
        owner = self.connections.owner
        return owner.host if owner is not None else ""

    def _begin_cyclic(self, cyclic: Cyclic) -> None:
        log.info(
            "a cyclic connection of %s: assembly %d every %d ms, closed after %d ms of silence", cyclic.host,
            cyclic.produced.instance, cyclic.interval_s * 1000, cyclic.timeout_s * 1000,
        )  # fmt: skip
        self._produce(cyclic, asyncio.get_running_loop().time())

    def _produce(self, cyclic: Cyclic, due_s: float) -> None:
        """Send what stands in the assembly now, and again after the interval, until the connection ends."""
        self._timers.pop(cyclic.ot_id, None)
        self.sweep()
        if self.connections.cyclic.get(cyclic.ot_id) is not cyclic or self._cyclic is None:
            return
        if not self._cyclic_protocol.full:
            datagram = cyclic.datagram(self.objects.read_assembly(cyclic.produced))
            self._cyclic.sendto(datagram, (cyclic.host, cyclic.port))
        loop = asyncio.get_running_loop()
        next_s = max(due_s + cyclic.interval_s, loop.time())
        self._timers[cyclic.ot_id] = loop.call_at(next_s, self._produce, cyclic, next_s)


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on."""

    def __init__(self, came: Callable[[bytes, tuple[str, int]], None]) -> None:
        self._came = came
        self.full = False
        """The system takes no more: what would be sent is old by the time it does."""

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._came(data, addr)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens where one was sent to: its connection ends by itself."""


class _Client(asyncio.Protocol):
    """One client."""

    transport: asyncio.Transport

    def __init__(self, server: EthernetIpServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._full = False
        self.session = Session(server, secrets.randbelow(0xFFFF_FFFF) + 1)
        self.ended = False
        self.asked = False
        self.since_s = time.monotonic()
        """When the last whole message came; while one is unfinished, when its first byte came."""
        self.host = ""

    @property
    def unfinished(self) -> bool:
        """Part of a message has come, or an answer waits for the client to read."""
        return bool(self._buffer) or self._full

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.host = str(peer[0]) if peer else "0.0.0.0"  # None where it is gone already
        self.session.host, self.session.own_host = self.host, str(own[0]) if own else "0.0.0.0"
        plain = transport.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_NBYTES)
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
        if len(self._buffer) < HEADER.size:
            return False
        try:
            end = HEADER.size + data_nbytes(bytes(self._buffer[: HEADER.size]))
        except EncapsulationError:
            # It claims more than any message has: where the next one would begin is not known.
            self._server.malformed += 1
            log.warning("%s sent an invalid EtherNet/IP message; closing the connection", self.host)
            self._server.end(self)
            return False
        if len(self._buffer) < end:
            return False
        message = decode_message(bytes(self._buffer[:end]))
        del self._buffer[:end]
        self.since_s = time.monotonic()
        if message is None:
            return True
        answer = self.session.answer(message, self.since_s)
        self.asked = self.asked or self.session.registered
        if answer is None:
            self._server.end(self)
            return False
        if answer:
            self.transport.write(answer)
        return True


def _own_host(host: str, peer: tuple[str, int]) -> str:
    """The address of ours by which ``peer`` reaches us."""
    if host != "0.0.0.0":
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(peer)
            return str(probe.getsockname()[0])
        except OSError:
            return host
