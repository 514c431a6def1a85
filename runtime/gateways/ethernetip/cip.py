"""Requests and replies of CIP: services, paths, the opening of connections. Pure; every length is bounded.

Source: Common Industrial Protocol, CIP Networks Library volume 1 (odva.org), chapters 2, 3 and appendices A to C.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

PATH_MAX_NBYTES = 128
REQUESTS_MAX = 32
"""Requests in one Multiple Service Packet."""


class Service(IntEnum):
    """What a request wants of an object."""

    GET_ATTRIBUTES_ALL = 0x01
    GET_ATTRIBUTE_LIST = 0x03
    MULTIPLE = 0x0A
    GET_ATTRIBUTE = 0x0E
    SET_ATTRIBUTE = 0x10
    FORWARD_CLOSE = 0x4E
    UNCONNECTED_SEND = 0x52
    FORWARD_OPEN = 0x54
    LARGE_FORWARD_OPEN = 0x5B


class General(IntEnum):
    """The general status of a reply."""

    OK = 0x00
    CONNECTION_FAILURE = 0x01
    PATH_SYNTAX = 0x04
    PATH_UNKNOWN = 0x05
    SERVICE_UNSUPPORTED = 0x08
    INVALID_VALUE = 0x09
    ATTRIBUTE_LIST = 0x0A
    OBJECT_STATE = 0x0C
    NOT_SETTABLE = 0x0E
    PRIVILEGE = 0x0F
    DEVICE_STATE = 0x10
    TOO_LARGE = 0x11
    TOO_SHORT = 0x13
    ATTRIBUTE_UNSUPPORTED = 0x14
    TOO_LONG = 0x15
    EMBEDDED = 0x1E
    INVALID_PARAMETER = 0x20


class Extended(IntEnum):
    """Why a connection is refused."""

    IN_USE = 0x0100
    TRANSPORT = 0x0103
    OWNED = 0x0106
    NOT_FOUND = 0x0107
    PARAMETER = 0x0108
    SIZE = 0x0109
    RPI = 0x0111
    FULL = 0x0113
    KEY_PRODUCT = 0x0114
    KEY_TYPE = 0x0115
    KEY_REVISION = 0x0116
    APPLICATION_PATH = 0x0117
    CONFIGURATION_PATH = 0x0129
    CONSUMED_PATH = 0x012A
    PRODUCED_PATH = 0x012B
    OT_TYPE = 0x0123
    TO_TYPE = 0x0124
    OT_SIZE = 0x0127
    TO_SIZE = 0x0128
    PORT = 0x0311
    SEGMENT = 0x0315


class CipError(Exception):
    """A request answered with a status other than 0."""

    def __init__(self, status: General, extended: Sequence[int] = (), data: bytes = b"") -> None:
        super().__init__(status.name, *extended)
        self.status, self.extended, self.data = status, tuple(extended), data


def refused(*extended: int) -> CipError:
    """A connection is not opened or closed; the first number says why."""
    return CipError(General.CONNECTION_FAILURE, extended)


@dataclass(frozen=True, slots=True)
class ElectronicKey:
    """What device the originator expects; 0: any."""

    vendor: int
    device_type: int
    product: int
    major: int
    minor: int


@dataclass(slots=True)
class Path:
    """Where a request goes."""

    class_id: int | None = None
    instances: list[int] = field(default_factory=list)
    """Instances and connection points, in order."""
    attribute: int | None = None
    key: ElectronicKey | None = None
    ports: list[tuple[int, int]] = field(default_factory=list)
    """Ports to leave by and the address behind each."""
    data: bytes = b""
    """Configuration."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to an object."""

    service: int
    path: bytes
    data: bytes


def decode_request(body: bytes) -> Request:
    """The service, path and data of a request. Raises CipError."""
    if len(body) < 2:
        raise CipError(General.TOO_SHORT)
    end = 2 + 2 * body[1]
    if len(body) < end:
        raise CipError(General.PATH_SYNTAX)
    return Request(body[0], body[2:end], body[end:])


def encode_reply(
    service: int, data: bytes = b"", status: General = General.OK, extended: Sequence[int] = ()
) -> bytes:
    """The answer to a request for ``service``."""
    head = struct.pack(f"<BBBB{len(extended)}H", service | 0x80, 0, status, len(extended), *extended)
    return head + data


def decode_path(encoded: bytes) -> Path:
    """The segments of a padded path. Raises CipError."""
    if len(encoded) > PATH_MAX_NBYTES:
        raise CipError(General.PATH_SYNTAX)
    path, rest = Path(), encoded
    while rest:
        nbytes = _take_segment(path, rest)
        if nbytes > len(rest):
            raise CipError(General.PATH_SYNTAX)
        rest = rest[nbytes:]
    return path


def _take_segment(path: Path, rest: bytes) -> int:
    """Add the first segment of ``rest`` to ``path``; its length, which may be more than there is."""
    kind = rest[0]
    if kind < 0x10:
        # A port by number 1 to 14, and a short address.
        if len(rest) >= 2:
            path.ports.append((kind, rest[1]))
        return 2
    if kind == 0x34:
        if len(rest) >= 10:
            if rest[1] != 4:
                raise CipError(General.PATH_SYNTAX)
            vendor, device_type, product, major, minor = struct.unpack_from("<HHHBB", rest, 2)
            path.key = ElectronicKey(vendor, device_type, product, major & 0x7F, minor)
        return 10
    if kind == 0x80:
        if len(rest) < 2:
            return 2
        path.data = rest[2 : 2 + 2 * rest[1]]
        return 2 + 2 * rest[1]
    if kind == 0x43:
        return 2  # how often data that did not change may be sent: it is sent at a fixed interval
    if kind & 0xE0 != 0x20 or kind & 0x03 > 2:
        raise CipError(General.PATH_SYNTAX)
    nbytes = (2, 4, 6)[kind & 0x03]
    if len(rest) >= nbytes:
        _take_number(path, kind & 0x1C, int.from_bytes(rest[1 if nbytes == 2 else 2 : nbytes], "little"))
    return nbytes


def _take_number(path: Path, kind: int, number: int) -> None:
    if kind == 0x00:
        if path.class_id not in (None, number):
            raise CipError(General.PATH_SYNTAX)
        path.class_id = number
    elif kind in (0x04, 0x0C):
        path.instances.append(number)
    elif kind == 0x10:
        path.attribute = number
    else:
        raise CipError(General.PATH_SYNTAX)


def decode_several(data: bytes) -> list[bytes]:
    """The requests of a Multiple Service Packet. Raises CipError."""
    if len(data) < 2:
        raise CipError(General.TOO_SHORT)
    (count,) = struct.unpack_from("<H", data)
    if not 1 <= count <= REQUESTS_MAX or len(data) < 2 + 2 * count:
        raise CipError(General.INVALID_PARAMETER)
    offsets = [*struct.unpack_from(f"<{count}H", data, 2), len(data)]
    if offsets[0] < 2 + 2 * count or any(before >= after for before, after in pairwise(offsets)):
        raise CipError(General.INVALID_PARAMETER)
    return [data[begin:end] for begin, end in pairwise(offsets)]


def encode_several(replies: Sequence[bytes]) -> bytes:
    """The data of the answer to a Multiple Service Packet."""
    at = 2 + 2 * len(replies)
    offsets = []
    for reply in replies:
        offsets.append(at)
        at += len(reply)
    return struct.pack(f"<H{len(offsets)}H", len(offsets), *offsets) + b"".join(replies)


def decode_routed(data: bytes) -> tuple[bytes, bytes]:
    """The request in an Unconnected Send, and the path that it is to take from here. Raises CipError."""
    if len(data) < 4:
        raise CipError(General.TOO_SHORT)
    (nbytes,) = struct.unpack_from("<H", data, 2)
    at = 4 + nbytes + nbytes % 2
    if len(data) < at + 2:
        raise CipError(General.TOO_SHORT)
    path = data[at + 2 : at + 2 + 2 * data[at]]
    if len(path) != 2 * data[at]:
        raise CipError(General.PATH_SYNTAX)
    return data[4 : 4 + nbytes], path


@dataclass(frozen=True, slots=True)
class ConnectionName:
    """What names a connection at both of its ends."""

    serial: int
    vendor: int
    originator: int

    def encode(self) -> bytes:
        """As requests and replies have it."""
        return struct.pack("<HHI", self.serial, self.vendor, self.originator)


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction of a connection."""

    rpi_us: int
    nbytes: int
    """Longest packet, with its sequence count and header."""
    kind: int
    """0 none, 1 multicast, 2 point to point."""


@dataclass(frozen=True, slots=True)
class ForwardOpen:
    """The request to open a connection."""

    name: ConnectionName
    to_id: int
    """The id of what we send, chosen by the originator."""
    multiplier: int
    """A connection ends when nothing came for so many intervals."""
    ot: Flow
    """From the originator to us."""
    to: Flow
    trigger: int
    """Transport class, what makes us send, and the direction."""
    path: bytes

    @property
    def transport_class(self) -> int:
        """1: cyclic; 3: requests."""
        return self.trigger & 0x0F


MULTIPLIERS_MAX = 7
OPEN, LARGE_OPEN = struct.Struct("<BBIIHHIBxxxIHIHBB"), struct.Struct("<BBIIHHIBxxxIIIIBB")
CLOSE = struct.Struct("<BBHHIB")


def decode_forward_open(data: bytes, *, large: bool) -> ForwardOpen:
    """A connection to open. Raises CipError."""
    layout = LARGE_OPEN if large else OPEN
    if len(data) < layout.size:
        raise CipError(General.TOO_SHORT)
    fields = layout.unpack_from(data)
    _, _, _, to_id, serial, vendor, originator, multiplier, ot_rpi, ot, to_rpi, to, trigger, words = fields
    path = data[layout.size : layout.size + 2 * words]
    if len(path) != 2 * words:
        raise CipError(General.TOO_SHORT)
    name = ConnectionName(serial, vendor, originator)
    if multiplier > MULTIPLIERS_MAX:
        raise refused(Extended.PARAMETER)
    return ForwardOpen(
        name, to_id, 4 << multiplier, _flow(ot_rpi, ot, large), _flow(to_rpi, to, large), trigger, path
    )


def _flow(rpi_us: int, parameters: int, large: bool) -> Flow:
    if large:
        return Flow(rpi_us, parameters & 0xFFFF, parameters >> 29 & 3)
    return Flow(rpi_us, parameters & 0x1FF, parameters >> 13 & 3)


def decode_forward_close(data: bytes) -> ConnectionName:
    """The connection to close. Raises CipError."""
    if len(data) < CLOSE.size:
        raise CipError(General.TOO_SHORT)
    _, _, serial, vendor, originator, _ = CLOSE.unpack_from(data)
    return ConnectionName(serial, vendor, originator)


def encode_opened(asked: ForwardOpen, ot_id: int) -> bytes:
    """The data of the answer to a connection that is open."""
    ids = struct.pack("<II", ot_id, asked.to_id)
    return ids + asked.name.encode() + struct.pack("<IIBx", asked.ot.rpi_us, asked.to.rpi_us, 0)


def encode_not_opened(name: ConnectionName) -> bytes:
    """The data of the answer to a connection that is not opened, or not closed."""
    return name.encode() + bytes(2)


def short_string(text: str) -> bytes:
    """A text of at most 255 ASCII characters with its length."""
    encoded = text.encode("ascii", "replace")[:255]
    return bytes([len(encoded)]) + encoded
