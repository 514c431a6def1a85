"""Blocks of registers as assemblies, read and written by explicit messages as a controller sends them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import NoReturn

from asperity.runtime.commissioning.plc_side import NoAnswer
from asperity.runtime.commissioning.registers import Busy, receive
from asperity.runtime.gateways.ethernetip.assemblies import (
    ALL,
    COMMAND,
    COUNTED,
    SHOWN_BATCH,
    SHOWN_PART,
    TRIGGERED_PART,
)
from asperity.runtime.gateways.ethernetip.cip import General
from asperity.runtime.gateways.ethernetip.encapsulation import (
    HEADER,
    PROTOCOL_VERSION,
    Command,
    EncapsulationError,
    ItemType,
    data_nbytes,
    decode_send_data,
    encode_send_data,
)
from asperity.runtime.gateways.ethernetip.objects import ASSEMBLY, DATA
from asperity.runtime.gateways.modbus.table import (
    BATCH,
    COUNTS,
    PART,
    PART_WRITES,
    STATUS,
    WRITES,
    Row,
    words_of,
)

ASSEMBLY_OF = {
    STATUS: ALL, PART: SHOWN_PART, BATCH: SHOWN_BATCH, COUNTS: COUNTED, WRITES: COMMAND, PART_WRITES: TRIGGERED_PART,
}  # fmt: skip
GET, SET = 0x0E, 0x10
REPLY = 0x80


class AssemblyTransport:
    """One session, registered again after a failure. As ``registers.Transport``."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._where, self.timeout_s = (host, port), timeout_s
        self._socket: socket.socket | None = None
        self._session = 0

    def read(self, rows: tuple[Row, ...]) -> bytes:
        """One message."""
        assembly = ASSEMBLY_OF[rows]
        data = self._ask(GET, assembly.instance, b"")
        if len(data) != assembly.nbytes:
            self._fail(f"{len(data)} bytes for assembly {assembly.instance}")
        registers = assembly.to_registers(data)
        if registers is None:
            self._fail(f"a text of assembly {assembly.instance} claims a length that no text has")
        return registers[: 2 * words_of(rows)]

    def write(self, rows: tuple[Row, ...], registers: bytes) -> None:
        """One message."""
        self._ask(SET, ASSEMBLY_OF[rows].instance, ASSEMBLY_OF[rows].from_registers(registers))

    def close(self) -> None:
        """End the session."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, service: int, instance: int, data: bytes) -> bytes:
        path = bytes([0x20, ASSEMBLY, 0x24, instance, 0x30, DATA])
        request = bytes([service, len(path) // 2]) + path + data
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._where, timeout=self.timeout_s)
                self._session = 0
                self._session, _ = self._exchange(Command.REGISTER_SESSION, struct.pack("<HH", PROTOCOL_VERSION, 0))
            items = [(ItemType.NULL_ADDRESS, b""), (ItemType.UNCONNECTED_DATA, request)]
            _, answer = self._exchange(Command.SEND_RR_DATA, encode_send_data(items))
            reply = decode_send_data(answer)[1][1]
        except (OSError, EOFError, EncapsulationError) as error:
            self._fail(str(error) or "closed")
        if len(reply) < 4 or reply[0] != service | REPLY:
            self._fail("it answered another request")
        if reply[2]:
            if reply[2] == General.OBJECT_STATE:
                raise Busy
            raise NoAnswer(f"EtherNet/IP: assembly {instance} was refused with general status {reply[2]:#04x}")
        return reply[4 + 2 * reply[3] :]

    def _exchange(self, command: int, data: bytes) -> tuple[int, bytes]:
        assert self._socket is not None
        self._socket.settimeout(self.timeout_s)
        self._socket.sendall(HEADER.pack(command, len(data), self._session, 0, bytes(8), 0) + data)
        head = receive(self._socket, HEADER.size)
        if status := HEADER.unpack(head)[3]:
            raise EOFError(f"encapsulation status {status:#x}")
        return int(HEADER.unpack(head)[2]), receive(self._socket, data_nbytes(head))

    def _fail(self, why: str) -> NoReturn:
        with suppress(OSError):
            self.close()
        host, port = self._where
        raise NoAnswer(f"no answer from EtherNet/IP {host} port {port}: {why}")
