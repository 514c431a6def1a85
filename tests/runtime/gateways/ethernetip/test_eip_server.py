"""The adapter's sockets under clients that send rubbish, too much, or nothing."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest

from asperity.runtime.errors import GatewayError
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.ethernetip.encapsulation import HEADER, Command
from asperity.runtime.gateways.ethernetip.gateway import EthernetIpGateway
from asperity.runtime.gateways.ethernetip.server import DISCOVERIES_PER_S
from asperity.runtime.gateways.ethernetip.settings import Ethernetip
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.ethernetip.eip_floor import Floor
from tests.runtime.gateways.floor import FakeLink, open_files, result, until

NewFloor = Callable[..., Floor]
TOO_LONG = HEADER.pack(Command.SEND_RR_DATA, 0xFFFF, 0, 0, bytes(8), 0)


def message(command: int, data: bytes = b"", session: int = 0) -> bytes:
    return HEADER.pack(command, len(data), session, 0, b"context!", 0) + data


def status(plain: socket.socket) -> int:
    head = plain.recv(HEADER.size, socket.MSG_WAITALL)
    command, nbytes, _, said, context, _ = HEADER.unpack(head)
    assert context == b"context!" and command
    plain.recv(nbytes, socket.MSG_WAITALL)
    return int(said)


def test_a_message_that_claims_too_much_costs_its_sender_the_connection_and_nobody_else(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect(True)
    floor.show(result(1))
    for rubbish in (TOO_LONG, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 300):
        plain = floor.raw()
        plain.sendall(rubbish)
        assert plain.recv(1) == b"", "the connection is still open"
        assert controller.read()["result_no"] == 1
    assert floor.server.malformed == 3


def test_messages_out_of_turn_are_answered_with_their_status(new_floor: NewFloor) -> None:
    plain = new_floor().raw()
    for sent, expected in (
        (message(Command.SEND_RR_DATA, bytes(16)), 0x64),
        (message(0x72), 0x01),
        (message(Command.REGISTER_SESSION, bytes(2)), 0x65),
        (message(Command.REGISTER_SESSION, struct.pack("<HH", 9, 0)), 0x69),
        (message(Command.REGISTER_SESSION, struct.pack("<HH", 1, 0)), 0),
        (message(Command.REGISTER_SESSION, struct.pack("<HH", 1, 0)), 0x01),
        (message(Command.SEND_RR_DATA, bytes(16), session=1), 0x64),
        (message(Command.LIST_SERVICES), 0),
        (message(Command.LIST_INTERFACES), 0),
    ):
        plain.sendall(message(Command.NOP) + sent)
        assert status(plain) == expected
    plain.sendall(message(Command.UNREGISTER_SESSION))
    assert plain.recv(1) == b""


def test_many_messages_at_once_are_answered_in_order_and_half_ones_wait(new_floor: NewFloor) -> None:
    plain = new_floor().raw()
    plain.sendall(message(Command.LIST_SERVICES) * 40 + message(Command.LIST_IDENTITY)[:9])
    assert [status(plain) for _ in range(40)] == [0] * 40
    plain.sendall(message(Command.LIST_IDENTITY)[9:])
    assert status(plain) == 0


def test_who_is_silent_or_slow_is_closed_and_nothing_is_left_open(new_floor: NewFloor) -> None:
    floor = new_floor(fresh=True, idle_ms=1000, request_ms=100)
    before = open_files()
    half, silent = floor.raw(), floor.raw()
    half.sendall(message(Command.LIST_IDENTITY)[:10])

    def closed(plain: socket.socket) -> bool:
        floor.loop.call(floor.server.sweep)
        plain.settimeout(0.01)
        try:
            return plain.recv(1) == b""
        except TimeoutError:
            return False

    until(lambda: closed(half), "the end of the half message")
    until(lambda: closed(silent), "the end of the silent one")
    half.close()
    silent.close()
    until(lambda: open_files() <= before, "its files closed")


def test_a_connection_of_requests_ends_with_its_session(new_floor: NewFloor) -> None:
    floor = new_floor()
    controller = floor.connect(True)
    controller.read()
    assert floor.loop.call(lambda: len(floor.server.connections.requests)) == 1
    controller.driver._sock.sock.close()
    until(lambda: not floor.loop.call(lambda: floor.server.connections.requests), "the end of the connection")


def test_a_port_that_is_taken_is_named_whichever_it_is(new_floor: NewFloor) -> None:
    taken = new_floor()
    for port, cyclic_port in ((taken.port, 0), (0, taken.server.cyclic_port)):
        own = Ethernetip(port=port, cyclic_port=cyclic_port)
        gateway = EthernetIpGateway(GatewayConfig(ethernetip=own), FakeLink())  # type: ignore[arg-type]
        with pytest.raises(GatewayError, match=f"port {port or cyclic_port} is in use; is another gateway running"):
            taken.loop.run(gateway.open())
        taken.loop.run(gateway.close())


def test_discovery_answers_what_is_asked_and_not_without_bound(new_floor: NewFloor) -> None:
    floor = new_floor()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(PATIENCE_S)
        asker.connect(("127.0.0.1", floor.port))
        for rubbish in (b"", b"x", TOO_LONG, message(Command.SEND_RR_DATA, bytes(16)), bytes(500)):
            asker.send(rubbish)
        for command, words in ((Command.LIST_IDENTITY, b"Asperity st1"), (Command.LIST_SERVICES, b"Communications")):
            asker.send(message(command))
            assert words in asker.recv(500)

    async def flood() -> int:
        for _ in range(4 * DISCOVERIES_PER_S):
            floor.server.discovered(message(Command.LIST_IDENTITY), ("127.0.0.1", 9))
        return floor.server._answered

    assert floor.loop.run(flood()) <= DISCOVERIES_PER_S
