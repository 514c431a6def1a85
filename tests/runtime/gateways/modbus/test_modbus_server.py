"""The Modbus server against clients that ask for what is not there, send garbage, fall silent or come in crowds."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.server import ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, answer
from asperity.runtime.gateways.modbus.table import STATUS_WORDS, TABLE_VERSION
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import FakeLink, Loop, floors, looping, open_files, result, until
from tests.runtime.gateways.modbus.modbus_floor import Floor


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


@pytest.fixture
def make(loop: Loop) -> Iterator[Callable[..., Floor]]:
    with floors(Floor, loop) as make:
        yield make


@pytest.fixture
def floor(make: Callable[..., Floor]) -> Floor:
    return make()


@pytest.mark.parametrize(
    ("address", "words", "code"),
    [
        (0, [1], ILLEGAL_ADDRESS),  # accept and its neighbours are read only
        (1, [1], ILLEGAL_ADDRESS),
        (45, [0] * 60, ILLEGAL_ADDRESS),
        (99, [0, 0], ILLEGAL_ADDRESS),
        (108, [0, 0], ILLEGAL_ADDRESS),
        (109, [0], ILLEGAL_ADDRESS),
        (0xFFFF, [0], ILLEGAL_ADDRESS),
        (101, [10], ILLEGAL_VALUE),  # no such command
        (101, [0xFFFF], ILLEGAL_VALUE),
        (102, [3], ILLEGAL_VALUE),  # no such recipe
        (103, [0], ILLEGAL_VALUE),  # no time at all
        (104, [1], ILLEGAL_VALUE),  # half a number
        (105, [1], ILLEGAL_VALUE),
        (105, [1, 1, 1], ILLEGAL_VALUE),
        (106, [1], ILLEGAL_VALUE),
        (108, [3], ILLEGAL_VALUE),  # no such recipe
        (100, [2, 1, 1, 500, 0, 7, 0, 0, 3], ILLEGAL_VALUE),  # one wrong value: none of the others acts
    ],
)
def test_an_illegal_write_is_an_exception_and_does_nothing(
    floor: Floor, address: int, words: list[int], code: int
) -> None:
    floor.show(result(1))
    before = floor.client.read_holding_registers(100, count=9).registers
    many = floor.client.write_registers(address, words)
    assert many.isError() and many.exception_code == code
    if len(words) == 1:
        single = floor.client.write_register(address, words[0])
        assert single.isError() and single.exception_code == code
    assert floor.client.read_holding_registers(100, count=9).registers == before
    assert floor.read()["result_valid"] == 2 and floor.link.asked == []


def test_reads_beyond_the_table_and_unknown_functions_are_exceptions(floor: Floor) -> None:
    client = floor.client
    for address, count in ((STATUS_WORDS, 1), (0, STATUS_WORDS + 1), (40, 70), (99, 1), (108, 2), (65535, 1)):
        assert client.read_holding_registers(address, count=count).exception_code == ILLEGAL_ADDRESS, address
    for answered in (
        client.read_coils(0, count=1),
        client.read_discrete_inputs(0, count=1),
        client.write_coil(0, True),
        client.readwrite_registers(read_address=0, read_count=1, write_address=100, values=[1]),
        client.mask_write_register(address=100),
    ):
        assert answered.isError() and answered.exception_code == ILLEGAL_FUNCTION
    assert floor.read()["table_version"] == TABLE_VERSION, "the connection goes on"


def ask(plain: socket.socket, *pdus: bytes) -> list[bytes]:
    """Send all at once; their answers in order, each checked against the transaction it belongs to."""
    plain.sendall(b"".join(struct.pack(">HHHB", 500 + i, 0, len(pdu) + 1, 9) + pdu for i, pdu in enumerate(pdus)))
    answers = []
    for i in range(len(pdus)):
        transaction, protocol, nbytes, unit = struct.unpack(">HHHB", exactly(plain, 7))
        assert (transaction, protocol, unit) == (500 + i, 0, 9)
        answers.append(exactly(plain, nbytes - 1))
    return answers


def exactly(plain: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = plain.recv(count - len(data))
        assert chunk, "the connection was closed"
        data += chunk
    return data


def closed(plain: socket.socket) -> bool:
    try:
        return plain.recv(65536) == b""
    except ConnectionError:
        return True


def test_requests_sent_together_are_answered_each_in_order(floor: Floor) -> None:
    plain = floor.raw()
    read = struct.pack(">BHH", 3, 0, 2)
    answers = ask(plain, *[read] * 200)
    assert answers == [bytes([3, 4, 0, 7, 0, 0])] * 200
    plain.sendall(struct.pack(">HHHB", 1, 0, 6, 1) + read[:2])
    time.sleep(0.01)
    plain.sendall(read[2:])
    assert exactly(plain, 13)[7:] == answers[0], "a request in two pieces"


@pytest.mark.parametrize(
    "pdu",
    [
        struct.pack(">BHH", 3, 0, 0),
        struct.pack(">BHH", 3, 0, 126),
        struct.pack(">BHH", 4, 0, 0xFFFF),
        struct.pack(">BHHB", 16, 100, 0, 0),
        struct.pack(">BHHBH", 16, 100, 2, 4, 1),
        struct.pack(">BHHBHH", 16, 100, 1, 2, 1, 1),
        struct.pack(">BHHB", 16, 100, 124, 248) + bytes(246),
        b"\x03",
        b"\x06\x00\x64",
        struct.pack(">BHHH", 6, 101, 1, 1),
    ],
)
def test_a_request_that_contradicts_itself_is_an_illegal_value(floor: Floor, pdu: bytes) -> None:
    assert ask(floor.raw(), pdu) == [bytes([pdu[0] | 0x80, ILLEGAL_VALUE])]
    assert floor.link.asked == []


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b"\x00\x01\x00\x00\xff\xff\x01", bytes(7)]
)
def test_garbage_costs_its_sender_the_connection_and_nobody_else(floor: Floor, garbage: bytes) -> None:
    plain = floor.raw()
    plain.sendall(garbage)
    assert closed(plain)
    assert floor.server.malformed == 1
    assert floor.read()["table_version"] == TABLE_VERSION


@settings(deadline=None)
@given(pdu=st.binary(min_size=1, max_size=252))
def test_any_request_has_an_answer_that_fits_and_reading_changes_nothing(pdu: bytes) -> None:
    link = FakeLink()
    link.put(result(1))
    registers = ModbusRegisters(GatewayConfig(), link)  # type: ignore[arg-type]
    answered = answer(registers, pdu, "10.0.0.7")
    assert 2 <= len(answered) <= 253
    assert answered[0] in (pdu[0], pdu[0] | 0x80)
    if answered[0] != pdu[0] or pdu[0] in (3, 4):
        assert link.asked == []
        assert answer(registers, struct.pack(">BHH", 3, 4, 1), "") == b"\x03\x02\x00\x02"


def test_one_client_too_many_closes_one_that_asked_nothing_else_the_silent_one(make: Callable[..., Floor]) -> None:
    floor = make(connections_max=3)
    floor.read()
    other = floor.connect()
    floor.read(other)
    mute = floor.raw()  # came last, but never asks
    third = floor.connect()
    floor.read(third)
    assert closed(mute)
    floor.read()
    floor.read(other)
    fourth = floor.connect()
    floor.read(fourth)
    assert third.socket is not None and closed(third.socket), "silent longest"
    floor.read(other)
    floor.read()


def sweeping(floor: Floor, condition: Callable[[], bool], what: str) -> None:
    """Waits as the gateway's loop would: looking after its connections meanwhile."""

    def swept() -> bool:
        floor.loop.call(floor.server.sweep)
        return condition()

    until(swept, what)


def clients(floor: Floor) -> int:
    return floor.server.connections


def test_a_silent_client_is_closed(make: Callable[..., Floor]) -> None:
    floor = make(idle_ms=200)
    silent = floor.raw()
    until(lambda: clients(floor) == 2, "both")
    sweeping(floor, lambda: clients(floor) == 0, "the end of both")
    assert closed(silent)
    assert floor.read(floor.connect())["table_version"] == TABLE_VERSION


def test_who_does_not_finish_a_request_is_closed_and_others_stay(make: Callable[..., Floor]) -> None:
    floor = make(request_ms=100)
    slow, silent = floor.raw(), floor.raw()
    until(lambda: clients(floor) == 3, "both")
    slow.sendall(b"\x00\x01\x00")
    sweeping(floor, lambda: clients(floor) == 2, "the end of the slow one")
    assert closed(slow)
    assert ask(silent, struct.pack(">BHH", 3, 43, 1)) == [bytes([3, 2, 0, TABLE_VERSION])]
    assert floor.read()["table_version"] == TABLE_VERSION


def test_who_asks_without_end_and_never_reads_is_closed_and_others_stay(make: Callable[..., Floor]) -> None:
    floor = make(request_ms=100)
    greedy = socket.socket()
    greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    greedy.connect(("127.0.0.1", floor.port))
    until(lambda: clients(floor) == 2, "the greedy one")
    greedy.setblocking(False)
    request = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, STATUS_WORDS) * 1000

    def gone() -> bool:
        with suppress(OSError):
            greedy.send(request)
        return clients(floor) == 1

    sweeping(floor, gone, "the end of the greedy one")
    greedy.close()
    assert floor.read()["table_version"] == TABLE_VERSION


def test_a_thousand_reconnections_leave_nothing_behind(floor: Floor) -> None:
    floor.show(result(1))
    before = open_files()
    for turn in range(1000):
        with socket.create_connection(("127.0.0.1", floor.port), timeout=PATIENCE_S) as plain:
            if turn % 3 == 0:
                assert ask(plain, struct.pack(">BHH", 3, 1, 1)) == [b"\x03\x02\x00\x01"]
            elif turn % 3 == 1:
                plain.sendall(b"\x00\x01\x00\x00\x00")
    until(lambda: open_files() <= before + 4, "the end of old connections")
    assert floor.read()["accept"] == 1, "the client from before is still there"
