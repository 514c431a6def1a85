"""One connection to the broker, from the first try to its end. The next one is another object.

The library would keep unacknowledged messages across a reconnection and send them again unchanged: twice, and with an
accept that no longer holds. So a connection that has ended is discarded with everything in it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from asperity.runtime.errors import ConfigError
from asperity.runtime.files import shown
from asperity.runtime.gateways.config import Mqtt
from asperity.runtime.gateways.mqtt.broker_limits import INFLIGHT_MAX, BrokerLimits, limits_of, publish_nbytes
from asperity.runtime.gateways.mqtt.messages import Message, Refused, id_of
from asperity.runtime.gateways.mqtt.paho_client import INCOMING_NBYTES_MAX, PahoClient
from asperity.runtime.gateways.mqtt.reason_words import (
    TAKEN_OVER,
    TOO_LARGE,
    cannot_connect,
    closed_unanswered,
    reason,
    refusal,
)
from asperity.runtime.security.certificates import check_dates, check_key, read_certificates
from asperity.runtime.security.private_files import read_secret
from asperity.runtime.wire import MAX_CONTROL_BYTES, OPERATIONS

REQUESTS_WAITING_MAX = 64
"""Requests that may wait for the gateway's loop; what is beyond is answered BUSY."""
REFUSED_WAITING_MAX = 4096
"""Requests that may wait for their refusal; what is beyond is only counted, as ``unanswered``."""
WATCHED_WAITING_MAX = 4096
"""Messages of the station's own topics that may wait for it; what is beyond is only counted, as ``unseen``."""
TOPIC_SHOWN = 80
MAX_PACKET_BYTES = MAX_CONTROL_BYTES + 1024

log = logging.getLogger("asperity.gateway")


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
        will_retained: bool = True,
    ) -> None:
        """``requests``: topic above those of requests; empty: none are taken. ``watched``: topics whose messages go to
        ``watched``."""
        self.up = False
        self.ended = False
        self.why = ""
        self.acknowledged: deque[tuple[int, str]] = deque()
        """Number of a message, and why the broker refused it; empty: it did not."""
        self.requests: deque[Message] = deque()
        self.watched: deque[Message] = deque()
        self.unseen = 0
        self.denied: list[str] = []
        """Topics that the broker does not let this client read, and why."""
        self.refused: deque[Refused] = deque()
        self.unanswered = 0
        self.client_id = client_id
        self.limits = BrokerLimits()
        self.up_s: float | None = None
        """When the broker accepted the connection."""
        self.taken_over = self.too_large = self.silent = False
        """How the broker ended it: it said so, or it closed an accepted connection without a reason."""
        self.largest_nbytes = 0
        """Largest packet that was sent."""
        self.began_s = time.monotonic()
        self._config = config
        self._watched = frozenset(watched)
        self._requests = requests
        self._subscription: int | None = None  # number of the SUBSCRIBE
        self._strayed = False
        self._refusal = ""  # what the broker said to it
        self._subscribe = list(watched)
        self._wake = wake
        self._five = config.version == "5"
        version = MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311
        self._client = client = PahoClient(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._five else True,
            protocol=version,
            reconnect_on_failure=False,
        )
        client.connect_timeout = config.connect_ms / 1000
        client.max_inflight_messages_set(INFLIGHT_MAX)
        client.will_set(will[0], will[1], qos=1, retain=will_retained)
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
        client.on_broken = self._on_broken
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
        self.largest_nbytes = max(self.largest_nbytes, publish_nbytes(topic, payload, qos, properties is not None))
        return self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties).mid

    def fits(self, topic: str, payload: bytes) -> bool:
        """Does the broker take a message of this size?"""
        limit = self.limits.packet_max_nbytes
        return limit is None or publish_nbytes(topic, payload, 1, True) <= limit

    def abandon(self, why: str) -> None:
        """End without notifying the broker, which then gives the last will."""
        self.why = self.why or why
        self.ended = True
        self._client.drop_unsent()
        with contextlib.suppress(OSError):
            if isinstance(open_socket := self._client.socket(), socket.socket):
                open_socket.shutdown(socket.SHUT_RDWR)

    def disconnect(self) -> None:
        """End in order: the broker does not give the last will."""
        self._client.disconnect()

    def _run(self) -> None:
        own, where = self._config, (self._config.host, self._config.port, self._config.keepalive_s)
        try:
            if self._five:
                properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
                properties.MaximumPacketSize = INCOMING_NBYTES_MAX
                self._client.connect(*where, clean_start=True, properties=properties)
            else:
                self._client.connect(*where)
        except (OSError, ValueError) as error:
            self._end(cannot_connect(error, own))
            return
        if self.ended:  # given up meanwhile: it must not become a second client of this id
            self.abandon("")
            return
        self._client.loop_start()

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.up, self.ended = False, True
        self._wake()

    def _on_broken(self, why: str) -> None:
        self.abandon(why)
        self._end(why)

    def _on_connect(
        self, client: paho.Client, data: Any, flags: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        if self.ended:
            self.abandon("")
            return
        if code.is_failure:
            texts = (str(getattr(properties, name, "")) for name in ("ReasonString", "ServerReference"))
            self._refusal = " ".join(text for text in texts if text)
            return  # said at the end
        self.limits = limits = limits_of(properties)
        if why := limits.unusable():
            self.why = why
            self.disconnect()
            return
        self.client_id = limits.client_id or self.client_id
        self._client.keep_inflight(limits.inflight)
        self._client.keep_alive_within(self._config.keepalive_s)
        if self._requests:
            names = OPERATIONS if not limits.wildcards else ("+",)
            self._subscribe += [f"{self._requests}/{name}" for name in names]
        sent, self._subscription = client.subscribe([(each, 1) for each in self._subscribe])
        if sent != MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.why = "the subscription could not be sent"
        self.up_s = time.monotonic()
        self.up = True
        self._wake()

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: Any, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._end(self._why(code, str(getattr(properties, "ReasonString", ""))))

    def _why(self, code: ReasonCode, said: str) -> str:
        """Why the connection has ended, by what the broker sent and what it did not."""
        own, client, why = self._config, self._client, ""
        if client.problem:
            why = client.problem
        elif client.refused:
            why = f"the broker refused the connection: {refusal(client.refused, self._refusal)}"
        elif client.disconnected is not None:
            self.taken_over = client.disconnected == TAKEN_OVER
            self.too_large = client.disconnected == TOO_LARGE
            why = f"the broker closed the connection: {reason(client.disconnected, said)}"
        elif code == "Protocol error":
            why = f"the broker sent a packet that is not MQTT {own.version}"
        elif code == "Keep alive timeout":
            why = "the broker has stopped answering (keep alive timeout)"
        elif self.up_s is None:
            why = closed_unanswered(own)
        else:
            self.silent = True
            why = "the broker closed the connection without a reason; its log has the reason"
        return why

    def _on_publish(
        self, client: paho.Client, data: Any, number: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        said = str(getattr(properties, "ReasonString", ""))
        self.acknowledged.append((number, reason(code.value, said) if code.is_failure else ""))
        self._wake()

    def _on_subscribe(
        self, client: paho.Client, data: Any, number: int, codes: list[ReasonCode], properties: Properties | None
    ) -> None:
        if number != self._subscription:
            return
        self.denied = [
            f"{topic} ({'no answer' if code is None else reason(code.value)})"
            for topic, code in zip_longest(self._subscribe, codes[: len(self._subscribe)])
            if code is None or code.is_failure
        ]
        self._wake()

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "?"
        nbytes = len(message.payload)
        if topic not in self._watched and not self._is_request(topic):
            self._stray(topic)
        elif topic in self._watched:
            if len(self.watched) < WATCHED_WAITING_MAX:
                body = bytes(message.payload[:MAX_PACKET_BYTES])
                self.watched.append(Message(topic, body, message.retain, message.dup))
            else:
                self.unseen += 1
        elif nbytes <= MAX_PACKET_BYTES and len(self.requests) < REQUESTS_WAITING_MAX:
            self.requests.append(Message(topic, bytes(message.payload), message.retain, message.dup))
        elif len(self.refused) < REFUSED_WAITING_MAX:
            large = f"the request has {nbytes} bytes; at most {MAX_PACKET_BYTES} are read"
            many = f"{REQUESTS_WAITING_MAX} requests are waiting; try again later"
            code, text = ("BAD_REQUEST", large) if nbytes > MAX_PACKET_BYTES else ("BUSY", many)
            self.refused.append(Refused(id_of(bytes(message.payload)), code, text))
        else:
            self.unanswered += 1
        self._wake()


    def _is_request(self, topic: str) -> bool:
        """What was not subscribed to is not a request, from any sender."""
        return bool(self._requests) and topic.rpartition("/")[0] == self._requests

    def _stray(self, topic: str) -> None:
        if not self._strayed:
            self._strayed = True
            log.warning(
                "the broker sent a message of topic %r, to which the gateway did not subscribe; such messages are "
                "ignored. Does the broker subscribe clients by itself?", shown(topic[:TOPIC_SHOWN]),
            )  # fmt: skip


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
