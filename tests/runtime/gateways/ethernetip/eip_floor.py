"""What the tests of the EtherNet/IP gateway stand on: an adapter on a link that says what the test wants, its clients."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from pycomm3 import CIPDriver, Services

from asperity.runtime.gateways.config import Ethernetip, Gateway, GatewayConfig, GatewayStation
from asperity.runtime.gateways.ethernetip.assemblies import ALL, COMMAND, Assembly
from asperity.runtime.gateways.ethernetip.objects import ASSEMBLY, DATA
from asperity.runtime.gateways.ethernetip.server import EthernetIpServer
from asperity.runtime.gateways.modbus.gateway import ModbusRegisters
from asperity.testing import PATIENCE_S, STATION
from tests.runtime.gateways.floor import FakeLink, Loop

RECIPES = {"1": "bracket", "7": "lid"}
ACTOR = "ethernetip 127.0.0.1"
QUIET = {row.name: 1000 if row.name == "trigger_timeout_ms" else 0 for row in COMMAND.rows}
"""A command assembly that asks for nothing."""
Values = dict[str, int | float]


class Controller:
    """A client that others wrote: pycomm3."""

    def __init__(self, port: int, connected: bool = False) -> None:
        """``connected``: its requests go over a connection that it opens (class 3)."""
        self.driver = CIPDriver(f"127.0.0.1:{port}")
        self.driver.socket_timeout = PATIENCE_S
        assert self.driver.open()
        self._connected = connected

    def ask(self, service: int, class_id: int, instance: int, attribute: int = 0, data: bytes = b"", **how: Any) -> Any:
        """pycomm3's answer: ``value`` and ``error``."""
        options: dict[str, Any] = {"connected": self._connected, "route_path": False, **how}
        return self.driver.generic_message(
            service=service, class_code=class_id, instance=instance, attribute=attribute or b"", request_data=data,
            **options,
        )  # fmt: skip

    def read(self, assembly: Assembly = ALL) -> Values:
        answer = self.ask(int(Services.get_attribute_single[0]), ASSEMBLY, assembly.instance, DATA)
        assert not answer.error, answer.error
        assert len(answer.value) == assembly.nbytes
        return assembly.decode(answer.value)

    def write(self, assembly: Assembly = COMMAND, **values: int) -> str:
        """Empty, or what the client says of the refusal."""
        block = {name: value for name, value in {**QUIET, **values}.items() if name in {r.name for r in assembly.rows}}
        answer = self.ask(
            int(Services.set_attribute_single[0]), ASSEMBLY, assembly.instance, DATA, assembly.encode(block)
        )
        return str(answer.error or "")

    def close(self) -> None:
        self.driver.close()


class Floor:
    """An adapter in the loop, its link, and clients that end with the test."""

    def __init__(self, loop: Loop, commands: bool = True, fresh: bool = False, **ethernetip: Any) -> None:
        """``fresh``: nobody has written since the gateway's start; else every field was written once."""
        self.config = GatewayConfig(
            station=GatewayStation(name=STATION),
            gateway=Gateway(commands=commands),
            ethernetip=Ethernetip(port=0, cyclic_port=0, **{"recipes": RECIPES, **ethernetip}),
        )
        self.loop = loop
        self.link = FakeLink()
        registers = ModbusRegisters(self.config, self.link, "ethernetip")  # type: ignore[arg-type]
        self.server = EthernetIpServer(registers, self.config.ethernetip, STATION)
        self.port = loop.run(self.server.open())
        self._closes: list[Callable[[], object]] = []
        if not fresh:
            assert self.connect().write() == ""

    def connect(self, connected: bool = False) -> Controller:
        controller = Controller(self.port, connected)
        self._closes.append(controller.close)
        return controller

    def raw(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        self._closes.append(plain.close)
        return plain

    def show(self, *items: Any) -> None:
        self.loop.call(lambda: self.link.put(*items))

    @property
    def asked(self) -> list[tuple[str, dict[str, Any]]]:
        """What was passed on, without fields that are None and the actor, which is always this test."""
        assert all(fields["actor"] == ACTOR for _, fields in self.link.asked)
        return [
            (op, {name: value for name, value in fields.items() if value is not None and name != "actor"})
            for op, fields in self.link.asked
        ]

    def close(self) -> None:
        for close in self._closes:
            close()
        self.loop.call(self.server.close)
