"""Blocks of registers over Modbus TCP, as a PLC reads and writes them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import NoReturn

from asperity.runtime.commissioning.plc_side import NoAnswer
from asperity.runtime.commissioning.registers import Busy, receive
from asperity.runtime.gateways.modbus.server import BUSY
from asperity.runtime.gateways.modbus.table import Row, words_of

HEADER = struct.Struct(">HHHBB")
"""Transaction, protocol, length, unit, function."""
READ, WRITE = 3, 16
READ_WORDS, WRITTEN_WORDS = 125, 123
"""Most registers of one request."""
UNIT = 1


class ModbusTransport:
    """One connection, opened again after a failure. As ``registers.Transport``."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._where, self.timeout_s = (host, port), timeout_s
        self._socket: socket.socket | None = None
        self._transaction = 0

    def read(self, rows: tuple[Row, ...]) -> bytes:
        """In as few requests as it takes."""
        first, left, registers = rows[0].address, words_of(rows), b""
        while left:
            count = min(left, READ_WORDS)
            answer = self._ask(READ, struct.pack(">HH", first, count))
            if len(answer) != 1 + 2 * count:
                self._fail(f"{len(answer)} bytes for {count} registers")
            registers += answer[1:]
            first, left = first + count, left - count
        return registers

    def write(self, rows: tuple[Row, ...], registers: bytes) -> None:
        """In as few requests as it takes."""
        first, at = rows[0].address, 0
        while cut := registers[at : at + 2 * WRITTEN_WORDS]:
            count = len(cut) // 2
            self._ask(WRITE, struct.pack(">HHB", first + at // 2, count, len(cut)) + cut)
            at += len(cut)

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, function: int, body: bytes) -> bytes:
        self._transaction = self._transaction % 0xFFFF + 1
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._where, timeout=self.timeout_s)
            self._socket.settimeout(self.timeout_s)
            self._socket.sendall(HEADER.pack(self._transaction, 0, 2 + len(body), UNIT, function) + body)
            number, _, length, _, answered = HEADER.unpack(receive(self._socket, HEADER.size))
            answer = receive(self._socket, length - 2)
        except (OSError, EOFError) as error:
            self._fail(str(error) or "closed")
        if number != self._transaction:
            self._fail("it answered another request")
        if answered == function | 0x80:
            code = answer[0] if answer else 0
            if code == BUSY:
                raise Busy
            raise NoAnswer(f"Modbus function {function} was refused with exception {code}")
        return answer

    def _fail(self, why: str) -> NoReturn:
        with suppress(OSError):
            self.close()
        host, port = self._where
        raise NoAnswer(f"no answer from Modbus {host} port {port}: {why}")
