"""Parts with triggers over EtherNet/IP, on a line whose camera does not always answer as it should: the same block of
examples/plc as over Modbus opens the gate for no part that was not exposed and judged ok."""

from __future__ import annotations

from typing import Any

import pytest
from pycomm3 import CommError

from asperity.runtime.gateways.ethernetip.assemblies import ALL, COMMAND
from asperity.runtime.gateways.modbus.table import STATUS, WRITES, pack, unpack
from tests.runtime.gateways.ethernetip.eip_floor import Controller
from tests.runtime.gateways.floor import GatewayProcess
from tests.runtime.gateways.modbus.test_modbus_parts import Plc
from tests.runtime.gateways.parts_line import answered_line, judged_ok

TOML = (
    "[gateway]\naccept_simulated = true\n"
    "[ethernetip]\nport = 0\ncyclic_port = 0\nrecipes = { 1 = 'simulated' }\n"
)
PARTS, KILLS = 500, (100, 250, 400)


class Read:
    """What the block of a Modbus client expects of a reading."""

    def __init__(self, registers: list[int]) -> None:
        self.registers = registers

    def isError(self) -> bool:
        return False


class Assemblies:
    """The assemblies as registers."""

    def __init__(self, port: int) -> None:
        self._controller = Controller(port, connected=True)

    def read_holding_registers(self, address: int, count: int) -> Read:
        try:
            values: Any = self._controller.read(ALL)
        except CommError as error:
            raise OSError from error
        data = pack(STATUS, values)
        return Read([int.from_bytes(data[at : at + 2], "big") for at in range(0, 2 * count, 2)])

    def write_registers(self, address: int, words: list[int]) -> str:
        values = unpack(WRITES, b"".join(word.to_bytes(2, "big") for word in words))
        try:
            return self._controller.write(COMMAND, **{name: int(value) for name, value in values.items()})
        except CommError as error:
            raise OSError from error

    def close(self) -> None:
        self._controller.close()


class EipPlc(Plc):
    """The same PLC with another client."""

    def connect(self, port: int) -> None:
        self._client: Any = Assemblies(port)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_over_ethernet_ip_the_gate_opens_for_no_part_that_was_not_exposed_and_judged_ok() -> None:
    with answered_line(PARTS) as (line, camera):
        gateway = GatewayProcess(line, "ethernetip", TOML)
        plc, passed = EipPlc(gateway.port()), set[int]()
        for number in range(1, PARTS + 1):
            if number in KILLS:
                plc.cycle(True, number)
                gateway.process.kill()
                plc.cycle(True, number)
                gateway = GatewayProcess(line, "ethernetip", TOML)
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
            f"{PARTS} parts, {len(camera.truth.exposed)} exposed, {camera.truth.strays} strays, {len(passed)} passed, "
            f"{len(good)} good, {len(plc.accepted)} accepted in assemblies, {len(KILLS)} times the gateway was killed"
        )
        assert len(passed) > PARTS // 10 and camera.truth.strays > 0
        assert passed <= plc.opened <= good and plc.accepted <= good
        plc.close()
