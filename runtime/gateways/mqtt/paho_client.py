"""paho's client with what it lacks: a bound on packets before they are read, the broker's codes as it sent them, an end
to a broker that sends what it may not, and no thread that ends unnoticed."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import MessageType, MQTTErrorCode

from asperity.runtime.gateways.mqtt.reason_words import refuses_tls

INCOMING_NBYTES_MAX = 2**20
"""Largest packet that is read. A broker of MQTT 5 is told, and then sends no larger one."""

SHARE_S = 0.05
"""Least time that an address has to answer."""


class PahoClient(paho.Client):
    """``on_broken`` is called where its thread fails, in place of ``on_disconnect``."""

    on_broken: Callable[[str], None]
    refused: int | None = None
    """Code of a CONNACK, as it was sent."""
    disconnected: int | None = None
    """Code of the broker's DISCONNECT."""
    _in_order = False
    problem: str = ""
    """Why the connection was closed from this side."""

    def loop_forever(self, *args: Any, **kwargs: Any) -> MQTTErrorCode:
        """As paho's, which ends its thread in silence if a packet surprises it."""
        try:
            return super().loop_forever(*args, **kwargs)
        except Exception as error:  # noqa: BLE001
            self.on_broken(f"the MQTT library failed on what the broker sent ({type(error).__name__}: {error})")
            return MQTTErrorCode.MQTT_ERR_PROTOCOL

    def keep_inflight(self, most: int) -> None:
        """As ``max_inflight_messages_set``, which is not for a connection whose broker has just said how many."""
        self._max_inflight_messages = most

    def keep_alive_within(self, seconds: int) -> None:
        """Ask the broker for a sign of life at least so often, though it has named a longer time, or 0 for never."""
        self._keepalive = min(seconds, self._keepalive or seconds)

    def _check_keepalive(self) -> None:
        """paho would wait for CONNACK no longer than the keep alive, which is for a connection that was accepted."""
        if self.refused is not None:
            super()._check_keepalive()

    def disconnect(self, *args: Any, **kwargs: Any) -> MQTTErrorCode:
        """As paho's: what was sent before it still arrives."""
        self._in_order = True
        return super().disconnect(*args, **kwargs)

    def drop_unsent(self) -> None:
        """What the system still holds is dropped as the connection closes: through a network that was interrupted it
        would arrive whenever that works again, and speak of parts that are gone, or take over the next connection."""
        with contextlib.suppress(OSError):
            if not self._in_order and isinstance(open_socket := self.socket(), socket.socket):
                open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _sock_close(self) -> None:
        self.drop_unsent()
        super()._sock_close()

    def _create_socket_connection(self) -> socket.socket:
        """To the first address of the name that answers. All have the time of one: paho would give each so much, and
        the last ones, behind dead ones, would never be tried before the connection is given up."""
        last: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        ends_s = time.monotonic() + self._connect_timeout
        for number, (family, kind, protocol, _, where) in enumerate(found):
            made = socket.socket(family, kind, protocol)
            made.settimeout(max(SHARE_S, (ends_s - time.monotonic()) / (len(found) - number)))
            try:
                made.connect(where)
                return made
            except OSError as error:
                made.close()
                last = error
        raise last

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > INCOMING_NBYTES_MAX:
            self.problem = (
                f"the broker sent a packet of {bufsize} bytes, the gateway reads at most {INCOMING_NBYTES_MAX}; if it "
                "is a retained message, delete it at the broker"
            )
            raise OSError(errno.EMSGSIZE, self.problem)
        try:
            return super()._sock_recv(bufsize)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:  # paho takes it for a connection that was closed
            self.problem = self.problem or refuses_tls(error)
            raise

    def _packet_handle(self) -> MQTTErrorCode:
        kind, packet = self._in_packet["command"] & 0xF0, self._in_packet["packet"]
        if why := self._may_not_be(kind, packet):
            self.problem = f"the broker sent {why}, which it may not; it does not speak MQTT as specified"
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        if kind == MessageType.CONNACK and len(packet) > 1:
            self.refused = packet[1]
        elif kind == MessageType.DISCONNECT:
            self.disconnected = packet[0] if packet else 0
        return super()._packet_handle()

    def _may_not_be(self, kind: int, packet: bytes | bytearray) -> str:
        """What paho takes though no broker may send it; empty: it may be."""
        if kind == MessageType.CONNACK and self.refused is not None:
            return "a second CONNACK"
        if kind == MessageType.PUBLISH and self.refused is None:
            return "a message before CONNACK"
        if kind == MessageType.PUBLISH and self._in_packet["command"] & 0x06 == 0x04:
            return "a message of QoS 2, though it was asked for QoS 1"  # paho would keep any number of them
        if kind == MessageType.PUBLISH and packet[:2] == b"\0\0":
            return "a message without a topic (a topic alias, which was not offered)"
        return ""
