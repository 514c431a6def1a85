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
from asperity.runtime.gateways.modbus.server import Registers
from asperity.runtime.gateways.tcp_server import MalformedError, TcpServer

log = logging.getLogger("asperity.gateway")

DISCOVERIES_PER_S = 50
"""Datagrams of discovery that are answered; an answer is longer than its question, and goes where that says it is from.
"""
PORT_TRIES = 10


class EthernetIpServer:
    """Listens, and keeps at most ``connections_max`` clients. For one loop."""

    def __init__(self, registers: Registers, config: Ethernetip, station: str) -> None:
        self.config = config
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
        self._tcp = TcpServer(
            config, "ethernetip", "EtherNet/IP", lambda host, own_host: _Conversation(self, host, own_host)
        )
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
        self._port = await self._tcp.open()
        self._discovery, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self.discovered), local_addr=(config.host, self._port)
        )
        if config.cyclic_max:
            self.opening = config.cyclic_port
            self._cyclic, _ = await loop.create_datagram_endpoint(
                lambda: self._cyclic_protocol, local_addr=(config.host, config.cyclic_port)
            )
            self.cyclic_port = int(self._cyclic.get_extra_info("sockname")[1])

    def sweep(self) -> None:
        """End what is silent or slow; to be called now and then."""
        self._tcp.sweep()
        for cyclic in self.connections.sweep(time.monotonic()):
            log.warning(
                "the cyclic connection of %s is closed: nothing came for %d ms", cyclic.host, cyclic.timeout_s * 1000
            )

    def close(self) -> None:
        """Listen no longer and end every connection."""
        self._tcp.close()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for transport in (self._discovery, self._cyclic):
            if transport is not None:
                transport.close()
        self._discovery = self._cyclic = None

    @property
    def malformed(self) -> int:
        """As ``TcpServer.malformed``."""
        return self._tcp.malformed

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


class _Conversation:
    """One client."""

    head_nbytes = HEADER.size

    def __init__(self, server: EthernetIpServer, host: str, own_host: str) -> None:
        self._connections = server.connections
        self._session = Session(server, secrets.randbelow(0xFFFF_FFFF) + 1)
        self._session.host, self._session.own_host = host, own_host

    @property
    def asked(self) -> bool:
        """It has registered a session."""
        return self._session.registered

    @property
    def in_use(self) -> bool:
        """It has an open connection, which ends by its own timeout."""
        return self._connections.used_by(self._session.number, self._session.host)

    def nbytes(self, head: bytes) -> int:
        """As ``Conversation.nbytes``."""
        try:
            return HEADER.size + data_nbytes(head)
        except EncapsulationError:
            raise MalformedError from None

    def answer(self, message: bytes) -> bytes | None:
        """As ``Conversation.answer``."""
        decoded = decode_message(message)
        return b"" if decoded is None else self._session.answer(decoded, time.monotonic())

    def ended(self) -> None:
        """Its connections of requests end with it."""
        self._connections.end_session(self._session.number)


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
