"""One connection to the broker, from the first try to its end. The next one is another object.

The library would keep unacknowledged messages across a reconnection and send them again unchanged: twice, and with an
accept that no longer holds. So a connection that has ended is discarded with everything in it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways.config import Mqtt
from asperity.runtime.security.certificates import check_dates, check_key, read_certificates
from asperity.runtime.security.private_files import read_secret
from asperity.runtime.wire import MAX_CONTROL_BYTES

REQUESTS_WAITING_MAX = 64
"""Requests that may wait for the gateway's loop; what is beyond is not answered."""
WATCHED_WAITING_MAX = 4096
"""Messages of the station's own topics that may wait for it; what is beyond is only counted, as ``unseen``."""
MAX_PACKET_BYTES = MAX_CONTROL_BYTES + 1024
MESSAGES_UNACKNOWLEDGED_MAX = 20
"""Beyond that the library would keep messages back, among them an accept false. Brokers allow 20."""


class Message(NamedTuple):
    """What the broker delivered."""

    topic: str
    body: bytes
    retained: bool
    """Kept by the broker from before the subscription."""
    again: bool
    """The broker repeats it (DUP)."""


class Connection:
    """Connects in its own thread; ``up`` and ``ended`` say how far it is. ``publish`` and the queues are for the
    gateway's loop, which ``wake`` calls."""

    def __init__(
        self,
        config: Mqtt,
        client_id: str,
        will: tuple[str, bytes],
        requests: str,
        watched: Sequence[str],
        context: ssl.SSLContext | None,
        wake: Callable[[], None],
    ) -> None:
        """``requests``: topic filter of requests; empty: none are taken. ``watched``: topics whose messages go to
        ``watched``."""
        self.up = False
        self.ended = False
        self.why = ""
        self.acknowledged: deque[tuple[int, bool]] = deque()
        self.requests: deque[Message] = deque()
        self.watched: deque[Message] = deque()
        self.unseen = 0
        self.denied: list[str] = []
        """Topics that the broker does not let this client read."""
        self.refused_requests = 0
        self.began_s = time.monotonic()
        self._config = config
        self._watched = frozenset(watched)
        self._subscribe = [*watched, *([requests] if requests else [])]
        self._wake = wake
        self._five = config.version == "5"
        version = MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._five else True,
            protocol=version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = config.connect_ms / 1000
        client.max_inflight_messages_set(MESSAGES_UNACKNOWLEDGED_MAX)
        client.will_set(will[0], will[1], qos=1, retain=True)
        if config.user:
            password = read_secret(Path(config.password_file)).rstrip("\r\n") if config.password_file else None
            client.username_pw_set(config.user, password)
        if context is not None:
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._thread = threading.Thread(target=self._run, name="mqtt-connect", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool = False, expiry_s: int | None = None) -> int:
        """Hand a message to the library; its number. ``expiry_s`` only with MQTT 5."""
        properties = None
        if self._five and expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.MessageExpiryInterval = expiry_s
        return self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties).mid

    def abandon(self, why: str) -> None:
        """End without notifying the broker, which then gives the last will."""
        self.why = self.why or why
        self.ended = True
        with contextlib.suppress(OSError):
            if isinstance(open_socket := self._client.socket(), socket.socket):
                open_socket.shutdown(socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """End in order: the broker does not give the last will."""
        self._client.disconnect()

    def _run(self) -> None:
        try:
            if self._five:
                self._client.connect(self._config.host, self._config.port, self._config.keepalive_s, clean_start=True)
            else:
                self._client.connect(self._config.host, self._config.port, self._config.keepalive_s)
            self._client.loop_start()
        except (OSError, ValueError) as error:
            self.why = self.why or str(error)
            self.ended = True
            self._wake()

    def _on_connect(
        self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self.why = f"the broker refused: {reason}"
            return
        if client.subscribe([(each, 1) for each in self._subscribe])[0] != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.why = "the subscription could not be sent"
        self.up = True
        self._wake()

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.why = self.why or f"the connection ended: {reason}"
        self.up, self.ended = False, True
        self._wake()

    def _on_publish(
        self, client: paho.Client, data: Any, number: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.acknowledged.append((number, not reason.is_failure))
        self._wake()

    def _on_subscribe(
        self, client: paho.Client, data: Any, number: int, reasons: list[ReasonCode], properties: Properties | None
    ) -> None:
        self.denied = [each for each, reason in zip(self._subscribe, reasons, strict=False) if reason.is_failure]
        self._wake()

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        body = bytes(message.payload[:MAX_PACKET_BYTES])
        found = Message(message.topic, body, message.retain, message.dup)
        if found.topic in self._watched:
            if len(self.watched) < WATCHED_WAITING_MAX:
                self.watched.append(found)
            else:
                self.unseen += 1
        elif len(self.requests) < REQUESTS_WAITING_MAX and len(message.payload) <= MAX_PACKET_BYTES:
            self.requests.append(found)
        else:
            self.refused_requests += 1
            return
        self._wake()


def tls_context(config: Mqtt) -> ssl.SSLContext | None:
    """How the broker is authenticated; None without TLS. Raises ConfigError."""
    if not config.tls:
        if _off_this_box(config.host) and not config.insecure_lan:
            raise ConfigError(
                f"[mqtt] host is {config.host} and tls is false, so anyone on the network path could read and change "
                "what is published; set tls = true, or insecure_lan = true if that network is trusted"
            )
        return None
    _check_files(config)
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.certificate_file:
            context.load_cert_chain(config.certificate_file, config.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[mqtt] ca_file, certificate_file or key_file cannot be used: {error}") from error
    return context


def _check_files(config: Mqtt) -> None:
    """Raises ConfigError, and GatewayError for a certificate that is not valid yet."""
    if config.ca_file:
        path = Path(config.ca_file)
        check_dates(read_certificates(path, "[mqtt] ca_file"), path, "[mqtt] ca_file")
    if config.certificate_file:
        path = Path(config.certificate_file)
        own = read_certificates(path, "[mqtt] certificate_file")
        check_dates(own[:1], path, "[mqtt] certificate_file")
        check_key(Path(config.key_file or config.certificate_file), own[0], "[mqtt] key_file")


def _off_this_box(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
