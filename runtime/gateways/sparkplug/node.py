"""The session of an edge node (Sparkplug 3.0, section 5): birth, data in sequence, rebirth, death. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asperity.runtime.errors import WireError
from asperity.runtime.gateways.sparkplug.metrics import REBIRTH, born_metrics, station_metrics
from asperity.runtime.gateways.sparkplug.payload import DataType, Metric, Value, booleans, encode

NAMESPACE = "spBv1.0"
SEQ_MAX = 255
STATE_NBYTES_MAX = 4096
Message = tuple[str, bytes]
"""Topic and payload."""


class HostState(msgspec.Struct, frozen=True):
    """What a host application says of itself."""

    online: bool
    timestamp: int


class Node:
    """One connection of one edge node."""

    def __init__(self, group: str, name: str, host: str, number: int) -> None:
        """``host``: the primary host that must be online; empty: none is waited for. ``number``: of the connection,
        which ties its death to its birth."""
        self._group, self._name = group, name
        self._bd_seq = number % (SEQ_MAX + 1)
        self._seq = 0
        self._said: dict[str, Value] = {}
        self.host_topic = f"{NAMESPACE}/STATE/{host}" if host else ""
        self.host_online = not host
        self._host_since_ms = -1
        self.born = False
        self.rebirth = False
        """A host asked for it."""

    @property
    def commands(self) -> str:
        """Topic of commands to this node."""
        return self._topic("NCMD")

    def death(self, now_ms: int) -> Message:
        """The last will of the connection, also published where it ends in order."""
        return self._topic("NDEATH"), encode([self._birth_number(now_ms)], now_ms, None)

    def birth(self, values: dict[str, Value], now_ms: int) -> Message:
        """Everything, with sequence number 0."""
        self._seq, self._said, self.born, self.rebirth = 0, dict(values), True, False
        metrics = [self._birth_number(now_ms), *born_metrics(values, now_ms)]
        return self._topic("NBIRTH"), encode(metrics, now_ms, self._seq)

    def news(self, values: dict[str, Value], now_ms: int) -> Message | None:
        """What has changed of the station; None: nothing."""
        changed = {name: value for name, value in values.items() if self._said.get(name) != value}
        if not changed:
            return None
        self._said |= changed
        return self.data(station_metrics(changed, now_ms), now_ms)

    def data(self, metrics: Sequence[Metric], now_ms: int) -> Message:
        """The next message of this birth."""
        self._seq = (self._seq + 1) % (SEQ_MAX + 1)
        return self._topic("NDATA"), encode(metrics, now_ms, self._seq)

    def hear(self, topic: str, body: bytes) -> str:
        """A message of a topic that the node reads. Why it is not followed, for the log; empty: it is."""
        if topic == self.host_topic:
            return self._hear_host(body)
        if topic != self.commands:
            return f"a message of topic {topic[:80]!r}, to which it did not subscribe"
        try:
            asked = booleans(body)
        except WireError as error:
            return str(error)
        self.rebirth |= asked.pop(REBIRTH, False)
        return f"the command {sorted(asked)[0][:80]!r}; there is {REBIRTH} only" if asked else ""

    def _hear_host(self, body: bytes) -> str:
        """JSON of a host's state (section 6.4.25): one older than the last one heard says nothing."""
        try:
            said = msgspec.json.decode(body[:STATE_NBYTES_MAX], type=HostState)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return "a state of the primary host that is not JSON with online and timestamp"
        if said.timestamp >= self._host_since_ms:
            self._host_since_ms, self.host_online = said.timestamp, said.online
        return ""

    def _birth_number(self, now_ms: int) -> Metric:
        return Metric("bdSeq", DataType.UINT64, self._bd_seq, now_ms)

    def _topic(self, kind: str) -> str:
        return f"{NAMESPACE}/{self._group}/{kind}/{self._name}"
