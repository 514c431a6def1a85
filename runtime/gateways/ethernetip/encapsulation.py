"""The outer layer of EtherNet/IP: messages of a TCP session and items inside them. Pure; every length is bounded.

Source: The EtherNet/IP Adaptation of CIP, CIP Networks Library volume 2 (odva.org), chapter 2.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct("<HHII8sI")
"""Command, bytes of data that follow, session, status, context of the sender, options."""
DATA_MAX_NBYTES = 4608
"""Longest data of a message: a connection of 4000 bytes, and more than any request of ours needs."""
ITEMS_MAX = 8
PROTOCOL_VERSION = 1


class Command(IntEnum):
    """What a message wants."""

    NOP = 0x00
    LIST_SERVICES = 0x04
    LIST_IDENTITY = 0x63
    LIST_INTERFACES = 0x64
    REGISTER_SESSION = 0x65
    UNREGISTER_SESSION = 0x66
    SEND_RR_DATA = 0x6F
    SEND_UNIT_DATA = 0x70


class Status(IntEnum):
    """Why a message is refused."""

    OK = 0x00
    INVALID_COMMAND = 0x01
    INCORRECT_DATA = 0x03
    INVALID_SESSION = 0x64
    INVALID_LENGTH = 0x65
    UNSUPPORTED_VERSION = 0x69


class ItemType(IntEnum):
    """What an item holds."""

    NULL_ADDRESS = 0x00
    IDENTITY = 0x0C
    CONNECTION_ADDRESS = 0xA1
    CONNECTED_DATA = 0xB1
    UNCONNECTED_DATA = 0xB2
    SERVICES = 0x100
    ORIGINATOR_SENDS_TO = 0x8000
    """Where the originator of a cyclic connection is to send to."""
    TARGET_SENDS_TO = 0x8001
    SEQUENCED_ADDRESS = 0x8002


class EncapsulationError(Exception):
    """A message answered with a status other than 0."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a session."""

    command: int
    session: int
    context: bytes
    data: bytes

    def reply(self, data: bytes = b"", status: Status = Status.OK, session: int | None = None) -> bytes:
        """The bytes of the answer."""
        own = self.session if session is None else session
        return HEADER.pack(self.command, len(data), own, status, self.context, 0) + data


Item = tuple[int, bytes]


def data_nbytes(header: bytes) -> int:
    """Bytes that follow a header. Raises EncapsulationError when they are more than any message has."""
    nbytes = int(HEADER.unpack_from(header)[1])
    if nbytes > DATA_MAX_NBYTES:
        raise EncapsulationError(Status.INVALID_LENGTH)
    return nbytes


def decode_message(whole: bytes) -> Message | None:
    """A header with all of its data; None: one with options or a status, which nobody answers."""
    command, _, session, status, context, options = HEADER.unpack_from(whole)
    if options or status:
        return None
    return Message(command, session, context, whole[HEADER.size :])


def decode_items(data: bytes) -> list[Item]:
    """The items of a message, or of a datagram. Raises EncapsulationError."""
    if len(data) < 2:
        raise EncapsulationError(Status.INCORRECT_DATA)
    (count,) = struct.unpack_from("<H", data)
    if count > ITEMS_MAX:
        raise EncapsulationError(Status.INCORRECT_DATA)
    items, at = [], 2
    for _ in range(count):
        if len(data) < at + 4:
            raise EncapsulationError(Status.INCORRECT_DATA)
        kind, nbytes = struct.unpack_from("<HH", data, at)
        at += 4
        if len(data) < at + nbytes:
            raise EncapsulationError(Status.INCORRECT_DATA)
        items.append((kind, data[at : at + nbytes]))
        at += nbytes
    return items


def encode_items(items: Sequence[Item]) -> bytes:
    """As ``decode_items`` reads them."""
    body = b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in items)
    return struct.pack("<H", len(items)) + body


def decode_send_data(data: bytes) -> list[Item]:
    """The items of SendRRData and SendUnitData, whose first two are an address and the request.

    Raises EncapsulationError for another interface than CIP.
    """
    if len(data) < 6 or data[:4] != bytes(4):
        raise EncapsulationError(Status.INCORRECT_DATA)
    items = decode_items(data[6:])
    if len(items) < 2:
        raise EncapsulationError(Status.INCORRECT_DATA)
    return items


def encode_send_data(items: Sequence[Item]) -> bytes:
    """The data of an answer to SendRRData and SendUnitData."""
    return bytes(6) + encode_items(items)


def encode_address(host: str, port: int) -> bytes:
    """A socket's address as an item has it, in the network's order."""
    return struct.pack(">HH4s8x", socket.AF_INET, port, socket.inet_aton(host))


def decode_port(address: bytes) -> int:
    """The port of a socket's address; its host is not ours to choose. Raises EncapsulationError."""
    if len(address) != 16 or struct.unpack_from(">H", address)[0] != socket.AF_INET:
        raise EncapsulationError(Status.INCORRECT_DATA)
    return int(struct.unpack_from(">H", address, 2)[0])


def decode_cyclic(datagram: bytes) -> tuple[int, int, bytes]:
    """Connection, number and data of a datagram of cyclic data. Raises EncapsulationError."""
    items = decode_items(datagram)
    if len(items) < 2 or [kind for kind, _ in items[:2]] != [ItemType.SEQUENCED_ADDRESS, ItemType.CONNECTED_DATA]:
        raise EncapsulationError(Status.INCORRECT_DATA)
    address, body = items[0][1], items[1][1]
    if len(address) != 8:
        raise EncapsulationError(Status.INCORRECT_DATA)
    return int.from_bytes(address[:4], "little"), int.from_bytes(address[4:], "little"), body


def encode_cyclic(to_id: int, number: int, body: bytes) -> bytes:
    """As ``decode_cyclic`` reads it."""
    address = struct.pack("<II", to_id, number & 0xFFFFFFFF)
    return encode_items([(ItemType.SEQUENCED_ADDRESS, address), (ItemType.CONNECTED_DATA, body)])


def encode_services(cyclic: bool) -> bytes:
    """The data of ListServices: CIP over TCP, and cyclic data over UDP where that is on."""
    service = struct.pack("<HH16s", PROTOCOL_VERSION, 0x20 | (0x100 if cyclic else 0), b"Communications")
    return encode_items([(ItemType.SERVICES, service)])
