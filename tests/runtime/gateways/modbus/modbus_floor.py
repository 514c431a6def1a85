"""What the tests of the Modbus gateway stand on: a server on a link that says what the test wants, and its clients."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from pymodbus.client import ModbusTcpClient

from asperity.runtime.gateways.config import Gateway, GatewayConfig, Modbus
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.server import ModbusServer
from asperity.runtime.gateways.modbus.table import STATUS, STATUS_CODES, STATUS_WORDS, WRITES, unpack
from asperity.testing import PATIENCE_S
from tests.runtime.gateways.floor import FakeLink, Loop

ADDRESS = {row.name: row.address for row in WRITES}
RECIPES = {"1": "bracket", "7": "lid"}
ACTOR = "modbus 127.0.0.1"
QUIET = [0, 0, 0, 1000, 0, 0, 0, 0, 0]
"""A block of write registers that asks for nothing."""


class Floor:
    """A server in the loop, its link, and clients that end with the test."""

    def __init__(self, loop: Loop, commands: bool = True, fresh: bool = False, link: Any = None, **modbus: Any) -> None:
        """``fresh``: nobody has written since the gateway's start; else every register was 0 once.

        ``link``: a Link, or the FakeLink of a gateway that was there before.
        """
        self.config = GatewayConfig(
            gateway=Gateway(commands=commands), modbus=Modbus(port=0, **{"recipes": RECIPES, **modbus})
        )
        self.loop = loop
        self.link: FakeLink = link or FakeLink()
        self.server = ModbusServer(ModbusRegisters(self.config, self.link), self.config.modbus)  # type: ignore[arg-type]
        self.port = loop.run(self.server.open())
        self._closes: list[Callable[[], object]] = []
        self.client = self.connect()
        if not fresh:
            assert self.write("result_ack", *QUIET) == 0

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

    @property
    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        """What was passed on, without fields that are None and the actor, which is always this test."""
        assert all(fields["actor"] == ACTOR for _, fields in self.link.asked)
        return [
            (op, {name: value for name, value in fields.items() if value is not None and name != "actor"})
            for op, fields in self.link.asked
        ]

    def show(self, *items: Any) -> None:
        self.loop.call(lambda: self.link.put(*items))

    def close(self) -> None:
        for close in self._closes:
            close()
        self.loop.call(self.server.close)


def status(floor: Floor, name: str) -> str:
    """Name of the status code of a kind of request."""
    return STATUS_CODES[int(floor.read()[f"{name}_status"])][0]


def say(floor: Floor, **changes: Any) -> None:
    """The station's next state."""
    assert floor.link.state is not None
    floor.link.state = replace(floor.link.state, **changes)


def block(**values: int) -> list[int]:
    """All write registers, as a PLC that writes them in every cycle does."""
    words = list(QUIET)
    for name, value in values.items():
        at = ADDRESS[name] - ADDRESS["result_ack"]
        if name in ("trigger_request", "trigger_part"):
            words[at : at + 2] = value >> 16, value & 0xFFFF
        else:
            words[at] = value
    return words
