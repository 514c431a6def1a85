"""``asperity gateway mqtt``: results, state and accept of a station as JSON to an MQTT broker.

MQTT keeps messages: an accept in a broker outlives the part it was for. So the broker is never given a true to
keep: an accept true is not retained, reaches only clients connected at that moment (QoS 0), is valid for ``valid_ms``
and is repeated while it holds. Accept false is retained; it is sent at the start, before each result, on each change,
twice per second, and as the last will. No part is accepted while another client publishes on its topics.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import msgspec

from asperity.runtime.client.ordering import Gap
from asperity.runtime.gateways import process
from asperity.runtime.gateways.config import GatewayConfig
from asperity.runtime.gateways.link import Delivered, Item, Link
from asperity.runtime.gateways.mqtt import identity
from asperity.runtime.gateways.mqtt.arrivals import Arrivals
from asperity.runtime.gateways.mqtt.broker_limits import INFLIGHT_OTHERS
from asperity.runtime.gateways.mqtt.broker_session import BrokerSession
from asperity.runtime.gateways.mqtt.commands import Commands, too_long
from asperity.runtime.gateways.mqtt.connection import Connection, tls_context
from asperity.runtime.gateways.mqtt.counter_topic import CounterTopic
from asperity.runtime.gateways.mqtt.events import Events
from asperity.runtime.gateways.mqtt.outbox import Outbox, StateFile, ids, uncertain
from asperity.runtime.gateways.mqtt.topic_watch import WATCHED, Watch, denies
from asperity.runtime.gateways.state_message import PACKET_LIMIT, least_state, recipe_message, state_message
from asperity.runtime.wire import encode_result_body

REPEAT_S = 0.5
"""Accept and ``online`` are said again so often: another gateway of this name is heard though its station is dead."""
ALARM = "FOREIGN_PUBLISHER"
"""Among the alarms of the state while another client publishes on the station's topics."""
WHY_MAX = 200
"""Of why there is no accept: that message must fit into every packet."""
STALLED_S = 1.0
"""With a broker that has not acknowledged for this long, what is published without acknowledgement is left out."""
GOODBYE_S = 0.7
"""At the end: how long the broker may take to acknowledge that nothing may pass any more."""

log = logging.getLogger("asperity.gateway")


def serve(config: GatewayConfig) -> None:
    """Publish until SIGTERM. Raises ConfigError, GatewayError."""
    own = config.mqtt
    identity.check(own)
    tls_context(own)  # what cannot be is said now, and not at the first connection
    file = StateFile.held(identity.state_path(config), config.station.name)
    watch = Watch(secrets.token_hex(8), own.clash_quiet_ms / 1000)

    def connect(wake: Callable[[], None]) -> Connection:
        base = f"{own.prefix}/{config.station.name}"
        requests = f"{base}/command" if own.commands and config.gateway.commands else ""
        client_id = identity.client_id(own, config.station.name, watch.instance)
        watched = [f"{base}/{name}" for name in WATCHED]
        will = (f"{base}/accept", watch.will)
        # Read again for each connection: certificates are renewed while a gateway runs.
        return Connection(own, client_id, will, requests, watched, tls_context(own), wake)

    with closing(file):
        process.run(config, lambda link: MqttGateway(config, link, file, watch, connect), since=file.since)


class MqttGateway:
    """The MQTT part of the process."""

    def __init__(
        self,
        config: GatewayConfig,
        link: Link,
        file: StateFile,
        watch: Watch,
        connect: Callable[[Callable[[], None]], Connection],
    ) -> None:
        self._config = config
        self._link = link
        self._file = file
        self._watch = watch
        self._connect = connect
        self._base = f"{config.mqtt.prefix}/{config.station.name}"
        self._commands = Commands(link, config.station.name)
        self._arrivals = Arrivals(link, self._commands.parts)
        self._events = Events(config)
        self._outbox = Outbox(config.mqtt.buffer_results)
        self._outbox.name(file.gaps())
        self._session = BrokerSession(config.mqtt, self._new_connection, self._lost)
        self._greeted = False
        self._left_out = 0  # messages of this connection that the broker does not take
        self._inflight: OrderedDict[int, tuple[Item | None, float]] = OrderedDict()
        self._acknowledged_id = file.acknowledged
        self._history_id: int | None = None if file.since else 0
        self._accepted: Delivered | None = None  # what accept was published true for
        self._said_s = self._online_s = 0.0  # when accept and online were said last
        self._said: object = None  # trust and session, as accept was said last
        self._why = ""
        self._state: object = None  # what the state was published of
        self._recipe: object = None
        self._counters = CounterTopic(link, self._base)
        self._foreign = ""
        self._answer_due = False  # somebody else spoke: accept false again
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None

    async def open(self) -> str:
        """Begin to connect; the broker may be away."""
        self._loop = asyncio.get_running_loop()
        self._session.begin(time.monotonic())
        return f"{self._base}/# at {self._config.mqtt.host} port {self._config.mqtt.port}"

    @property
    def problem(self) -> str:
        """What is wrong between the gateway and the broker; empty: nothing."""
        return self._session.problem or self._foreign

    def refresh(self) -> None:
        """Everything that is due."""
        if self._error is not None:
            raise self._error
        self._take_from_station()
        connection = self._session.turn(time.monotonic())
        if connection is not None:
            self._greet(connection)
            self._listen(connection)
            self._take_acknowledgements(connection)
            self._take_requests(connection)
            self._publish(connection)

    async def close(self) -> None:
        """Withdraw accept, say offline, and wait a moment for the broker to have both."""
        self._events.close()
        connection = self._session.connection
        if connection is None:
            return
        self._deny(connection, "the gateway is shutting down")
        self._send(connection, "online", {"online": False}, retain=True)
        self._publish_state(connection, "the gateway has ended")
        ends_s = time.monotonic() + GOODBYE_S
        while self._inflight and connection.up and time.monotonic() < ends_s:
            await asyncio.sleep(0.01)
            self._take_acknowledgements(connection)
        if self._file.sent:
            self._file.write(self._file.sent, self._acknowledged_id)
        # What the broker has not acknowledged it may not have: then it gives the last will.
        connection.abandon("") if self._inflight else connection.disconnect()
        while not connection.ended and time.monotonic() < ends_s:
            await asyncio.sleep(0.01)

    def _turn(self) -> None:
        """Woken by the connection's thread; what fails is raised by the next refresh, in the process's own loop."""
        try:
            self.refresh()
        except Exception as error:  # noqa: BLE001
            self._error = error

    def _new_connection(self) -> Connection:
        assert self._loop is not None
        loop = self._loop

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._turn)

        self._greeted, self._left_out = False, 0
        return self._connect(wake)

    def _lost(self) -> None:
        """The connection has ended: report what was pending."""
        items = [item for item, _ in self._inflight.values() if item is not None]
        self._outbox.name(uncertain(items))
        self._inflight.clear()
        self._accepted = None
        if items:
            self._acknowledged_id = self._file.sent

    def _greet(self, connection: Connection) -> None:
        """First words of a connection: nothing may pass, then that the gateway is there."""
        if self._greeted:
            return
        self._greeted = True
        self._watch.connected()
        self._deny(connection, "the gateway has just connected")
        self._send(connection, "online", {"online": False}, retain=True)
        self._state = self._recipe = None

    def _listen(self, connection: Connection) -> None:
        """Whatever is published on the station's topics: its own messages that come back, or foreign ones."""
        for _ in range(len(connection.watched)):
            message = connection.watched.popleft()
            name, now_s = message.topic.rpartition("/")[2], time.monotonic()
            if self._watch.heard(name, message.body, now_s, retained=message.retained, again=message.again):
                self._answer_due |= name == "accept" and not denies(message.body)
        if connection.unseen:
            connection.unseen = 0
            self._watch.report("more messages arrive on this station's topics than can be read", time.monotonic())
        if connection.denied:
            log.error("the broker does not let the gateway read %s", ", ".join(connection.denied))
            connection.denied = []
        foreign = self._watch.foreign(time.monotonic())
        if foreign and not self._foreign:
            log.error("ALARM %s: %s; no part is accepted until this stops", ALARM, foreign)
            self._send(connection, "online", {"online": False}, retain=True)
            self._recipe, self._answer_due = None, True
        elif self._foreign and not foreign:
            log.warning("no foreign message on the station's topics for %d ms", self._config.mqtt.clash_quiet_ms)
        self._foreign = foreign

    def _take_from_station(self) -> None:
        view = self._link.view()
        if self._history_id is None and view.state is not None:
            # What was judged before this gateway was there is told, but no part of then may pass now.
            self._history_id = view.state.last_result_id
        for item in self._arrivals.take():
            self._outbox.put(item)

    def _take_acknowledgements(self, connection: Connection) -> None:
        while connection.acknowledged:
            number, refusal = connection.acknowledged.popleft()
            item = self._inflight.pop(number, (None, 0.0))[0]
            if refusal:
                what = "a message about the station" if item is None else "result {} to {}".format(*ids(item))
                log.error("the broker refused %s: %s", what, refusal)
            if item is None:
                continue
            self._acknowledged_id = ids(item)[1]
            if refusal and not isinstance(item, Gap):
                self._outbox.name([Gap(*ids(item), "the broker refused it")])
        if self._file.sent and not any(item is not None for item, _ in self._inflight.values()):
            self._file.write(self._file.sent, self._acknowledged_id)

    def _take_requests(self, connection: Connection) -> None:
        self._commands.serve(connection.requests, connection.refused, self._foreign)
        if connection.unanswered:
            log.error("%d requests are not answered: too many at once", connection.unanswered)
            connection.unanswered = 0
        while self._commands.replies and len(self._inflight) <= self._inflight_max(connection) // 2:
            request_id, body = self._commands.replies.popleft()
            name = f"reply/{request_id}"
            if not connection.fits(f"{self._base}/{name}", body):
                body = too_long(request_id, len(body), connection.limits.packet_max_nbytes or 0)
            self._send_body(connection, name, body)

    def _inflight_max(self, connection: Connection) -> int:
        return max(1, min(self._config.mqtt.inflight, connection.limits.inflight - INFLIGHT_OTHERS))

    def _publish(self, connection: Connection) -> None:
        oldest = next(iter(self._inflight.values()), None)
        flows = oldest is None or time.monotonic() - oldest[1] < STALLED_S
        self._publish_accept(connection, flows)
        batch: list[Item] = []
        while len(self._inflight) + 2 * len(batch) < self._inflight_max(connection):
            item = self._outbox.take()
            if item is None:
                break
            batch.append(item)
        if batch:
            # Before it is sent: a gateway that is killed in between names what it may have sent, and sends none twice.
            self._file.write(ids(batch[-1])[1], self._acknowledged_id)
        for item in batch:
            self._publish_item(connection, item)
        if flows:
            self._publish_state(connection)
            self._publish_recipe(connection)
            self._counters.publish(connection, lambda body: self._send_body(connection, "counters", body, qos=0))
            for event in self._events.take():
                self._send_body(connection, "event", event, qos=0)

    def _publish_item(self, connection: Connection, item: Item) -> None:
        """Accept false, the result, then accept true if this part may pass, as it is at this moment."""
        self._deny(connection, "the next result")
        if isinstance(item, Gap):
            fields = {"first_id": item.first_id, "last_id": item.last_id, "why": item.why}
            self._send(connection, "gap", {"station": self._config.station.name, **fields}, item=item)
            return
        history = self._history_id is None or item.result.result_id <= self._history_id
        accept = not history and self._may_pass(item)
        fields = msgspec.json.decode(encode_result_body(item.result))
        if not self._send(connection, "result", {**fields, "accept": accept}, item=item):
            self._publish_item(connection, Gap(*ids(item), "too large for the broker"))
        elif accept:
            self._accepted = item
            self._affirm(connection, item)

    def _may_pass(self, item: Delivered) -> bool:
        return self._arrivals.may_pass(item) and not self._why_not(time.monotonic())

    def _why_not(self, now_s: float) -> str:
        """Why no part may pass, whatever the station says; empty: one may."""
        return self._session.doubt or self._watch.why(now_s)

    def _publish_accept(self, connection: Connection, flows: bool) -> None:
        """Withdraw it as soon as it must fall; say it again when anything changed, and REPEAT_S after the last time."""
        accepted, view = self._accepted, self._link.view()
        now_s = time.monotonic()
        why = self._why_not(now_s) or view.why
        due = flows and now_s - self._said_s > REPEAT_S
        if accepted is not None and not self._may_pass(accepted):
            self._deny(connection, why or "the result has expired")
        elif self._said != (said := (view.good, view.state and view.state.session)):
            self._said = said
            self._deny(connection, why or "the station is trusted again; no result since then")
        elif self._answer_due and len(self._inflight) < self._inflight_max(connection):
            self._deny(connection, why)
        elif due and accepted is not None:
            self._affirm(connection, accepted)
        elif due:
            self._deny(connection, why or self._why)
        if flows and now_s - self._online_s > REPEAT_S:
            self._online_s = now_s
            valid_ms = 1000 * self._config.mqtt.accept_expiry_s
            self._send(connection, "online", {"online": True, "valid_ms": valid_ms}, qos=0)

    def _affirm(self, connection: Connection, item: Delivered) -> None:
        """For who listens now: what is not retained and is QoS 0 is kept for nobody."""
        self._said_s = time.monotonic()
        result, expiry_s = item.result, self._config.mqtt.accept_expiry_s
        ids_ = {"result_id": result.result_id, "trigger_id": result.trigger_id, "part_id": result.part_id}
        fields = {"accept": True, **ids_, "recipe": result.recipe, "valid_ms": 1000 * expiry_s}
        if result.position is not None:
            fields["position"] = result.position
        self._send(connection, "accept", fields, qos=0, expiry_s=expiry_s)

    def _deny(self, connection: Connection, why: str) -> None:
        result_id = self._accepted.result.result_id if self._accepted else 0
        self._accepted = None
        self._said_s, self._why, self._answer_due = time.monotonic(), why, False
        self._send(connection, "accept", {"accept": False, "result_id": result_id, "why": why[:WHY_MAX]}, retain=True)

    def _publish_state(self, connection: Connection, ended: str = "") -> None:
        """What says ready is not retained either: it would outlive the gateway."""
        view, why = self._link.view(), ended or self._why_not(time.monotonic())
        own_alarms = self._own_alarms()
        if (view.state, view.good, why, own_alarms) == self._state:
            return
        self._state = (view.state, view.good, why, own_alarms)
        fields = state_message(self._config.station.name, view, why, own_alarms)
        if not self._send(connection, "state", fields, qos=0, retain=not fields["trusted"]):
            self._send(connection, "state", least_state(self._config.station.name), qos=0, retain=True)

    def _own_alarms(self) -> list[str]:
        """What is wrong between the gateway and the broker."""
        found = {ALARM: self._foreign, PACKET_LIMIT: self._left_out}
        return [*(alarm for alarm, is_so in found.items() if is_so), *self._session.alarms]

    def _publish_recipe(self, connection: Connection) -> None:
        """Outcome of the last recipe change in the station's present session."""
        state = self._link.view().state
        if state is None or (state.session, state.recipe_change) == self._recipe:
            return
        self._recipe = (state.session, state.recipe_change)
        self._send(connection, "recipe", recipe_message(state), retain=True)

    def _send(
        self,
        connection: Connection,
        name: str,
        fields: Mapping[str, Any],
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        item: Item | None = None,
    ) -> bool:
        """A message that the gateway knows again when the broker gives it back; False as ``_send_body``."""
        body = self._watch.encode(name, fields, time.monotonic())
        return self._send_body(connection, name, body, qos=qos, retain=retain, expiry_s=expiry_s, item=item)

    def _send_body(
        self,
        connection: Connection,
        name: str,
        body: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expiry_s: int | None = None,
        item: Item | None = None,
    ) -> bool:
        """False: the broker does not take a message of this size, so it was not sent."""
        topic = f"{self._base}/{name}"
        if not connection.fits(topic, body):
            self._left_out += 1
            log.error(
                "ALARM %s: %s of %d bytes is not sent, the broker takes packets of %d: raise its limit (%d left out)",
                PACKET_LIMIT, name, len(body), connection.limits.packet_max_nbytes or 0, self._left_out,
            )  # fmt: skip
            return False
        number = connection.publish(topic, body, qos, retain, expiry_s)
        if qos:
            self._inflight[number] = (item, time.monotonic())
        return True
