"""The Modbus gateway against a client that others wrote (pymodbus), on a link that says what the test wants."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.client import ModbusTcpClient

from runtime.errors import WireError
from runtime.frame import Verdict
from runtime.gateways.config import Gateway, GatewayConfig, Modbus
from runtime.gateways.modbus import ModbusRegisters
from runtime.gateways.modbus_server import BUSY, ILLEGAL_ADDRESS, ILLEGAL_FUNCTION, ILLEGAL_VALUE, ModbusServer, answer
from runtime.gateways.modbus_table import STATUS, STATUS_OF_CODE, STATUS_WORDS, WRITES, unpack
from runtime.ordering import Gap
from tests.gateways.floor import NO_ANSWER, FakeLink, Loop, looping, open_files, reply, result, until
from tests.system.line import PATIENCE_S

ADDRESS = {row.name: row.address for row in WRITES}
RECIPES = {"1": "bracket", "7": "lid"}


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    with looping() as loop:
        yield loop


class Floor:
    """A server in the loop, its link, and clients that end with the test."""

    def __init__(self, loop: Loop, commands: bool = True, **modbus: Any) -> None:
        self.config = GatewayConfig(
            gateway=Gateway(commands=commands), modbus=Modbus(port=0, **{"recipes": RECIPES, **modbus})
        )
        self.loop, self.link = loop, FakeLink()
        self.server = ModbusServer(ModbusRegisters(self.config, self.link), self.config.modbus)  # type: ignore[arg-type]
        self.port = loop.run(self.server.open())
        self._closes: list[Callable[[], object]] = []
        self.client = self.connect()

    def connect(self) -> ModbusTcpClient:
        client = ModbusTcpClient("127.0.0.1", port=self.port, timeout=PATIENCE_S, retries=0)
        assert client.connect()
        self._closes.append(client.close)
        return client

    def raw(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        self._closes.append(plain.close)
        return plain

    def read(self, client: ModbusTcpClient | None = None) -> dict[str, int | float]:
        answered = (client or self.client).read_holding_registers(0, count=STATUS_WORDS)
        assert not answered.isError(), answered
        return unpack(STATUS, b"".join(word.to_bytes(2, "big") for word in answered.registers))

    def write(self, name: str, *words: int) -> int:
        """0, or the code of the exception."""
        if len(words) == 1:
            answered = self.client.write_register(ADDRESS[name], words[0])
        else:
            answered = self.client.write_registers(ADDRESS[name], list(words))
        return int(answered.exception_code) if answered.isError() else 0

    def show(self, *items: Any) -> None:
        self.loop.call(lambda: self.link.put(*items))

    def close(self) -> None:
        for close in self._closes:
            close()
        self.loop.call(self.server.close)


@pytest.fixture
def make(loop: Loop) -> Iterator[Callable[..., Floor]]:
    made: list[Floor] = []

    def new(**options: Any) -> Floor:
        made.append(Floor(loop, **options))
        return made[-1]

    yield new
    for floor in made:
        floor.close()


@pytest.fixture
def floor(make: Callable[..., Floor]) -> Floor:
    return make()


def test_before_the_first_news_everything_is_0(floor: Floor) -> None:
    floor.link.state, floor.link.good = None, False
    values = floor.read()
    assert {name for name, value in values.items() if value} == {"table_version"}


def test_a_result_is_shown_whole_and_function_code_4_shows_the_same(floor: Floor) -> None:
    floor.show(result(65_600, part_id="1234", trigger_id=9, latency_us={"total": 43_000}))
    values = floor.read()
    expected = {
        "beat": 7, "accept": 1, "quality": 1, "state": 8, "result_valid": 66, "verdict": 1, "reason": 1, "waiting": 1,
        "result_no": 65_600, "seq": 65_700, "trigger_id": 9, "part_number": 1234, "score": 0.25, "threshold": 0.5,
        "latency_us": 43_000, "recipe": 1, "beat_timeout_ms": 600, "results": 1, "result_no_copy": 65_600,
        "session": 0x2E9A7B10,
    }  # fmt: skip
    assert {name: values[name] for name in expected} == expected
    inputs = floor.client.read_input_registers(0, count=STATUS_WORDS)
    assert inputs.registers == floor.client.read_holding_registers(0, count=STATUS_WORDS).registers
    assert floor.client.read_holding_registers(8, count=2).registers == [1, 64]


@pytest.mark.parametrize("verdict", [Verdict.NG, Verdict.UNKNOWN])
def test_no_other_verdict_is_accepted(floor: Floor, verdict: Verdict) -> None:
    floor.show(result(1, verdict))
    values = floor.read()
    assert (values["accept"], values["verdict"], values["result_valid"]) == (0, int(verdict), 2)
    if verdict is Verdict.UNKNOWN:
        assert (values["score"], values["threshold"]) == (0, 0)


def test_a_score_that_no_register_can_hold_is_no_score_and_not_accepted(floor: Floor) -> None:
    floor.show(result(1, score=-1e300))
    values = floor.read()
    assert (values["accept"], values["verdict"], values["reason"], values["score"]) == (0, 0, 0, 0)


def test_accept_follows_the_link_at_the_moment_of_each_read(floor: Floor) -> None:
    floor.show(result(1))
    assert floor.read()["accept"] == 1
    floor.link.good = False
    values = floor.read()
    assert (values["accept"], values["quality"], values["verdict"]) == (0, 0, 1)
    floor.link.good = True
    floor.link.expired.add(1)
    assert floor.read()["accept"] == 0
    assert floor.read()["quality"] == 1


def test_a_result_stays_until_its_own_number_is_acknowledged(floor: Floor) -> None:
    floor.show(result(1), result(2, Verdict.NG), result(3))
    for _ in range(3):
        assert floor.read()["result_valid"] == 2, "never acknowledged: never replaced"
    assert floor.write("result_ack", 3) == ILLEGAL_VALUE
    assert floor.write("result_ack", 1) == ILLEGAL_VALUE
    assert floor.read()["result_valid"] == 2
    assert floor.write("result_ack", 2) == 0
    assert (floor.read()["result_valid"], floor.read()["waiting"], floor.read()["accept"]) == (3, 2, 0)
    assert floor.write("result_ack", 2) == 0, "said again, it means nothing more"
    assert floor.write("result_ack", 0) == 0
    assert floor.read()["result_valid"] == 3
    assert floor.write("result_ack", 3) == 0
    assert floor.write("result_ack", 4) == 0
    values = floor.read()
    assert (values["result_valid"], values["accept"], values["result_no"], values["waiting"]) == (0, 0, 0, 0)
    assert floor.write("result_ack", 5) == ILLEGAL_VALUE


def test_the_ninth_unacknowledged_result_is_an_overrun_that_is_named_and_counted(floor: Floor) -> None:
    floor.show(*[result(number) for number in range(1, 13)])
    values = floor.read()
    assert (values["result_no"], values["waiting"], values["overrun"], values["overruns"]) == (1, 8, 1, 4)
    seen = []
    while (values := floor.read())["result_valid"]:
        seen.append((values["result_no"], values["missing_before"]))
        assert floor.write("result_ack", int(values["result_valid"])) == 0
    assert seen == [(1, 0), (6, 4), (7, 0), (8, 0), (9, 0), (10, 0), (11, 0), (12, 0)]
    assert floor.read()["overrun"] == 1
    assert floor.write("command", 100) == 0
    values = floor.read()
    assert (values["overrun"], values["overruns"], values["command_status"]) == (0, 4, STATUS_OF_CODE["OK"])


def test_a_gap_is_named_before_the_result_after_it(floor: Floor) -> None:
    floor.show(result(1), Gap(2, 4, "gone"), result(5))
    assert (floor.read()["gaps"], floor.read()["missing"], floor.read()["missing_before"]) == (1, 3, 0)
    floor.write("result_ack", 2)
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (5, 3)


def test_the_least_buffer_names_what_it_drops_too(make: Callable[..., Floor]) -> None:
    floor = make(buffer_results=2)
    floor.show(result(1), result(2), Gap(3, 4, "gone"), result(5), result(6))
    assert (floor.read()["waiting"], floor.read()["overruns"]) == (2, 2)
    floor.write("result_ack", 2)
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (6, 4)


def test_a_gap_before_an_overrun_is_not_forgotten(floor: Floor) -> None:
    floor.show(result(1), Gap(2, 4, "gone"), *[result(number) for number in range(5, 13)])
    floor.write("result_ack", 2)
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (6, 4)


def test_without_handshake_the_newest_is_shown_and_a_gap_shows_nothing(make: Callable[..., Floor]) -> None:
    floor = make(handshake=False)
    floor.show(result(1), result(2, Verdict.NG))
    assert (floor.read()["result_no"], floor.read()["accept"]) == (2, 0)
    floor.show(result(3))
    assert (floor.read()["result_no"], floor.read()["accept"], floor.read()["overruns"]) == (3, 1, 0)
    floor.show(Gap(4, 6, "gone"))
    assert (floor.read()["result_valid"], floor.read()["accept"]) == (0, 0)
    floor.show(result(7))
    assert (floor.read()["result_no"], floor.read()["missing_before"]) == (7, 3)
    assert floor.write("result_ack", 8) == ILLEGAL_VALUE


def test_commands_are_passed_on_and_their_outcome_shown(floor: Floor) -> None:
    floor.link.replies += [reply("OK"), reply("WRONG_STATE"), NO_ANSWER, WireError("no"), reply("NEWS"), None]
    for command, op, fields, status in (
        (1, "start", {}, "OK"),
        (2, "start", {"mode": "single"}, "WRONG_STATE"),
        (3, "stop", {}, "NO_ANSWER"),
        (4, "halt", {}, "BAD_REQUEST"),
        (5, "abort", {}, "OTHER"),
        (6, "reset", {}, "UNDER_WAY"),
    ):
        assert floor.write("command", command) == 0
        assert floor.link.asked[-1] == (op, fields)
        assert floor.read()["command_status"] == STATUS_OF_CODE[status]
    assert floor.write("command", 6) == 0, "the same value again does nothing"
    assert len(floor.link.asked) == 6
    assert floor.write("command", 3) == BUSY
    assert floor.write("command", 0) == 0
    assert floor.read()["command_status"] == STATUS_OF_CODE["UNDER_WAY"]
    floor.link.open_futures[0].set_result(reply("ACCEPTED"))
    assert floor.read()["command_status"] == STATUS_OF_CODE["ACCEPTED"]
    assert floor.write("command", 3) == 0
    floor.link.open_futures[1].set_result(reply("OK"))
    assert floor.write("command", 0) == 0
    assert floor.read()["command_status"] == STATUS_OF_CODE["IDLE"]


def test_a_recipe_is_chosen_by_its_number(floor: Floor) -> None:
    floor.link.replies += [reply("ACCEPTED")]
    assert floor.write("recipe_select", 7) == 0
    assert floor.link.asked == [("prepare_recipe", {"recipe": "lid"})]
    assert floor.read()["recipe_status"] == STATUS_OF_CODE["ACCEPTED"]
    assert floor.write("recipe_select", 2) == ILLEGAL_VALUE
    assert floor.client.read_holding_registers(ADDRESS["recipe_select"], count=1).registers == [7]
    assert floor.link.state is not None
    for recipe, number in (("lid", 7), ("other", 0), ("", 0)):
        floor.link.state = msgspec.structs.replace(floor.link.state, recipe=recipe)
        assert floor.read()["recipe"] == number


def test_a_trigger_carries_its_number_timeout_and_part(floor: Floor) -> None:
    floor.link.replies += [reply("ACCEPTED"), reply("BUSY")]
    assert floor.write("trigger_timeout_ms", 250, 1, 2, 0, 77) == 0
    assert floor.link.asked == [("trigger", {"trigger_id": 0x10002, "timeout_ms": 250, "part_id": "77"})]
    assert floor.read()["trigger_status"] == STATUS_OF_CODE["ACCEPTED"]
    assert floor.write("trigger_timeout_ms", 250, 1, 2, 0, 77) == 0, "the same trigger is not given twice"
    assert len(floor.link.asked) == 1
    assert floor.write("trigger_request", 0, 5) == 0
    assert floor.link.asked[1][1] == {"trigger_id": 5, "timeout_ms": 250, "part_id": "77"}
    assert floor.read()["trigger_status"] == STATUS_OF_CODE["BUSY"]


def test_a_hard_wired_trigger_is_announced(make: Callable[..., Floor]) -> None:
    floor = make(hard_wired=True)
    assert floor.write("trigger_request", 0, 5) == 0
    assert floor.link.asked == [("expect", {"trigger_id": 5, "timeout_ms": 1000, "part_id": None})]


def test_a_gateway_without_commands_takes_acknowledgements_only(make: Callable[..., Floor]) -> None:
    floor = make(commands=False)
    floor.show(result(1))
    assert floor.write("command", 1) == floor.write("recipe_select", 1) == ILLEGAL_ADDRESS
    assert floor.write("trigger_request", 0, 1) == ILLEGAL_ADDRESS
    assert floor.write("result_ack", 2) == 0
    assert floor.link.asked == []


@pytest.mark.parametrize(
    ("address", "words", "code"),
    [
        (0, [1], ILLEGAL_ADDRESS),  # accept and its neighbours are read only
        (1, [1], ILLEGAL_ADDRESS),
        (45, [0] * 60, ILLEGAL_ADDRESS),
        (99, [0, 0], ILLEGAL_ADDRESS),
        (107, [0, 0], ILLEGAL_ADDRESS),
        (108, [0], ILLEGAL_ADDRESS),
        (0xFFFF, [0], ILLEGAL_ADDRESS),
        (101, [8], ILLEGAL_VALUE),  # no such command
        (101, [0xFFFF], ILLEGAL_VALUE),
        (102, [3], ILLEGAL_VALUE),  # no such recipe
        (103, [0], ILLEGAL_VALUE),  # no time at all
        (104, [1], ILLEGAL_VALUE),  # half a number
        (105, [1], ILLEGAL_VALUE),
        (105, [1, 1, 1], ILLEGAL_VALUE),
        (106, [1], ILLEGAL_VALUE),
        (100, [99, 1, 1, 500, 0, 7, 0, 0], ILLEGAL_VALUE),  # one wrong value: none of the others acts
    ],
)
def test_an_illegal_write_is_an_exception_and_does_nothing(
    floor: Floor, address: int, words: list[int], code: int
) -> None:
    floor.show(result(1))
    before = floor.client.read_holding_registers(100, count=8).registers
    many = floor.client.write_registers(address, words)
    assert many.isError() and many.exception_code == code
    if len(words) == 1:
        single = floor.client.write_register(address, words[0])
        assert single.isError() and single.exception_code == code
    assert floor.client.read_holding_registers(100, count=8).registers == before
    assert floor.read()["result_valid"] == 2 and floor.link.asked == []


def test_reads_beyond_the_table_and_unknown_functions_are_exceptions(floor: Floor) -> None:
    client = floor.client
    for address, count in ((STATUS_WORDS, 1), (0, STATUS_WORDS + 1), (40, 70), (99, 1), (107, 2), (65535, 1)):
        assert client.read_holding_registers(address, count=count).exception_code == ILLEGAL_ADDRESS, address
    for answered in (
        client.read_coils(0, count=1),
        client.read_discrete_inputs(0, count=1),
        client.write_coil(0, True),
        client.readwrite_registers(read_address=0, read_count=1, write_address=100, values=[1]),
        client.mask_write_register(address=100),
    ):
        assert answered.isError() and answered.exception_code == ILLEGAL_FUNCTION
    assert floor.read()["table_version"] == 1, "the connection goes on"


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
    assert floor.read()["table_version"] == 1


@settings(deadline=None)
@given(pdu=st.binary(min_size=1, max_size=252))
def test_any_request_has_an_answer_that_fits_and_reading_changes_nothing(pdu: bytes) -> None:
    link = FakeLink()
    link.put(result(1))
    registers = ModbusRegisters(GatewayConfig(), link)  # type: ignore[arg-type]
    answered = answer(registers, pdu)
    assert 2 <= len(answered) <= 253
    assert answered[0] in (pdu[0], pdu[0] | 0x80)
    if answered[0] != pdu[0] or pdu[0] in (3, 4):
        assert link.asked == []
        assert answer(registers, struct.pack(">BHH", 3, 4, 1)) == b"\x03\x02\x00\x02"


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
    return len(floor.server._connections)


def test_a_silent_client_is_closed(make: Callable[..., Floor]) -> None:
    floor = make(idle_ms=200)
    silent = floor.raw()
    sweeping(floor, lambda: clients(floor) == 0, "the end of both")
    assert closed(silent)
    assert floor.read(floor.connect())["table_version"] == 1


def test_who_does_not_finish_a_request_is_closed_and_others_stay(make: Callable[..., Floor]) -> None:
    floor = make(request_ms=100)
    slow, silent = floor.raw(), floor.raw()
    until(lambda: clients(floor) == 3, "both")
    slow.sendall(b"\x00\x01\x00")
    sweeping(floor, lambda: clients(floor) == 2, "the end of the slow one")
    assert closed(slow)
    assert ask(silent, struct.pack(">BHH", 3, 43, 1)) == [b"\x03\x02\x00\x01"]
    assert floor.read()["table_version"] == 1


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
    assert floor.read()["table_version"] == 1


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


def test_a_missed_deadline_and_a_simulation_show_as_such(floor: Floor) -> None:
    floor.show(replace(result(1, Verdict.UNKNOWN), deadline_missed=True, simulated=True))
    values = floor.read()
    assert (values["deadline_missed"], values["simulated"], values["reason"]) == (1, 1, 202)
