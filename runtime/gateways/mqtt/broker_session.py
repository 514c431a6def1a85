"""The connection to the broker, made again whenever it ends: how often, and what is said about it.

Two clients of one id end each other's connection, each time at once, endlessly. MQTT 5 says so (session taken over);
a broker of 3.1.1 only closes, as others do that dislike a message. So connections that end early are counted. Two
gateways of one station that take turns never hear each other: after such an end no part may pass until a connection
has lasted longer than the other may wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from asperity.runtime.errors import ConfigError, GatewayError
from asperity.runtime.gateways.back_off import BackOff
from asperity.runtime.gateways.config import Mqtt
from asperity.runtime.gateways.mqtt.broker_limits import PACKET_NBYTES_LEAST
from asperity.runtime.gateways.mqtt.connection import Connection

CLIENT_ID = "CLIENT_ID"
"""Among the alarms of the state while another client uses this one's id."""
BROKER_CLOSES = "BROKER_CLOSES"
"""... while the broker ends each connection soon after it has accepted it, and does not say why."""
TAKEN_OVER_MAX = 1
SILENT_ENDS_MAX = 2
"""More, before one is held, are an alarm."""
SAID_MAX = 16

log = logging.getLogger("asperity.gateway")


class BrokerSession:
    """All connections of one gateway, one after the other. The time is an argument."""

    def __init__(self, own: Mqtt, connect: Callable[[], Connection], on_lost: Callable[[], None]) -> None:
        """``on_lost`` is called when a connection has ended, before the next one."""
        self._own = own
        self._where = f"the broker at {own.host} port {own.port}"
        self._connect = connect
        self._on_lost = on_lost
        self._held_s = max(own.retry_held_ms, 2 * own.retry_max_ms) / 1000
        self._back_off = BackOff(own.retry_min_ms / 1000, own.retry_max_ms / 1000, self._held_s)
        self._connection: Connection | None = None
        self._began_s = self._retry_s = 0.0
        self._up_s: float | None = None
        self._held = False
        self._taken_over = self._silent_ends = 0
        self._said: set[str] = set()  # why connections ended, as it was logged since one was held
        self._up_said = False
        self._packet_max_nbytes: int | None = None  # as learnt from a broker that does not announce it
        self.alarms: dict[str, str] = {}
        """Alarm -> sentence, until a connection is held."""
        self.problem = "not connected to the broker yet"
        """What is wrong, for people; empty: connected."""

    def begin(self, now_s: float) -> None:
        """Begin to connect. Raises ConfigError, GatewayError on a password or certificate that cannot be used."""
        self._began_s, self._up_s, self._held = now_s, None, False
        self._connection = self._connect()
        self._connection.start()

    @property
    def connection(self) -> Connection | None:
        """The connection while the broker has accepted it and it has not ended."""
        return self._connection if self._connection is not None and self._connection.up else None

    @property
    def doubt(self) -> str:
        """Why no part may pass; empty: nobody else seems to take turns with this connection."""
        if not self._taken_over and not self._silent_ends:
            return ""
        return f"another client may use this client id: no part passes until a connection has lasted {self._held_s:g} s"

    def turn(self, now_s: float) -> Connection | None:
        """Go on; the connection, once the broker has accepted it."""
        connection = self._connection
        if connection is None:
            if now_s >= self._retry_s:
                self._begin_again(now_s)
            return None
        if not connection.up and not connection.ended and (now_s - self._began_s) * 1000 > 2 * self._own.connect_ms:
            connection.abandon(
                f"no answer within {2 * self._own.connect_ms} ms from the name server or the broker; check [mqtt] "
                "host, port and tls"
            )
        if connection.ended:
            self._lose(connection, now_s)
            return None
        if not connection.up:
            return None
        if self._up_s is None:
            self._up_s = now_s
            self._accepted(connection)
        elif not self._held and now_s - self._up_s >= self._held_s:
            self._hold()
        return connection

    def _begin_again(self, now_s: float) -> None:
        try:
            self.begin(now_s)
        except (ConfigError, GatewayError) as error:  # a password or certificate that is being replaced
            self._retry_s = now_s + self._back_off.ended(0.0)
            self._say(str(error))

    def _accepted(self, connection: Connection) -> None:
        limits = connection.limits
        if self._packet_max_nbytes is not None and limits.packet_max_nbytes is None:
            connection.limits = replace(limits, packet_max_nbytes=self._packet_max_nbytes)
        self.problem = ""
        if self._up_said:
            return
        self._up_said = True
        log.info("connected to %s as client id %s", self._where, connection.client_id)
        if limits.keepalive_s is not None and limits.keepalive_s != self._own.keepalive_s:
            log.warning(
                "the broker uses a keep alive of %d s (0: none), not the %d s of [mqtt] keepalive_s: if the gateway "
                "falls silent, it publishes the last will only then", limits.keepalive_s, self._own.keepalive_s,
            )  # fmt: skip
        if not limits.wildcards:
            log.info("the broker knows no wildcards, so requests for unknown operations are not answered")

    def _hold(self) -> None:
        """The connection lasts: what was wrong is over."""
        self._held = True
        self._taken_over = self._silent_ends = 0
        self._said.clear()
        if self.alarms:
            log.warning("the connection to %s is held again", self._where)
            self.alarms = {}

    def _lose(self, connection: Connection, now_s: float) -> None:
        self._connection = None
        held_s = 0.0 if self._up_s is None else now_s - self._up_s
        self._retry_s = now_s + self._back_off.ended(held_s)
        self._on_lost()
        if connection.too_large and connection.limits.packet_max_nbytes is None:
            self._packet_max_nbytes = max(PACKET_NBYTES_LEAST, connection.largest_nbytes - 1)
        self._taken_over += connection.taken_over
        self._silent_ends += connection.silent and not self._held
        self._say(connection.why)
        self._raise_alarms(connection)

    def _say(self, why: str) -> None:
        self.problem = f"cannot reach {self._where}: {why}"
        if why not in self._said and len(self._said) < SAID_MAX:
            self._said.add(why)
            self._up_said = False
            log.warning("%s; retrying", self.problem)

    def _raise_alarms(self, connection: Connection) -> None:
        own_id = (
            f"another client uses client id {connection.client_id}: set [mqtt] client_id to another one for each "
            "gateway (or [mqtt] user, if the broker takes the user name for it)"
        )
        often = f"the broker closed {self._silent_ends} connections soon and without a reason"
        refused = f"the broker refuses a message (the largest had {connection.largest_nbytes} bytes): see its log"
        found = {}
        if self._taken_over > TAKEN_OVER_MAX:
            found[CLIENT_ID] = own_id
        elif self._silent_ends > SILENT_ENDS_MAX and self._own.client_id:
            found[CLIENT_ID] = f"{often}; probably {own_id}; or {refused}"
        elif self._silent_ends > SILENT_ENDS_MAX:
            found[BROKER_CLOSES] = f"{often}; perhaps {refused}"
        for alarm, text in found.items():
            if alarm not in self.alarms:
                log.error("ALARM %s: %s", alarm, text)
            self.alarms[alarm] = text
            self.problem = text
