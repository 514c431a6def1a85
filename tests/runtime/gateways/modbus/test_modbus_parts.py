"""Parts with triggers, one by one, over real sockets: camera, inspector, gateway, and a PLC that runs the block of
examples/plc. The gate opens for no part that was not exposed and judged ok, whatever else the camera sends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from asperity.runtime.gateways.modbus.table import STATUS, STATUS_OF_CODE, STATUS_WORDS, WRITE_ADDRESS, unpack
from asperity.testing import PATIENCE_S, Line
from tests.examples.structured_text import Block, Program
from tests.places import EXAMPLES
from tests.runtime.gateways.floor import GatewayProcess, until
from tests.runtime.gateways.parts_line import GOOD_PART, NO_FRAME_MS, RUNNING, Answering, answered_line, judged_ok

pytestmark = pytest.mark.usefixtures("forked_starts")

SOURCES = ("generated/asperity.st", "generated/asperity_modbus.st", "plc/asperity_station.st")
READY = 6
TOML = "[gateway]\naccept_simulated = true\n[modbus]\nrecipes = { 1 = 'simulated' }\n"
CYCLE_MAX_MS = 50
"""Longest cycle by the PLC's own clock: a pause of this machine makes nothing late there."""
START, STOP = 1, 3
Status = dict[str, int | float]


class Plc:
    """The station's block with a Modbus client that writes all its registers in every cycle."""

    def __init__(self, port: int) -> None:
        self._program = Program(*((EXAMPLES / name).read_text() for name in SOURCES))
        self.station = Block(self._program, "ASPERITY_STATION")
        self._ms, self._turned_s = 0.0, time.monotonic()
        self.command = START
        self.accepted: set[int] = set()
        """Triggers for which a register block ever said accept."""
        self.opened: set[int] = set()
        """Triggers during which the gate was ever open."""
        self.status: Status = {}
        self.connect(port)

    def connect(self, port: int) -> None:
        self._client = ModbusTcpClient("127.0.0.1", port=port, timeout=PATIENCE_S, retries=0)
        assert self._client.connect()

    def cycle(self, trigger: bool = False, part: int = 0) -> bool:
        """One turn; False when the gateway did not answer."""
        now_s = time.monotonic()
        self._ms += min(1000 * (now_s - self._turned_s), CYCLE_MAX_MS)
        self._program.now_ms, self._turned_s = round(self._ms), now_s
        try:
            read = self._client.read_holding_registers(0, count=STATUS_WORDS)
            words = [] if read.isError() else read.registers
        except (ModbusException, OSError):
            words = []
        if words:
            self.status = unpack(STATUS, b"".join(word.to_bytes(2, "big") for word in words))
            if self.status["accept"]:
                self.accepted.add(int(self.status["trigger_id"]))
        given = {"words": words} if words else {}
        self.station(words_read=bool(words), trigger=trigger, part_number=part, recipe=1, allow_simulated=True, **given)
        if self.station.accept:
            self.opened.add(self.station.trigger_request)
        return bool(words) and self._write()

    def _write(self) -> bool:
        made = self.station
        ack = made.result_ack if made.write_ack else 0
        halves = [half for value in (made.trigger_request, made.trigger_part) for half in divmod(value, 65536)]
        block = [ack, self.command, 1, NO_FRAME_MS, *halves, made.trigger_recipe]
        try:
            # Refused as busy while a request is unanswered: the next cycle writes it again.
            return self._client.write_registers(WRITE_ADDRESS, block) is not None
        except (ModbusException, OSError):
            return False

    def part(self, number: int) -> int:
        """Trigger a part and await its end; its trigger."""
        until(lambda: self.cycle() and bool(self.station.alive), "a station that lives", every_s=0.001)
        self.cycle(True, number)
        return self.await_done(number)

    def await_done(self, number: int) -> int:
        """The end of a part that was triggered; its trigger."""

        def done() -> bool:
            self.cycle(True, number)
            return bool(self.station.done)

        until(done, f"the end of part {number}", every_s=0.001)
        return int(self.station.trigger_request)

    def close(self) -> None:
        self._client.close()


@contextmanager
def plant(parts: int = 1) -> Iterator[tuple[Line, GatewayProcess, Answering, Plc]]:
    with answered_line(parts) as (line, camera):
        gateway = GatewayProcess(line, "modbus", TOML, "--port", "0")
        plc = Plc(gateway.port())
        try:
            yield line, gateway, camera, plc
        finally:
            plc.close()


def run_parts(count: int, kills: int, seed: int) -> None:
    """``count`` parts, and more until enough of them passed; the gateway is killed ``kills`` times in the middle."""
    choose = random.Random(seed)
    with plant(count) as (line, first, camera, plc):
        passed: set[int] = set()
        gateway = first
        killed_at = set(choose.sample(range(5, count), kills))
        number = 0
        ends_s = time.monotonic() + PATIENCE_S + count
        while number < count or len(passed) < count // 10:
            assert time.monotonic() < ends_s, (number, len(passed), plc.status)
            number += 1
            if number in killed_at:
                plc.cycle(True, number)
                gateway.process.kill()
                plc.cycle(True, number)
                gateway = GatewayProcess(line, "modbus", TOML, "--port", "0")
                plc.connect(gateway.port())
                plc.await_done(number)
                plc.cycle()
                continue
            trigger_id = plc.part(number)
            if trigger_id in plc.opened:
                passed.add(trigger_id)
            plc.cycle()
        good = camera.truth.good & judged_ok(line)
        print(
            f"{number} parts, {len(camera.truth.exposed)} exposed, {camera.truth.strays} strays, {len(passed)} passed, "
            f"{len(plc.accepted)} accepted in registers, {kills} times the gateway was killed"
        )
        assert passed <= plc.opened <= good
        assert plc.accepted <= good
        assert camera.truth.strays > 0


def test_the_gate_opens_for_no_part_that_was_not_exposed_and_judged_ok() -> None:
    run_parts(120, kills=3, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_nor_in_ten_thousand_parts() -> None:
    run_parts(10_000, kills=50, seed=2)


def test_a_station_that_an_operator_stopped_stays_stopped_when_the_gateway_is_started_again() -> None:
    with plant() as (line, gateway, _, plc):
        assert plc.part(GOOD_PART) == 1
        for state in (RUNNING, READY):
            if state == READY:
                assert line.ask("stop").ok
            until(lambda state=state: plc.cycle() and plc.status["state"] == state, f"state {state}")  # type: ignore[misc]
        gateway.process.kill()
        plc.connect(GatewayProcess(line, "modbus", TOML, "--port", "0").port())
        told = STATUS_OF_CODE["BASELINE"]
        until(lambda: plc.cycle() and plc.status["command_status"] == told, "the status of a first write")
        until(lambda: plc.cycle() and plc.status["state"] > 0, "a state")
        # A station that had been started would stop now. A crowded machine may cost an answer.
        told = no_answer = STATUS_OF_CODE["NO_ANSWER"]
        while told == no_answer:
            plc.command = 0
            until(lambda: plc.cycle() and plc.status["command_status"] == 0, "0")
            plc.command = STOP
            until(lambda: plc.cycle() and plc.status["command_status"] > 1, "an answer")
            told = int(plc.status["command_status"])
        assert told == STATUS_OF_CODE["WRONG_STATE"]
        assert plc.status["state"] == READY


def test_a_trigger_that_a_stopped_inspector_carries_out_late_is_no_pass() -> None:
    with plant() as (line, _, _, plc):
        plc.part(GOOD_PART)
        until(lambda: plc.cycle() and bool(plc.station.alive), "a station that lives")
        os.kill(line.inspector.pid, signal.SIGSTOP)
        plc.cycle(True, GOOD_PART)
        late = int(plc.station.trigger_request)
        told = STATUS_OF_CODE["NO_ANSWER"]
        until(lambda: plc.cycle(True, GOOD_PART) and plc.status["trigger_status"] == told, "a request that is given up")
        os.kill(line.inspector.pid, signal.SIGCONT)
        plc.await_done(GOOD_PART)
        plc.cycle()
        next_id = plc.part(GOOD_PART)
        while next_id not in plc.opened:  # a crowded machine may cost an answer
            plc.cycle()
            next_id = plc.part(GOOD_PART)
        assert late not in plc.accepted | plc.opened
        carried_out = [result for result in line.journal().values() if result.trigger_id == late]
        print(f"{len(carried_out)} results of the trigger that was given up")
