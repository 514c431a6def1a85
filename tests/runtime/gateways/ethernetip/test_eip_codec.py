"""Whatever bytes come, the codec of EtherNet/IP answers or refuses; it never raises anything else."""

from __future__ import annotations

import struct
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asperity.runtime.gateways.ethernetip import cip
from asperity.runtime.gateways.ethernetip import encapsulation as outer
from asperity.runtime.gateways.ethernetip.assemblies import (
    ACKNOWLEDGE,
    ALL,
    ASSEMBLIES,
    COMMAND,
    RESULT,
    STATE,
    Assembly,
    Place,
)
from asperity.runtime.gateways.ethernetip.connections import Connections, Origin
from asperity.runtime.gateways.ethernetip.objects import Identity, Objects
from asperity.runtime.gateways.ethernetip.router import Router
from asperity.runtime.gateways.ethernetip.session import Session
from asperity.runtime.gateways.ethernetip.settings import Ethernetip
from asperity.runtime.gateways.modbus.table import STATUS, STATUS_WORDS, WORDS, WRITES, Row, pack, words_of
from tests.runtime.gateways.ethernetip.eip_floor import decode, encode

ORIGIN = Origin("10.0.0.2", "10.0.0.1", 7, 2222)
BYTES = st.binary(max_size=120)


class Zeros:
    """Registers that hold nothing and take everything."""

    def read(self, address: int, count: int) -> bytes:
        return bytes(2 * count)

    def write(self, address: int, words: list[int], peer: str) -> None:
        pass


class Adapter:
    """A router with all that is behind it, and no socket."""

    def __init__(self) -> None:
        config = Ethernetip()
        identity = Identity.of("st1", config.vendor_id)
        self.connections = Connections(config, identity)
        self.objects = Objects(Zeros(), identity, 60, lambda: "", lambda: 0)
        self.router = Router(self.objects, self.connections, lambda cyclic: None)
        self.cyclic_port = 5555

    def list_identity(self, own_host: str) -> bytes:
        return self.objects.identity.encode_item(own_host, 44818, 0)

    def list_services(self) -> bytes:
        return outer.encode_services(cyclic=True)


def segments() -> st.SearchStrategy[bytes]:
    """Pieces of paths, most of them sound."""
    class_id = st.sampled_from([1, 2, 4, 6, 0xF5, 0xF6, 99])
    number = st.one_of(st.sampled_from([0, 1, 3, 100, 101, 102, 150, 151, 254]), st.integers(0, 255))
    return st.one_of(
        st.builds(lambda n: bytes([0x20, n]), class_id),
        st.builds(lambda kind, n: bytes([kind, n]), st.sampled_from([0x24, 0x2C, 0x30, 0x28, 0x01]), number),
        st.builds(lambda n: struct.pack("<BBH", 0x25, 0, n), st.integers(0, 0xFFFF)),
        st.just(bytes.fromhex("3404000000000000 0000")),
        st.binary(min_size=2, max_size=2),
    )


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request of the right form, with any path and data; some hold others."""
    path = b"".join(draw(st.lists(segments(), max_size=6)))
    path += bytes(len(path) % 2)
    service = draw(st.one_of(st.sampled_from([int(each) for each in cip.Service]), st.integers(0, 255)))
    data = draw(st.one_of(BYTES, st.sampled_from([bytes(n) for n in (0, 2, 20, 36, 40)])))
    return bytes([service, len(path) // 2]) + path + data


def check(reply: bytes, request: bytes) -> None:
    assert reply[0] == (request[0] if request else 0) | 0x80 and len(reply) >= 4 + 2 * reply[3]


@given(BYTES)
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_items_or_an_error_of_the_outer_layer(data: bytes) -> None:
    for reads in (outer.decode_items, outer.decode_send_data, outer.decode_cyclic, outer.decode_port):
        try:
            reads(data)
        except outer.EncapsulationError as error:
            assert error.status is not outer.Status.OK


@given(st.one_of(BYTES, requests()), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_any_request_has_an_answer_of_its_service(request: bytes, cut: int) -> None:
    router = Adapter().router
    for body in (request, request[:cut]):
        check(router.unconnected(body, ORIGIN, 0.0), body)
        check(router.connected(body, ORIGIN, 0.0), body)
    routed = struct.pack("<BBH", 5, 9, len(request)) + request + bytes(len(request) % 2) + b"\x01\x00\x01\x00"
    for service, data in ((0x52, routed), (0x0A, struct.pack("<HH", 1, 4) + request)):
        body = bytes([service, 2, 0x20, 6 if service == 0x52 else 2, 0x24, 1]) + data
        reply = router.unconnected(body, ORIGIN, 0.0)
        assert len(reply) >= 4


@given(BYTES, st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_open_no_connection_or_one_that_was_asked_for(data: bytes, large: bool) -> None:
    adapter = Adapter()
    try:
        asked = cip.decode_forward_open(data, large=large)
        adapter.connections.open(asked, ORIGIN, 0.0)
    except cip.CipError as error:
        assert error.status is not cip.General.OK
        assert not adapter.connections.requests and not adapter.connections.cyclic


@given(st.sampled_from([int(each) for each in outer.Command]), BYTES, st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_message_of_a_session_is_answered_ignored_or_ends_it(command: int, data: bytes, registered: bool) -> None:
    session = Session(Adapter(), 9)
    session.registered = registered
    message = outer.Message(command, 9, bytes(8), data)
    answer = session.answer(message, 0.0)
    assert answer is None or answer == b"" or len(answer) == outer.HEADER.size + outer.data_nbytes(answer)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=outer.ITEMS_MAX))
@settings(max_examples=50, deadline=None)
def test_items_and_several_requests_are_read_as_they_were_written(items: list[outer.Item]) -> None:
    assert outer.decode_items(outer.encode_items(items)) == items
    bodies = [body + b"\x00" for _, body in items]
    if bodies:
        assert cip.decode_several(cip.encode_several(bodies)) == bodies


def test_no_length_is_believed_before_it_is_bounded() -> None:
    with pytest.raises(outer.EncapsulationError):
        outer.data_nbytes(outer.HEADER.pack(0x6F, outer.DATA_MAX_NBYTES + 1, 0, 0, bytes(8), 0))
    with pytest.raises(outer.EncapsulationError):
        outer.decode_items(struct.pack("<H", 0xFFFF) + bytes(400))
    with pytest.raises(cip.CipError):
        cip.decode_several(struct.pack("<H", cip.REQUESTS_MAX + 1) + bytes(400))
    with pytest.raises(cip.CipError):
        cip.decode_path(bytes([0x20, 4] * (cip.PATH_MAX_NBYTES // 2 + 1)))


def test_assemblies_are_the_modbus_table_in_another_order_of_bytes() -> None:
    """The same fields in the same places, so that one description serves both."""
    assert [(place.row, place.offset) for place in ALL.places][: len(STATUS)] == [
        (row, 2 * row.address) for row in STATUS
    ]
    assert [(place.row, place.offset) for place in COMMAND.places] == [
        (row, 2 * (row.address - WRITES[0].address)) for row in WRITES
    ]
    assert ALL.nbytes >= 2 * STATUS_WORDS and COMMAND.nbytes >= 2 * words_of(WRITES)
    names = {row.name for row in STATUS}
    assert {row.name for row in (*RESULT.rows, *STATE.rows)} == names | {"write_status"}
    for assembly in ASSEMBLIES.values():
        assert all(place.offset % (4 if place.row.kind != "u16" else 2) == 0 for place in assembly.places)
        assert assembly.nbytes % 4 == 0 or assembly is ACKNOWLEDGE


def test_numbers_are_little_endian_and_come_back() -> None:
    values: dict[str, int | float] = dict.fromkeys((row.name for row in ALL.rows), 0)
    values |= {"accept": 1, "result_no": 0x01020304, "score": 0.25}
    data = encode(ALL, values)
    assert data[2:4] == b"\x01\x00" and data[16:20] == b"\x04\x03\x02\x01" and data[32:36] == struct.pack("<f", 0.25)
    assert ALL.from_registers(pack(ALL.rows, values)) == data and decode(ALL, data) == values
    asked = {row.name: number for number, row in enumerate(COMMAND.rows, start=300)}
    assert COMMAND.to_registers(encode(COMMAND, dict(asked))) == pack(WRITES, asked)


def test_a_text_has_a_length_of_four_bytes_and_keeps_its_letters_in_order() -> None:
    row = Row("id", 7, "text4", "rw", "")  # type: ignore[arg-type]
    with patch.dict(WORDS, {"text4": 3}):
        assembly = Assembly(1, "", "", (row,), (Place(row, 0),), writable=True)
        registers = b"\x00\x03abc\x00"
        assert assembly.from_registers(registers) == b"\x03\x00\x00\x00abc\x00"
        assert assembly.to_registers(b"\x03\x00\x00\x00abc\x00") == registers
        assert assembly.to_registers(b"\x03\x00\x01\x00abc\x00") is None


def test_a_host_name_that_is_not_utf8_costs_nobody_the_adapter() -> None:
    with patch("socket.gethostname", return_value="pr\udcfcf"):
        assert Identity.of("st1", 0).serial != Identity.of("st2", 0).serial
