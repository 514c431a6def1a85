"""A small Modbus TCP server: framing, function codes 3, 4, 6 and 16. Its bounds are those of ``tcp_server``.

Why not pymodbus's server (3.16.1): it throws away what waits in its buffer when it answers, so of five requests sent
together one was answered; after bytes that are not Modbus it neither replied nor closed; it kept 500 silent
connections and has no bound on them, nor on what waits for a client that does not read; and it hides why it could
not listen.

Source: MODBUS Application Protocol V1.1b3 and MODBUS Messaging on TCP/IP Implementation Guide V1.0b (modbus.org).
"""

from __future__ import annotations

import struct
from typing import Protocol

from asperity.runtime.gateways.config import Modbus
from asperity.runtime.gateways.tcp_server import MalformedError, TcpServer

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, BUSY = 1, 2, 3, 6
READ_MAX, WRITE_MAX = 125, 123
"""Registers in one request."""
MBAP = struct.Struct(">HHHB")
"""Transaction, protocol (0), bytes that follow (unit among them), unit."""
PDU_MAX_NBYTES = 253


class Refusal(Exception):
    """A request answered with a Modbus exception."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Registers(Protocol):
    """The registers served. Both may raise Refusal; a write that does has had no effect."""

    def read(self, address: int, count: int) -> bytes:
        """``count`` registers, two bytes each, all of one moment."""

    def write(self, address: int, words: list[int], peer: str) -> None:
        """Write registers; ``peer`` is the client's address."""


def answer(registers: Registers, pdu: bytes, peer: str) -> bytes:
    """The response to a request of ``peer``, both without MBAP header. Never raises Refusal."""
    function, body = pdu[0], pdu[1:]
    try:
        return bytes([function]) + _answer(registers, function, body, peer)
    except Refusal as refusal:
        return bytes([function | 0x80, refusal.code])


def _answer(registers: Registers, function: int, body: bytes, peer: str) -> bytes:
    if function not in (3, 4, 6, 16):
        raise Refusal(ILLEGAL_FUNCTION)
    if len(body) < 4 or (function != 16 and len(body) != 4):
        raise Refusal(ILLEGAL_VALUE)
    address, second = struct.unpack_from(">HH", body)
    if function == 6:
        registers.write(address, [second], peer)
    elif function == 16:
        if not 1 <= second <= WRITE_MAX or len(body) != 5 + 2 * second or body[4] != 2 * second:
            raise Refusal(ILLEGAL_VALUE)
        registers.write(address, list(struct.unpack_from(f">{second}H", body, 5)), peer)
    else:
        if not 1 <= second <= READ_MAX:
            raise Refusal(ILLEGAL_VALUE)
        data = registers.read(address, second)
        return bytes([len(data)]) + data
    return body[:4]


class ModbusServer(TcpServer):
    """Serves registers. For one loop."""

    def __init__(self, registers: Registers, config: Modbus) -> None:
        super().__init__(config, "modbus", "Modbus", lambda host, own_host: _Conversation(registers, host))
        self.registers = registers


class _Conversation:
    """One client."""

    head_nbytes = MBAP.size
    in_use = False

    def __init__(self, registers: Registers, host: str) -> None:
        self._registers, self._host = registers, host
        self.asked = False

    def nbytes(self, head: bytes) -> int:
        """As ``Conversation.nbytes``."""
        _, protocol, nbytes, _ = MBAP.unpack(head)
        if protocol != 0 or not 2 <= nbytes <= PDU_MAX_NBYTES + 1:
            raise MalformedError
        return MBAP.size - 1 + int(nbytes)

    def answer(self, message: bytes) -> bytes:
        """As ``Conversation.answer``."""
        transaction, _, _, unit = MBAP.unpack_from(message)
        self.asked = True
        response = answer(self._registers, message[MBAP.size :], self._host)
        return MBAP.pack(transaction, 0, len(response) + 1, unit) + response

    def ended(self) -> None:
        """As ``Conversation.ended``."""
