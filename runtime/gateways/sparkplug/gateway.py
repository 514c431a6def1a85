"""``asperity gateway sparkplug``: a station as a Sparkplug B edge node, for SCADA and MES.

Results come as data, each once and in order; those that waited for the broker are marked historical. Nothing of it is
a permission to pass. Commands other than a rebirth are not taken: use another gateway.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict, deque

import msgspec

from asperity.runtime.client.ordering import Gap
from asperity.runtime.errors import ConfigError
from asperity.runtime.gateways import process
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.link import Delivered, Item, Link
from asperity.runtime.gateways.mqtt import identity
from asperity.runtime.gateways.mqtt.broker_session import BrokerSession
from asperity.runtime.gateways.mqtt.connection import Connection, tls_context
from asperity.runtime.gateways.sparkplug.metrics import gap_metrics, result_metrics, station_values
from asperity.runtime.gateways.sparkplug.node import Message, Node

UNSENT_MAX = 32
"""Messages that may wait for the network in the library; results beyond stay here."""
FORBIDDEN = frozenset("/+#")
GOODBYE_S = 0.5
log = logging.getLogger("asperity.gateway")


def serve(config: GatewayConfig) -> None:
    """Publish until SIGTERM. Raises ConfigError, GatewayError."""
    identity.check(config.mqtt)
    for key in ("group", "node", "primary_host"):
        value = getattr(config.sparkplug, key)
        if FORBIDDEN & set(value) or not value.isprintable() or (key == "group" and not value):
            raise ConfigError(f"[sparkplug] {key} is {value!r}; use printable characters without / + #")
    tls_context(config.mqtt)
    process.run(config, lambda link: SparkplugGateway(config, link))


class SparkplugGateway:
    """The protocol's part of the process."""

    def __init__(self, config: GatewayConfig, link: Link) -> None:
        self._config = config
        self._link = link
        self._own = msgspec.structs.replace(config.mqtt, client_id=config.sparkplug.client_id)
        self._instance = secrets.token_hex(8)
        self._connections = 0
        self._node = self._new_node()
        self._session = BrokerSession(self._own, self._connect, self._lost)
        self._waiting: deque[Item] = deque()
        self._dropped: Gap | None = None
        self._unsent: OrderedDict[int, Item | None] = OrderedDict()  # by the library's number
        self._up_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self.problem = ""

    async def open(self) -> str:
        """Begin to connect; the broker may be away."""
        self._loop = asyncio.get_running_loop()
        self._session.begin(time.monotonic())
        return f"{self._node.commands} at {self._own.host} port {self._own.port}"

    def refresh(self) -> None:
        """Everything that is due."""
        if self._error is not None:
            raise self._error
        for item in self._link.take(self._config.mqtt.buffer_results):
            self._wait(item)
        connection = self._session.turn(time.monotonic())
        self.problem = self._session.problem
        if connection is None:
            return
        while connection.acknowledged:
            self._unsent.pop(connection.acknowledged.popleft()[0], None)
        self._listen(connection)
        if not self._node.host_online:
            self.problem = f"the primary host {self._config.sparkplug.primary_host} is not online"
            self._die(connection)
            return
        values, now_ms = station_values(self._link.view()), _now_ms()
        if not self._node.born or self._node.rebirth:
            if not self._node.born:
                self._up_s = time.monotonic()
            self._send(connection, self._node.birth(values, now_ms))
        news = self._node.news(values, now_ms) if len(self._unsent) < UNSENT_MAX else None
        if news is not None:
            self._send(connection, news)
        while self._waiting and len(self._unsent) < UNSENT_MAX:
            self._send_item(connection, self._waiting.popleft())

    async def close(self) -> None:
        """Say the end, and wait a moment for the broker to have it."""
        connection = self._session.connection
        if connection is None:
            return
        self._die(connection)
        connection.disconnect()
        ends_s = time.monotonic() + GOODBYE_S
        while not connection.ended and time.monotonic() < ends_s:
            await asyncio.sleep(0.01)

    def _new_node(self) -> Node:
        own = self._config.sparkplug
        return Node(own.group, own.node or self._config.station.name, own.primary_host, self._connections)

    def _connect(self) -> Connection:
        assert self._loop is not None
        loop = self._loop

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._turn)

        self._node = self._new_node()
        self._connections += 1
        watched = [topic for topic in (self._node.commands, self._node.host_topic) if topic]
        client_id = identity.client_id(self._own, self._config.station.name, self._instance)
        will = self._node.death(_now_ms())
        return Connection(self._own, client_id, will, "", watched, tls_context(self._own), wake, will_retained=False)

    def _turn(self) -> None:
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001 - raised by the next refresh, in the process's own loop
            self._error = error

    def _lost(self) -> None:
        """What the library had not written to the network comes again. What was on its way may be lost: the numbers of
        the results say so."""
        self._waiting.extendleft(item for item in reversed(self._unsent.values()) if item is not None)
        self._unsent.clear()

    def _listen(self, connection: Connection) -> None:
        for _ in range(len(connection.watched)):
            message = connection.watched.popleft()
            why = self._node.hear(message.topic, message.body)
            if why:
                log.warning("not followed: %s", why)
        if connection.denied:
            log.error("the broker does not let the gateway read %s", ", ".join(connection.denied))
            connection.denied = []

    def _die(self, connection: Connection) -> None:
        if self._node.born:
            self._node.born = False
            self._send(connection, self._node.death(_now_ms()))

    def _wait(self, item: Item) -> None:
        """The oldest makes room, and is named as a gap."""
        if len(self._waiting) >= self._config.mqtt.buffer_results:
            first, last = _ids(self._waiting.popleft())
            first = self._dropped.first_id if self._dropped is not None else first
            self._dropped = Gap(first, last, "dropped while the broker was away")
        self._waiting.append(item)

    def _send_item(self, connection: Connection, item: Item) -> None:
        now_ms = _now_ms()
        if self._dropped is not None:
            gap, self._dropped = self._dropped, None
            self._send(connection, self._node.data(gap_metrics(gap, now_ms), now_ms))
        if isinstance(item, Delivered):
            metrics = result_metrics(item.result, historical=item.at_s < self._up_s)
        else:
            metrics = gap_metrics(item, now_ms)
        self._send(connection, self._node.data(metrics, now_ms), item)

    def _send(self, connection: Connection, message: Message, item: Item | None = None) -> None:
        if connection.fits(*message):
            self._unsent[connection.publish(*message, qos=0)] = item
        else:
            size, limit = len(message[1]), connection.limits.packet_max_nbytes or 0
            log.error("%s of %d bytes is not sent, the broker takes packets of %d", message[0], size, limit)


def _ids(item: Item) -> tuple[int, int]:
    return (item.result.result_id,) * 2 if isinstance(item, Delivered) else (item.first_id, item.last_id)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
