"""``asperity gateway mqtt``: results, state and accept of a station as JSON to an MQTT broker.

MQTT keeps what was said: an accept in a broker outlives the part it was for. So accept is withdrawn before the next
result is told, as soon as it may not pass any more, and when the gateway ends; a gateway that dies leaves the last
will ``online`` false, and with MQTT 5 a retained accept expires. A subscriber that sees ``online`` false, or no
``state`` for ``beat_timeout_ms``, rejects.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from runtime.errors import ConfigError, WireError
from runtime.gateways import process
from runtime.gateways.config import GatewayConfig, client_key
from runtime.gateways.link import Delivered, Item, Link
from runtime.gateways.mqtt_commands import Answered, Commands
from runtime.gateways.mqtt_connection import Connection, tls_context
from runtime.gateways.mqtt_outbox import Outbox, StateFile, ids, uncertain
from runtime.ordering import Gap
from runtime.transport import read_client_key, receive, secure
from runtime.wire import StationState, decode_event, encode_result_body, encode_state, topic
from runtime.wire.common import MAX_EVENT_BYTES

ITEMS_AT_ONCE = 1000
REPLIES_WAITING_MAX = 64
EVENTS_WAITING_MAX = 100
RETRY_MIN_S = 0.1
STALLED_S = 1.0
"""With a broker that has not acknowledged for so long, what is published without acknowledgement is left out."""
GOODBYE_S = 0.7
"""At the end: so long may the broker take to acknowledge that nothing may pass any more."""

log = logging.getLogger("asperity.gateway")


def serve(config: GatewayConfig) -> None:
    """Publish until SIGTERM. Raises ConfigError, GatewayError."""
    own = config.mqtt
    if not own.prefix or any(character in own.prefix for character in "+#\0"):
        raise ConfigError(f"[mqtt] prefix is {own.prefix!r}; give a topic without + and #, such as asperity")
    context = tls_context(own)
    file = StateFile(_state_path(config), config.station.name)

    def connect(wake: Callable[[], None]) -> Connection:
        base = f"{own.prefix}/{config.station.name}"
        subscribe = f"{base}/command/+" if own.commands and config.gateway.commands else ""
        client_id = own.client_id or f"asperity-{config.station.name}"
        return Connection(own, client_id, (f"{base}/online", _json(online=False)), subscribe, context, wake)

    process.run(config, lambda link: MqttGateway(config, link, file, connect), since=file.since)


class MqttGateway:
    """The MQTT part of the process."""

    def __init__(
        self,
        config: GatewayConfig,
        link: Link,
        file: StateFile,
        connect: Callable[[Callable[[], None]], Connection],
    ) -> None:
        self._config = config
        self._link = link
        self._file = file
        self._connect = connect
        self._base = f"{config.mqtt.prefix}/{config.station.name}"
        self._commands = Commands(link)
        self._events = _Events(config)
        self._outbox = Outbox(config.mqtt.buffer_results)
        self._outbox.name(file.gaps())
        self._connection: Connection | None = None
        self._greeted = False
        self._inflight: OrderedDict[int, tuple[Item | None, float]] = OrderedDict()
        self._acknowledged_id = file.acknowledged
        self._history_id: int | None = None if file.since else 0
        self._accepted: Delivered | None = None  # what accept was published true for
        self._accepted_s = 0.0
        self._state: StationState | None = None
        self._good: bool | None = None
        self._replies: deque[Answered] = deque(maxlen=REPLIES_WAITING_MAX)
        self._tries = 0
        self._retry_s = 0.0
        self._said = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None

    async def open(self) -> str:
        """Begin to connect; the broker may be away."""
        self._loop = asyncio.get_running_loop()
        self._begin_connection()
        return f"{self._base}/# at {self._config.mqtt.host} port {self._config.mqtt.port}"

    def refresh(self) -> None:
        """Everything that is due."""
        if self._error is not None:
            raise self._error
        self._take_from_station()
        connection = self._connection
        if connection is None:
            if time.monotonic() >= self._retry_s:
                self._begin_connection()
            return
        waited_ms = (time.monotonic() - connection.began_s) * 1000
        if not connection.up and not connection.ended and waited_ms > 2 * self._config.mqtt.connect_ms:
            connection.abandon("the broker did not answer")
        if connection.ended:
            self._lose_connection(connection)
            return
        if connection.up:
            self._greet(connection)
            self._take_acknowledgements(connection)
            self._take_requests(connection)
            self._publish(connection)

    async def close(self) -> None:
        """Withdraw accept, say offline, and wait a moment for the broker to have both."""
        self._events.close()
        connection = self._connection
        if connection is None or not connection.up:
            return
        self._withdraw(connection, "the gateway is ending")
        self._send(connection, "online", _json(online=False), retain=True)
        ends_s = time.monotonic() + GOODBYE_S
        while self._inflight and connection.up and time.monotonic() < ends_s:
            await asyncio.sleep(0.01)
            self._take_acknowledgements(connection)
        if self._file.sent:
            self._file.write(self._file.sent, self._acknowledged_id)
        connection.disconnect()
        while not connection.ended and time.monotonic() < ends_s:
            await asyncio.sleep(0.01)

    def _turn(self) -> None:
        """Woken by the connection's thread; what fails is raised by the next refresh, in the process's own loop."""
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001
            self._error = error

    def _begin_connection(self) -> None:
        assert self._loop is not None
        loop = self._loop

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._turn)

        self._greeted = False
        self._connection = self._connect(wake)
        self._connection.start()

    def _lose_connection(self, connection: Connection) -> None:
        """Name what was under way, and try again later, ever later."""
        items = [item for item, _ in self._inflight.values() if item is not None]
        self._outbox.name(uncertain(items))
        self._inflight.clear()
        self._accepted = None
        if items:
            self._acknowledged_id = self._file.sent
        self._connection = None
        pause_s = min(self._config.mqtt.retry_max_ms / 1000, RETRY_MIN_S * 2 ** min(self._tries, 16))
        self._retry_s = time.monotonic() + pause_s
        self._tries += 1
        if self._said != connection.why:
            self._said = connection.why
            own = self._config.mqtt
            log.warning("no connection to the broker at %s port %d: %s; trying on", own.host, own.port, connection.why)

    def _greet(self, connection: Connection) -> None:
        """First words of a connection: nothing may pass, then that the gateway is there."""
        if self._greeted:
            return
        self._greeted = True
        self._tries, self._said = 0, ""
        log.info("connected to the broker at %s port %d", self._config.mqtt.host, self._config.mqtt.port)
        self._withdraw(connection, "the gateway has just connected")
        self._send(connection, "online", _json(online=True), retain=True)
        self._state = None
        self._good = None

    def _take_from_station(self) -> None:
        view = self._link.view()
        if self._history_id is None and view.state is not None:
            # What was judged before this gateway was there is told, but no part of then may pass now.
            self._history_id = view.state.last_result_id
        for item in self._link.take(ITEMS_AT_ONCE):
            self._outbox.put(item)

    def _take_acknowledgements(self, connection: Connection) -> None:
        while connection.acknowledged:
            number, good = connection.acknowledged.popleft()
            item = self._inflight.pop(number, (None, 0.0))[0]
            if item is None:
                continue
            self._acknowledged_id = ids(item)[1]
            if not good:
                log.error("the broker refused result %d to %d; does its ACL allow this client?", *ids(item))
        if self._file.sent and not any(item is not None for item, _ in self._inflight.values()):
            self._file.write(self._file.sent, self._acknowledged_id)

    def _take_requests(self, connection: Connection) -> None:
        while connection.messages:
            name, body, retained = connection.messages.popleft()
            answer = self._commands.take_in(name.rpartition("/")[2], body, retained)
            if answer is not None:
                self._replies.append(answer)
        self._replies.extend(self._commands.answers())
        while self._replies:
            request_id, body = self._replies.popleft()
            self._send(connection, f"reply/{request_id}", body)

    def _publish(self, connection: Connection) -> None:
        self._publish_accept(connection)
        batch: list[Item] = []
        while len(self._inflight) + len(batch) < self._config.mqtt.inflight:
            item = self._outbox.take()
            if item is None:
                break
            batch.append(item)
        if batch:
            # Before it is sent: a gateway that is killed in between names what it may have sent, and sends none twice.
            self._file.write(ids(batch[-1])[1], self._acknowledged_id)
        for item in batch:
            self._publish_item(connection, item)
        oldest = next(iter(self._inflight.values()), None)
        if oldest is None or time.monotonic() - oldest[1] < STALLED_S:
            self._publish_state(connection)
            for event in self._events.take():
                self._send(connection, "event", event, qos=0)

    def _publish_item(self, connection: Connection, item: Item) -> None:
        """Accept false, the result, then accept true if this part may pass, as it is at this moment."""
        if self._accepted is not None:
            self._withdraw(connection, "the next result")
        if isinstance(item, Gap):
            fields = {"first_id": item.first_id, "last_id": item.last_id, "why": item.why}
            self._send(connection, "gap", _json(station=self._config.station.name, **fields), item=item)
            return
        history = self._history_id is None or item.result.result_id <= self._history_id
        accept = not history and self._link.may_pass(item)
        fields = msgspec.json.decode(encode_result_body(item.result))
        self._send(connection, "result", msgspec.json.encode({**fields, "accept": accept}), item=item)
        if accept:
            self._accepted = item
            self._affirm(connection, item)

    def _publish_accept(self, connection: Connection) -> None:
        """Withdraw it as soon as it must fall; affirm it before it expires."""
        accepted = self._accepted
        if accepted is None:
            return
        if not self._link.may_pass(accepted):
            self._withdraw(connection, self._link.view().why or "the part's time is over")
        elif time.monotonic() - self._accepted_s > self._config.mqtt.accept_expiry_s / 2:
            self._affirm(connection, accepted)

    def _affirm(self, connection: Connection, item: Delivered) -> None:
        self._accepted_s = time.monotonic()
        body = _json(accept=True, result_id=item.result.result_id, part_id=item.result.part_id)
        self._send(connection, "accept", body, retain=True, expiry_s=self._config.mqtt.accept_expiry_s)

    def _withdraw(self, connection: Connection, why: str) -> None:
        result_id = self._accepted.result.result_id if self._accepted else 0
        self._accepted = None
        self._send(connection, "accept", _json(accept=False, result_id=result_id, why=why), retain=True)

    def _publish_state(self, connection: Connection) -> None:
        view = self._link.view()
        if view.state is self._state and view.good == self._good and self._good is not None:
            return
        self._state, self._good = view.state, view.good
        station = {"station": self._config.station.name, "ready": False}
        fields = station if view.state is None else msgspec.json.decode(encode_state(view.state)[1])
        told = {**fields, "ready": bool(fields["ready"]) and view.good, "trusted": view.good, "why": view.why}
        self._send(connection, "state", _json(**told), qos=0, retain=True)

    def _send(
        self,
        connection: Connection,
        name: str,
        body: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        item: Item | None = None,
    ) -> None:
        number = connection.publish(f"{self._base}/{name}", body, qos, retain, expiry_s)
        if qos:
            self._inflight[number] = (item, time.monotonic())


class _Events:
    """The station's events, for people: whatever comes while somebody listens."""

    def __init__(self, config: GatewayConfig) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, EVENTS_WAITING_MAX)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_EVENT_BYTES)
        self._socket.setsockopt(zmq.SUBSCRIBE, topic("event", config.station.name))
        key = client_key(config)
        secure(self._socket, read_client_key(key) if key else None)
        self._socket.connect(config.station.results)

    def take(self) -> list[bytes]:
        """Bodies of what has come."""
        found: list[bytes] = []
        while len(found) < EVENTS_WAITING_MAX:
            try:
                parts = receive(self._socket)
                decode_event(parts)
            except zmq.Again:
                break
            except WireError:
                continue
            found.append(parts[1])
        return found

    def close(self) -> None:
        self._context.destroy(linger=0)


def _json(**fields: Any) -> bytes:
    return msgspec.json.encode({"v": 1, **fields})


def _state_path(config: GatewayConfig) -> Path:
    if config.mqtt.state_file:
        return Path(config.mqtt.state_file)
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "asperity" / f"{config.station.name}.mqtt"
