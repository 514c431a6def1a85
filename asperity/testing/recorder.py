"""Records what a station publishes."""

from __future__ import annotations

from pathlib import Path

import zmq

from asperity.runtime import wire
from asperity.runtime.security.curve_keys import secure
from asperity.runtime.wire import ReceivedResult, StationState


class Recorder:
    """A plain subscriber to one station that keeps everything and recovers nothing."""

    def __init__(self, endpoint: str, key: Path | None = None, *, station: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        secure(self._socket, key)
        self._socket.setsockopt(zmq.RCVHWM, 100_000)
        self._socket.setsockopt(zmq.LINGER, 0)
        for kind in ("result", "state", "event"):
            self._socket.setsockopt(zmq.SUBSCRIBE, wire.topic(kind, station))
        self._socket.connect(endpoint)
        self.results: list[ReceivedResult] = []
        self.states: list[StationState] = []
        self.events: list[wire.Event] = []

    def listen(self, timeout_ms: int) -> None:
        """Receive what has arrived, waiting at most ``timeout_ms`` for the first."""
        self._socket.poll(timeout_ms)
        while self._socket.poll(0):
            parts = self._socket.recv_multipart()
            kind = wire.split_topic(parts[0])[0]
            if kind == "result":
                self.results.append(wire.decode_result(parts))
            elif kind == "state":
                self.states.append(wire.decode_state(parts))
            else:
                self.events.append(wire.decode_event(parts))

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)
