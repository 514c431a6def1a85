"""`asperity gateway modbus` on a real inspector, seen by a client that others wrote: what a PLC is told, and when."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from pymodbus.client import ModbusTcpClient

from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.frame import Result, Verdict
from asperity.runtime.gateways.modbus.table import STATUS, STATUS_OF_CODE, STATUS_WORDS, WRITES, unpack
from asperity.runtime.reasons import Reason
from asperity.testing import PATIENCE_S, STATION, Camera, Line
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.modbus.modbus_floor import QUIET

pytestmark = pytest.mark.usefixtures("forked_starts")

ADDRESS = {row.name: row.address for row in WRITES}
RUNNING, READY = 8, 6
PLC_TOML = "[gateway]\naccept_simulated = true\naccept_hold_ms = {hold_ms}\n[modbus]\nrecipes = {{ 1 = 'simulated' }}\n"
FOREVER_MS = 3_600_000
Block = dict[str, int | float]


class Told(NamedTuple):
    """A result as the PLC took it."""

    number: int
    verdict: int
    missing_before: int
    accepted: bool


class Plc:
    """Polls the block, acknowledges, and remembers for which results it was ever told accept = 1."""

    def __init__(self, port: int) -> None:
        self.client = ModbusTcpClient("127.0.0.1", port=port, timeout=PATIENCE_S, retries=0)
        assert self.client.connect()
        self.accepted: dict[int, Block] = {}
        self.told: list[Told] = []
        self.reads = 0

    def read(self) -> Block:
        answered = self.client.read_holding_registers(0, count=STATUS_WORDS)
        assert not answered.isError(), answered
        block = unpack(STATUS, b"".join(word.to_bytes(2, "big") for word in answered.registers))
        self.reads += 1
        if block["accept"]:
            self.accepted[int(block["result_no"])] = block
        return block

    def write(self, name: str, *words: int) -> None:
        answered = self.client.write_registers(ADDRESS[name], list(words))
        assert not answered.isError(), answered

    def turn(self) -> Block:
        """Read, and acknowledge what is shown."""
        block = self.read()
        if block["result_valid"]:
            number, verdict, missing = (int(block[name]) for name in ("result_no", "verdict", "missing_before"))
            self.told.append(Told(number, verdict, missing, bool(block["accept"])))
            self.write("result_ack", int(block["result_valid"]))
        return block

    def until(self, condition: Callable[[Block], bool], what: str) -> Block:
        """Turns until the block is so; that one is not acknowledged."""
        ends_s = time.monotonic() + PATIENCE_S
        while not condition(block := self.read()):
            assert time.monotonic() < ends_s, f"{what} did not come: {block}"
            if block["result_valid"]:
                self.turn()
            time.sleep(0.002)
        return block

    def in_order_and_named(self) -> None:
        """Every result once and in order, and between two of them as many as were said to be missing."""
        for before, after in pairwise(self.told):
            assert after.number == before.number + 1 + after.missing_before, (before, after)

    def close(self) -> None:
        self.client.close()


def lies(accepted: dict[int, Block], heard: dict[int, Result]) -> list[Block]:
    """Blocks with accept = 1 that contradict themselves or what the station itself said of that result."""
    return [
        block
        for number, block in accepted.items()
        if block["result_no_copy"] != number
        or block["result_valid"] != number % 65535 + 1
        or (block["verdict"], block["reason"], block["quality"]) != (Verdict.OK, Reason.GOOD, 1)
        or not block["score"] <= block["threshold"]
        or number not in heard
        or heard[number].verdict is not Verdict.OK
    ]


class Streaming:
    """A camera that sends in a thread of its own until it is stopped."""

    def __init__(self, line: Line, interval_ms: float) -> None:
        self.camera = Camera(line)
        self._interval_s = interval_ms / 1000
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.camera.send(self.camera.picture())

    def stop(self) -> None:
        """From here on the camera is the caller's."""
        self._ended.set()
        self._thread.join(PATIENCE_S)

    def close(self) -> None:
        self.stop()
        self.camera.close()


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    # Many faults: where a crowded machine drops frames between them, three "nan" in a row come by chance.
    with Line("ok ok ng nan refuse shape", limits={"engine_faults_max": 1000}) as line:
        line.start()
        line.await_state(RUNNING)
        yield line


@pytest.fixture(scope="module")
def gateway(line: Line) -> GatewayProcess:
    return GatewayProcess(line, "modbus", PLC_TOML.format(hold_ms=2000), "--port", "0")


@pytest.fixture
def plc(gateway: GatewayProcess) -> Iterator[Plc]:
    plc = Plc(gateway.port())
    yield plc
    plc.close()


@pytest.fixture
def streaming(line: Line) -> Iterator[Streaming]:
    streaming = Streaming(line, 8)
    yield streaming
    streaming.close()


def test_a_control_that_must_fail_the_watcher_finds_a_lie() -> None:
    block: Block = dict.fromkeys((row.name for row in STATUS), 0)
    block |= {"result_no": 5, "result_no_copy": 5, "result_valid": 6, "verdict": 1, "reason": 1, "quality": 1}
    heard = Result(
        station="st1", session="s", result_id=5, verdict=Verdict.OK, reason=Reason.GOOD, score=0, threshold=1
    )
    bad = Result(station="st1", session="s", result_id=5)
    assert not lies({5: block}, {5: heard})
    assert lies({5: block}, {5: bad}) and lies({5: block}, {})
    assert lies({5: block | {"result_no_copy": 6}}, {5: heard})
    assert lies({5: block | {"verdict": 2}}, {5: heard})


def test_a_reader_as_fast_as_it_can_never_sees_a_torn_block_or_an_accept_without_ok(
    line: Line, gateway: GatewayProcess, plc: Plc, streaming: Streaming
) -> None:
    blocks: list[Block] = []
    ended = threading.Event()
    watcher = Plc(gateway.port())

    def watch() -> None:
        while not ended.is_set():
            blocks.append(watcher.read())
        watcher.close()

    def enough(block: Block) -> bool:
        every_verdict = {int(verdict) for verdict in Verdict} == {told.verdict for told in plc.told}
        return len(plc.accepted) >= 20 and len(plc.told) >= 60 and every_verdict and bool(watcher.accepted)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    plc.until(enough, "twenty good parts")
    ended.set()
    watching.join(PATIENCE_S)
    streaming.close()
    heard = line.journal()
    assert all(block["result_no"] == block["result_no_copy"] for block in blocks)
    seen = {int(block["result_no"]): block for block in blocks if block["accept"]}
    assert lies(plc.accepted | seen, heard) == []
    assert seen and all(heard[told.number].verdict == told.verdict for told in plc.told)
    assert {told.number for told in plc.told if told.accepted} <= {n for n in heard if heard[n].verdict is Verdict.OK}
    plc.in_order_and_named()
    print(f"{len(blocks)} blocks read beside {plc.reads}, {len(plc.told)} results, {len(seen | plc.accepted)} accepted")


def test_who_reads_too_slowly_is_told_of_the_overrun_and_how_much_is_missing(
    line: Line, plc: Plc, streaming: Streaming
) -> None:
    first = plc.until(lambda block: block["quality"] == 1 and block["result_valid"] > 0, "a result")
    until(lambda: plc.read()["overruns"] - first["overruns"] > 5, "an overrun")
    slow = plc.read()
    assert (slow["overrun"], slow["waiting"], slow["result_no"]) == (1, 8, first["result_no"])
    # The part has gone by: what nobody acknowledged is not good for ever.
    until(lambda: plc.read()["accept"] == 0, "the end of accept")
    plc.until(lambda block: len(plc.told) >= 30, "the rest")
    plc.write("command", 0)
    plc.write("command", 100)
    plc.write("command", 0)
    assert max(told.missing_before for told in plc.told) >= 5
    plc.in_order_and_named()


def test_commands_and_recipes_reach_the_station(line: Line, plc: Plc) -> None:
    no_answer = STATUS_OF_CODE["NO_ANSWER"]

    def asked(register: str, statuses: str, name: str, *words: int) -> None:
        """Again where a crowded machine let the station not answer: then it may have done it already."""
        fitting, told = {STATUS_OF_CODE[status] for status in statuses.split()}, no_answer
        while told == no_answer:
            plc.write(name, *words)
            told = int(plc.until(lambda block: block[register] not in (0, 1), "an answer")[register])
            plc.write(name, *[0] * len(words))
            if told == no_answer:
                fitting |= {STATUS_OF_CODE["WRONG_STATE"], STATUS_OF_CODE["BUSY"]}
        assert told in fitting, (name, words, told)

    plc.write("result_ack", *QUIET)
    asked("command_status", "OK", "command", 3)
    plc.until(lambda block: block["state"] == READY, "Ready")
    asked("command_status", "WRONG_STATE", "command", 3)
    asked("recipe_status", "ACCEPTED OK", "recipe_select", 1)
    plc.until(lambda block: block["recipe"] == 1, "the recipe")
    asked("command_status", "OK", "command", 1)
    plc.until(lambda block: block["state"] == RUNNING, "ContinuousExecution")


def test_a_trigger_without_a_frame_is_a_reject_with_its_part() -> None:
    with Line("ok", station={"triggers": "software"}) as line:
        line.start()
        line.await_state(RUNNING)
        plc = Plc(GatewayProcess(line, "modbus", PLC_TOML.format(hold_ms=2000), "--port", "0").port())
        plc.write("result_ack", *QUIET)
        no_answer = STATUS_OF_CODE["NO_ANSWER"]
        trigger_id, told = 0xABCD0000, no_answer
        while told == no_answer:
            trigger_id += 1
            plc.write("trigger_timeout_ms", 150, trigger_id >> 16, trigger_id & 0xFFFF, 0, 4711)
            plc.until(lambda block: block["trigger_status"] not in (0, 1), "the answer")
            told = int(plc.read()["trigger_status"])
        assert told == STATUS_OF_CODE["ACCEPTED"]
        block = plc.until(lambda block: block["trigger_id"] == trigger_id, "the trigger's result")
        assert (block["reason"], block["verdict"], block["accept"]) == (Reason.NO_FRAME, 0, 0)
        assert block["part_number"] == 4711
        plc.close()


def test_a_simulation_is_shown_but_never_accepted_unless_told(line: Line, streaming: Streaming) -> None:
    strict = GatewayProcess(line, "modbus", "", "--port", "0")
    plc = Plc(strict.port())
    try:
        good = {"quality": 1, "verdict": Verdict.OK, "simulated": 1}
        plc.until(lambda block: len(plc.told) >= 10 and good.items() <= block.items(), "good results")
        assert not plc.accepted
    finally:
        plc.close()


def test_sigterm_ends_it_at_once_and_closes_every_connection(line: Line) -> None:
    ending = GatewayProcess(line, "modbus", PLC_TOML.format(hold_ms=2000), "--port", "0")
    plc = Plc(ending.port())
    began_s = time.monotonic()
    ending.process.send_signal(signal.SIGTERM)
    assert ending.process.wait(PATIENCE_S) == 0, ending.log()
    print(f"ended in {time.monotonic() - began_s:.2f} s")
    assert "Traceback" not in ending.log()
    assert plc.client.socket is not None
    assert plc.client.socket.recv(1) == b""
    plc.close()


def test_a_port_in_use_and_a_bind_that_others_reach_are_refused_in_words(line: Line, gateway: GatewayProcess) -> None:
    second = GatewayProcess(line, "modbus", "", "--port", str(gateway.port()))
    open_to_all = GatewayProcess(line, "modbus", "", "--host", "0.0.0.0")
    wrong = GatewayProcess(line, "modbus", "[modbus]\nrecipes = { nought = 'x' }\n")
    for process, code, words in (
        (second, GatewayError.exit_code, "is another gateway running"),
        (open_to_all, ConfigError.exit_code, "insecure_lan = true"),
        (wrong, ConfigError.exit_code, "[modbus] recipes"),
    ):
        assert process.process.wait(PATIENCE_S) == code, process.log()
        assert words in process.log() and "Traceback" not in process.log()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_results_of_simulate_in_a_row() -> None:
    with Line() as line:
        ends = [word for name, end in line.ends.items() for word in (f"--{name}", end)]
        line.asperity("simulate", "--rate", "150", "--script", "ok ok ng nan shape", "--station", STATION, *ends)
        # Room for what comes while a crowded machine does not let the client run; 8 results are 53 ms of this line.
        toml = PLC_TOML.format(hold_ms=2000) + "buffer_results = 1000\n"
        gateway = GatewayProcess(line, "modbus", toml, "--port", "0")
        plc = Plc(gateway.port())
        plc.until(lambda block: block["result_valid"] > 0 and block["quality"] == 1, "the first result")
        first, began_s = len(plc.told), time.monotonic()
        while len(plc.told) < first + 10_000:
            plc.turn()
            line.heard.listen(0)
        took_s = time.monotonic() - began_s
        counts = plc.read()
        last_id = max(plc.accepted)
        line.wait(lambda: line.heard.results[-1].result_id >= last_id, "every result")
        heard = {result.result_id: result for result in line.heard.results}
        told = plc.told[first:]
        good = [entry for entry in told if entry.number in heard and heard[entry.number].verdict is Verdict.OK]
        print(
            f"{len(told)} results in {took_s:.1f} s ({len(told) / took_s:.0f}/s), {plc.reads} reads, {len(good)} ok, "
            f"{sum(entry.accepted for entry in told)} accepted, {counts['missing']} missing, "
            f"{counts['overruns']} overruns"
        )
        plc.in_order_and_named()
        assert lies(plc.accepted, heard) == []
        assert [entry.number for entry in told] == list(range(told[0].number, told[0].number + len(told)))
        assert len(told) / took_s >= 100
        plc.close()


@pytest.mark.foreign
@pytest.mark.skipif(shutil.which("mbpoll") is None, reason="mbpoll is not installed (Debian package mbpoll)")
def test_mbpoll_reads_the_same_numbers(line: Line, plc: Plc, gateway: GatewayProcess, streaming: Streaming) -> None:
    shown = plc.until(lambda block: block["result_valid"] > 0 and block["verdict"] == Verdict.OK, "a good result")
    where = ["-m", "tcp", "-a", "1", "-0", "-1", "-q", "-p", str(gateway.port())]
    for kind, row, expected in (
        ("4", "result_valid", str(shown["result_valid"])),
        ("4:int", "result_no", str(shown["result_no"])),
        ("4:float", "threshold", "1"),
        ("3:int", "result_no_copy", str(shown["result_no"])),
    ):
        address = next(entry.address for entry in STATUS if entry.name == row)
        command = ["mbpoll", *where, "-B", "-t", kind, "-r", str(address), "127.0.0.1"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        assert re.search(rf"\[{address}\]:\s+{expected}\s*$", said.stdout, flags=re.M), said.stdout
