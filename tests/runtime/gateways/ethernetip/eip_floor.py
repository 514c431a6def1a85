"""What the tests of the EtherNet/IP gateway stand on: an adapter on a link that says what a test wants; its clients."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pycomm3 import CIPDriver, CommError, Services

from asperity.runtime.gateways.config import Gateway, GatewayConfig, GatewayStation
from asperity.runtime.gateways.ethernetip.assemblies import ALL, COMMAND, Assembly
from asperity.runtime.gateways.ethernetip.cip import Service
from asperity.runtime.gateways.ethernetip.encapsulation import (
    HEADER,
    Command,
    ItemType,
    data_nbytes,
    decode_cyclic,
    decode_items,
    encode_address,
    encode_cyclic,
    encode_send_data,
)
from asperity.runtime.gateways.ethernetip.objects import ASSEMBLY, DATA
from asperity.runtime.gateways.ethernetip.server import EthernetIpServer
from asperity.runtime.gateways.ethernetip.settings import Ethernetip
from asperity.runtime.gateways.modbus.registers import ModbusRegisters
from asperity.runtime.gateways.modbus.table import FORMATS
from asperity.testing import PATIENCE_S, STATION
from tests.runtime.gateways.floor import FakeLink, Loop

RECIPES = {"1": "bracket", "7": "lid"}
ACTOR = "ethernetip 127.0.0.1"
QUIET = {row.name: 1000 if row.name == "trigger_timeout_ms" else 0 for row in COMMAND.rows}
"""A command assembly that asks for nothing."""
Values = dict[str, int | float]


def encode(assembly: Assembly, values: Values) -> bytes:
    """An assembly's data, by the names of its fields."""
    data = bytearray(assembly.nbytes)
    for place in assembly.places:
        struct.pack_into(f"<{FORMATS[place.row.kind]}", data, place.offset, values[place.row.name])
    return bytes(data)


def decode(assembly: Assembly, data: bytes) -> Values:
    """The fields of an assembly by their names."""
    return {
        place.row.name: struct.unpack_from(f"<{FORMATS[place.row.kind]}", data, place.offset)[0]
        for place in assembly.places
    }


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
        return decode(assembly, answer.value)

    def write(self, assembly: Assembly = COMMAND, **values: int) -> str:
        """Empty, or what the client says of the refusal."""
        block = {name: value for name, value in {**QUIET, **values}.items() if name in {r.name for r in assembly.rows}}
        answer = self.ask(
            int(Services.set_attribute_single[0]), ASSEMBLY, assembly.instance, DATA, encode(assembly, block)
        )
        return str(answer.error or "")

    def close(self) -> None:
        with suppress(CommError):
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

    def closes(self, close: Callable[[], object]) -> None:
        """To be called when the test ends."""
        self._closes.append(close)

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


@dataclass(frozen=True)
class Wish:
    """What a scanner asks for when it opens a cyclic connection."""

    consumed: int = COMMAND.instance
    produced: int = ALL.instance
    ot_nbytes: int = 6 + COMMAND.nbytes
    to_nbytes: int = 2 + ALL.nbytes
    rpi_ms: int = 20
    multiplier: int = 7
    kinds: tuple[int, int] = (2, 2)
    trigger: int = 0x01
    front: bytes = b""
    configuration: int = 1
    data: bytes = b""
    serial: int = 1


class Scanner:
    """The side of a controller in cyclic connections; pycomm3 has none, and others want fixed ports."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._tcp = floor.raw()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.settimeout(PATIENCE_S)
        floor.closes(self.udp.close)
        self._number = 0
        self.ot_id = 0
        self._session = self._encapsulated(Command.REGISTER_SESSION, struct.pack("<HH", 1, 0))[0]

    def _encapsulated(self, command: int, data: bytes) -> tuple[int, bytes]:
        session = getattr(self, "_session", 0)
        self._tcp.sendall(HEADER.pack(command, len(data), session, 0, bytes(8), 0) + data)
        head = self._tcp.recv(HEADER.size, socket.MSG_WAITALL)
        nbytes = data_nbytes(head)
        return int(HEADER.unpack(head)[2]), self._tcp.recv(nbytes, socket.MSG_WAITALL) if nbytes else b""

    def request(self, service: int, data: bytes) -> tuple[int, ...]:
        """To the connection manager: the general status, then the extended ones."""
        address = encode_address("0.0.0.0", self.udp.getsockname()[1])
        body = bytes([service, 2, 0x20, 6, 0x24, 1]) + data
        items = [(0, b""), (ItemType.UNCONNECTED_DATA, body), (ItemType.TARGET_SENDS_TO, address)]
        _, answer = self._encapsulated(Command.SEND_RR_DATA, encode_send_data(items))
        reply = decode_items(answer[6:])[1][1]
        if reply[2] == 0 and service == Service.FORWARD_OPEN:
            self.ot_id = int.from_bytes(reply[4:8], "little")
        return (reply[2], *struct.unpack_from(f"<{reply[3]}H", reply, 4))

    def open(self, **wish: Any) -> tuple[int, ...]:
        asked = Wish(**wish)
        path = asked.front + bytes([0x20, 4, 0x24, asked.configuration, 0x2C, asked.consumed, 0x2C, asked.produced])
        path += asked.data
        flows = [
            (asked.rpi_ms * 1000, nbytes | kind << 13)
            for nbytes, kind in zip((asked.ot_nbytes, asked.to_nbytes), asked.kinds, strict=True)
        ]
        return self.request(
            Service.FORWARD_OPEN,
            struct.pack(
                "<BBIIHHIBxxxIHIHBB", 5, 9, 0, 77, asked.serial, 1, 2, asked.multiplier, *flows[0], *flows[1],
                asked.trigger, len(path) // 2,
            ) + path,
        )  # fmt: skip

    def shut(self, serial: int = 1) -> tuple[int, ...]:
        return self.request(Service.FORWARD_CLOSE, struct.pack("<BBHHIBx", 5, 9, serial, 1, 2, 0))

    def send(self, run: bool = True, number: int | None = None, **values: int) -> None:
        """A command assembly, once."""
        self._number = self._number + 1 if number is None else number
        body = struct.pack("<HI", self._number & 0xFFFF, int(run)) + encode(COMMAND, {**QUIET, **values})
        self.udp.sendto(encode_cyclic(self.ot_id, self._number, body), ("127.0.0.1", self._floor.server.cyclic_port))

    def receive(self) -> Values:
        """The next block that comes."""
        ot_id, _, body = decode_cyclic(self.udp.recv(2048))
        assert ot_id == 77
        return decode(ALL, body[2:])

    def until(self, condition: Callable[[Values], bool], what: str, **values: int) -> Values:
        """Sends and receives, as a controller does, until a block is so."""
        ends_s = time.monotonic() + PATIENCE_S
        while not condition(block := self.receive()):
            assert time.monotonic() < ends_s, f"{what} did not come: {block}"
            self.send(**values)
        return block
