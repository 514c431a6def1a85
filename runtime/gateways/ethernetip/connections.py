"""Connections of CIP: opened, matched with what comes, and ended when nothing comes. Pure: the time is an argument.

Class 3 carries requests inside a TCP session and ends with it. Class 1 is cyclic: datagrams in both directions, each at
its interval; it ends when the controller's stay away.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass

from asperity.runtime.gateways.ethernetip.assemblies import (
    ASSEMBLIES,
    COMMAND,
    CONFIGURATION,
    INPUT_ONLY,
    PRODUCED,
    Assembly,
)
from asperity.runtime.gateways.ethernetip.cip import (
    ConnectionName,
    Extended,
    ForwardOpen,
    Path,
    decode_path,
    refused,
)
from asperity.runtime.gateways.ethernetip.encapsulation import (
    EncapsulationError,
    decode_cyclic,
    encode_cyclic,
)
from asperity.runtime.gateways.ethernetip.objects import ASSEMBLY, MESSAGE_ROUTER, Identity
from asperity.runtime.gateways.ethernetip.settings import Ethernetip

POINT_TO_POINT = 2
CYCLIC_TRIGGER = 0
FIRST_S = 10.0
"""Longest wait for the first datagram of a connection."""
RPI_MAX_US = 200_000
"""Longest interval: until the next block comes, the controller holds the accept of the last."""
EACH_MAX = 4
"""Connections of requests in one session."""
REQUEST_TIMEOUT_S = 10.0
"""A connection of requests is kept at least this long without one."""
COUNT_NBYTES, RUN_NBYTES = 2, 4
"""In front of cyclic data: a count, and from the controller a word whose lowest bit says that it runs."""
HERE = {(1, 0)}
"""The only way from here: slot 0 of a backplane of one device."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks, and how to answer."""

    host: str
    """The address of the client."""
    own_host: str
    """The address of ours that it reached."""
    session: int
    cyclic_port: int
    """Where the client wants cyclic data."""


@dataclass(slots=True)
class Requests:
    """A connection of class 3."""

    name: ConnectionName
    ot_id: int
    to_id: int
    session: int
    timeout_s: float
    ends_s: float

    def heard(self, now_s: float) -> None:
        """A request came."""
        self.ends_s = now_s + self.timeout_s


@dataclass(slots=True)
class Cyclic:
    """A connection of class 1."""

    name: ConnectionName
    ot_id: int
    to_id: int
    host: str
    port: int
    consumed: Assembly | None
    """What the controller sends; None: only that it is there."""
    produced: Assembly
    interval_s: float
    timeout_s: float
    ends_s: float
    came: int = -1
    """Number of the last datagram that came."""
    count: int = -1
    """Of the data in it."""
    sent: int = 0
    running: bool = False
    """The controller is in run mode."""

    def datagram(self, data: bytes) -> bytes:
        """The next one to send."""
        self.sent += 1
        return encode_cyclic(self.to_id, self.sent, struct.pack("<H", self.sent & 0xFFFF) + data)

    def take(self, number: int, body: bytes, now_s: float) -> bool:
        """A datagram came: are its data new, and does the controller run? Older ones than the last, and ones that have
        not the agreed length, count for nothing."""
        if self.came >= 0 and not 0 < (number - self.came) & 0xFFFFFFFF < 1 << 31:
            return False
        new = False
        if self.consumed is None:
            self.running = True
        elif len(body) != COUNT_NBYTES + RUN_NBYTES + self.consumed.nbytes:
            return False
        else:
            count, run = struct.unpack_from("<HI", body)
            new = bool(run & 1) and (count != self.count or not self.running)
            self.count, self.running = count, bool(run & 1)
        self.came, self.ends_s = number, now_s + self.timeout_s
        return new


class Connections:
    """All connections of an adapter."""

    def __init__(self, config: Ethernetip, identity: Identity) -> None:
        self._config = config
        self._identity = identity
        self.requests: dict[int, Requests] = {}
        self.cyclic: dict[int, Cyclic] = {}
        """Both by the id that the originator uses."""

    @property
    def owner(self) -> Cyclic | None:
        """The connection whose controller alone may write."""
        return next((cyclic for cyclic in self.cyclic.values() if cyclic.consumed is not None), None)

    @property
    def status(self) -> int:
        """Of the identity: owned or not, and how its cyclic connections are."""
        running = any(cyclic.running for cyclic in self.cyclic.values())
        return int(self.owner is not None) | (0x60 if running else 0x70 if self.cyclic else 0x30)

    def used_by(self, session: int, host: str) -> bool:
        """Has this session a connection of requests, or this address a cyclic one?"""
        return any(each.session == session for each in self.requests.values()) or any(
            each.host == host for each in self.cyclic.values()
        )

    def open(self, asked: ForwardOpen, origin: Origin, now_s: float) -> Requests | Cyclic:
        """Raises CipError."""
        present = [each.name for each in self.requests.values()] + [each.name for each in self.cyclic.values()]
        if asked.name in present:
            raise refused(Extended.IN_USE)
        path = decode_path(asked.path)
        if set(path.ports) - HERE or len(path.ports) > 1:
            raise refused(Extended.PORT)
        self._identity.check(path.key)
        if asked.ot.kind != POINT_TO_POINT:
            raise refused(Extended.OT_TYPE)
        if asked.to.kind != POINT_TO_POINT:
            raise refused(Extended.TO_TYPE)
        if asked.transport_class == 3:
            return self._open_requests(asked, path, origin, now_s)
        if asked.transport_class == 1 and asked.trigger >> 4 & 7 == CYCLIC_TRIGGER:
            return self._open_cyclic(asked, path, origin, now_s)
        raise refused(Extended.TRANSPORT)

    def close(self, name: ConnectionName, origin: Origin) -> None:
        """Raises CipError for a connection that is not there, or is another's."""
        for ot_id, cyclic in self.cyclic.items():
            if cyclic.name == name and cyclic.host == origin.host:
                del self.cyclic[ot_id]
                return
        for ot_id, requests in self.requests.items():
            if requests.name == name and requests.session == origin.session:
                del self.requests[ot_id]
                return
        raise refused(Extended.NOT_FOUND)

    def end_session(self, session: int) -> None:
        """Its TCP connection has ended, and the connections of requests in it."""
        self.requests = {ot_id: each for ot_id, each in self.requests.items() if each.session != session}

    def sweep(self, now_s: float) -> list[Cyclic]:
        """End what has been silent for too long; the cyclic ones of them."""
        self.requests = {ot_id: each for ot_id, each in self.requests.items() if now_s <= each.ends_s}
        silent = [cyclic for cyclic in self.cyclic.values() if now_s > cyclic.ends_s]
        for cyclic in silent:
            del self.cyclic[cyclic.ot_id]
        return silent

    def take(self, datagram: bytes, host: str, now_s: float) -> tuple[Cyclic, bytes | None] | None:
        """Whose cyclic data came, and the data if they are to be done. None: a datagram of no connection, or of another
        address than its controller's."""
        try:
            ot_id, number, body = decode_cyclic(datagram)
        except EncapsulationError:
            return None
        cyclic = self.cyclic.get(ot_id)
        if cyclic is None or cyclic.host != host:
            return None
        return cyclic, body[COUNT_NBYTES + RUN_NBYTES :] if cyclic.take(number, body, now_s) else None

    def _open_requests(self, asked: ForwardOpen, path: Path, origin: Origin, now_s: float) -> Requests:
        if path.class_id != MESSAGE_ROUTER or path.instances != [1] or path.attribute is not None or path.data:
            raise refused(Extended.APPLICATION_PATH)
        if sum(each.session == origin.session for each in self.requests.values()) >= EACH_MAX:
            raise refused(Extended.FULL)
        timeout_s = max(REQUEST_TIMEOUT_S, asked.ot.rpi_us * asked.multiplier / 1e6)
        ot_id = self._new_id()
        opened = Requests(asked.name, ot_id, asked.to_id, origin.session, timeout_s, now_s + timeout_s)
        self.requests[ot_id] = opened
        return opened

    def _open_cyclic(self, asked: ForwardOpen, path: Path, origin: Origin, now_s: float) -> Cyclic:
        if len(self.cyclic) >= self._config.cyclic_max:
            raise refused(Extended.FULL)
        if path.class_id != ASSEMBLY or len(path.instances) not in (2, 3) or path.attribute is not None:
            raise refused(Extended.APPLICATION_PATH)
        if path.data or (len(path.instances) == 3 and path.instances[0] != CONFIGURATION):
            raise refused(Extended.CONFIGURATION_PATH)
        consumed_instance, produced_instance = path.instances[-2:]
        if consumed_instance not in (COMMAND.instance, INPUT_ONLY):
            raise refused(Extended.CONSUMED_PATH)
        produced = ASSEMBLIES.get(produced_instance)
        if produced is None or produced not in PRODUCED:
            raise refused(Extended.PRODUCED_PATH)
        consumed = COMMAND if consumed_instance == COMMAND.instance else None
        if consumed is not None and self.owner is not None:
            raise refused(Extended.OWNED)
        ot_nbytes = COUNT_NBYTES + (RUN_NBYTES + consumed.nbytes if consumed is not None else 0)
        if asked.ot.nbytes != ot_nbytes and (consumed is not None or asked.ot.nbytes not in (0, 2, 6)):
            raise refused(Extended.OT_SIZE, ot_nbytes)
        if asked.to.nbytes != COUNT_NBYTES + produced.nbytes:
            raise refused(Extended.TO_SIZE, COUNT_NBYTES + produced.nbytes)
        least_us = self._config.cyclic_min_ms * 1000
        if not all(least_us <= flow.rpi_us <= RPI_MAX_US for flow in (asked.ot, asked.to)):
            raise refused(Extended.RPI)
        timeout_s = asked.ot.rpi_us * asked.multiplier / 1e6
        ot_id = self._new_id()
        opened = Cyclic(
            asked.name, ot_id, asked.to_id, origin.host, origin.cyclic_port, consumed, produced,
            asked.to.rpi_us / 1e6, timeout_s, now_s + max(FIRST_S, timeout_s),
        )  # fmt: skip
        self.cyclic[ot_id] = opened
        return opened

    def _new_id(self) -> int:
        """One that nobody can guess, so that nobody sends in another's name by chance."""
        while True:
            ot_id = secrets.randbits(32)
            if ot_id and ot_id not in self.requests and ot_id not in self.cyclic:
                return ot_id
