"""The station's counters for charts: not retained, without acknowledgement, never needed to judge a part."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from asperity.runtime.gateways.link import Link
from asperity.runtime.gateways.mqtt.connection import Connection
from asperity.runtime.wire import Counters, encode_counters


class CounterTopic:
    """Publishes each message of counters once."""

    def __init__(self, link: Link, base: str) -> None:
        self._link = link
        self._topic = f"{base}/counters"
        self._last: Counters | None = None

    def publish(self, connection: Connection, send: Callable[[bytes], object]) -> None:
        """If there is news. Without rows where the broker does not take that much, or not at all."""
        counters = self._link.view().counters
        if counters is None or counters is self._last:
            return
        self._last = counters
        for each in (counters, msgspec.structs.replace(counters, rows=())):
            body = encode_counters(each)[1]
            if connection.fits(self._topic, body):
                send(body)
                return
