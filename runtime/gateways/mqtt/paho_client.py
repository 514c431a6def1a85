"""paho's client with what it lacks: a bound on packets before they are read, the broker's codes as it sent them, and
no thread that ends unnoticed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import MessageType, MQTTErrorCode

INCOMING_NBYTES_MAX = 2**20
"""Largest packet that is read. A broker of MQTT 5 is told, and then sends no larger one."""


class PahoClient(paho.Client):
    """``on_broken`` is called where its thread fails, in place of ``on_disconnect``."""

    on_broken: Callable[[str], None]
    refused: int | None = None
    """Code of a CONNACK, as it was sent."""
    disconnected: int | None = None
    """Code of the broker's DISCONNECT."""
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

    def _sock_recv(self, bufsize: int) -> bytes:
        if bufsize > INCOMING_NBYTES_MAX:
            self.problem = (
                f"the broker sent a packet of {bufsize} bytes, the gateway reads at most {INCOMING_NBYTES_MAX}; if it "
                "is a retained message, delete it at the broker"
            )
            raise OSError(errno.EMSGSIZE, self.problem)
        return super()._sock_recv(bufsize)

    def _packet_handle(self) -> MQTTErrorCode:
        kind, packet = self._in_packet["command"] & 0xF0, self._in_packet["packet"]
        if kind == MessageType.CONNACK and len(packet) > 1:
            self.refused = packet[1]
        elif kind == MessageType.DISCONNECT:
            self.disconnected = packet[0] if packet else 0
        return super()._packet_handle()
