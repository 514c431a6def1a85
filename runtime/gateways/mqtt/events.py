"""The station's events, for the people who read a broker."""

from __future__ import annotations

import zmq

from asperity.runtime.errors import WireError
from asperity.runtime.gateways.config import GatewayConfig, client_key
from asperity.runtime.security.curve_keys import read_client_key, receive, secure
from asperity.runtime.wire import decode_event, topic
from asperity.runtime.wire.common import MAX_EVENT_BYTES

EVENTS_WAITING_MAX = 100


class Events:
    """Whatever arrives while there is a listener."""

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
        """Stop listening."""
        self._context.destroy(linger=0)
