"""One client's session: what it registers, and what it sends through it. Pure but for what the server answers."""

from __future__ import annotations

import struct
from typing import Protocol

from asperity.runtime.gateways.ethernetip.connections import Connections, Origin
from asperity.runtime.gateways.ethernetip.encapsulation import (
    PROTOCOL_VERSION,
    Command,
    EncapsulationError,
    ItemType,
    Message,
    Status,
    decode_port,
    decode_send_data,
    encode_address,
    encode_items,
    encode_send_data,
)
from asperity.runtime.gateways.ethernetip.router import Router

CYCLIC_PORT = 2222
"""Where a controller expects cyclic data, and where it sends them, unless something else was agreed."""


class Adapter(Protocol):
    """What a session needs of the server."""

    router: Router
    connections: Connections
    cyclic_port: int

    def list_identity(self, own_host: str) -> bytes:
        """The data of the answer to ListIdentity."""

    def list_services(self) -> bytes:
        """The data of the answer to ListServices."""


class Session:
    """Of one TCP connection."""

    def __init__(self, adapter: Adapter, number: int) -> None:
        self.number = number
        self.registered = False
        self.host = self.own_host = "0.0.0.0"
        self._adapter = adapter

    def answer(self, message: Message, now_s: float) -> bytes | None:
        """What to send; empty: nothing; None: close the connection."""
        if message.command == Command.UNREGISTER_SESSION:
            return None
        if message.command == Command.NOP:
            return b""
        try:
            return self._answer(message, now_s)
        except EncapsulationError as error:
            return message.reply(status=error.status)

    def _answer(self, message: Message, now_s: float) -> bytes:
        command = message.command
        if command == Command.LIST_IDENTITY:
            return message.reply(self._adapter.list_identity(self.own_host))
        if command == Command.LIST_SERVICES:
            return message.reply(self._adapter.list_services())
        if command == Command.LIST_INTERFACES:
            return message.reply(encode_items([]))
        if command == Command.REGISTER_SESSION:
            return self._register(message)
        if command not in (Command.SEND_RR_DATA, Command.SEND_UNIT_DATA):
            raise EncapsulationError(Status.INVALID_COMMAND)
        if not self.registered or message.session != self.number:
            raise EncapsulationError(Status.INVALID_SESSION)
        if command == Command.SEND_RR_DATA:
            return self._unconnected(message, now_s)
        return self._connected(message, now_s)

    def _register(self, message: Message) -> bytes:
        if len(message.data) != 4:
            raise EncapsulationError(Status.INVALID_LENGTH)
        version, options = struct.unpack("<HH", message.data)
        if version != PROTOCOL_VERSION or options:
            raise EncapsulationError(Status.UNSUPPORTED_VERSION)
        if self.registered:
            raise EncapsulationError(Status.INVALID_COMMAND)
        self.registered = True
        return message.reply(message.data, session=self.number)

    def _unconnected(self, message: Message, now_s: float) -> bytes:
        (address, nothing), (kind, body), *others = decode_send_data(message.data)
        if (address, nothing, kind) != (ItemType.NULL_ADDRESS, b"", ItemType.UNCONNECTED_DATA):
            raise EncapsulationError(Status.INCORRECT_DATA)
        port = next((decode_port(data) for other, data in others if other == ItemType.TARGET_SENDS_TO), CYCLIC_PORT)
        cyclic_before = len(self._adapter.connections.cyclic)
        reply = self._adapter.router.unconnected(body, self._origin(port), now_s)
        items = [(int(ItemType.NULL_ADDRESS), b""), (int(ItemType.UNCONNECTED_DATA), reply)]
        own_port = self._adapter.cyclic_port
        if len(self._adapter.connections.cyclic) > cyclic_before and own_port != CYCLIC_PORT:
            items.append((ItemType.ORIGINATOR_SENDS_TO, encode_address(self.own_host, own_port)))
        return message.reply(encode_send_data(items))

    def _connected(self, message: Message, now_s: float) -> bytes:
        (address, ot_id), (kind, body), *_ = decode_send_data(message.data)
        if (address, len(ot_id), kind) != (ItemType.CONNECTION_ADDRESS, 4, ItemType.CONNECTED_DATA) or len(body) < 2:
            raise EncapsulationError(Status.INCORRECT_DATA)
        connection = self._adapter.connections.requests.get(int.from_bytes(ot_id, "little"))
        if connection is None or connection.session != self.number:
            return b""  # as to any message over a connection that is not open: no answer
        # A message with the count of the last one is answered anew, not with the last answer: for a client that never
        # counts that would be an old accept. What a write asks for is done once in any case, as it acts on changes.
        reply = self._adapter.router.connected(body[2:], self._origin(CYCLIC_PORT), now_s)
        connection.heard(now_s)
        to_id = connection.to_id.to_bytes(4, "little")
        return message.reply(
            encode_send_data([(ItemType.CONNECTION_ADDRESS, to_id), (ItemType.CONNECTED_DATA, body[:2] + reply)])
        )

    def _origin(self, cyclic_port: int) -> Origin:
        return Origin(self.host, self.own_host, self.number, cyclic_port)
