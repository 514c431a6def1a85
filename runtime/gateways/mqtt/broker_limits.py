"""What a broker of MQTT 5 says of itself in its CONNACK, and whether the gateway can live with it. Pure.

Not used, and so without effect whatever the broker says: topic aliases, shared subscriptions, subscription
identifiers, sessions (each connection starts a clean one that expires as it ends).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

INFLIGHT_MAX = 20
"""Messages without acknowledgement. Beyond that the library would keep messages back, among them an accept false."""
INFLIGHT_OTHERS = 6
"""Of these, what may be sent beyond ``[mqtt] inflight``: accept false, online, recipe, replies."""
PACKET_NBYTES_LEAST = 2048
"""Accept, online and gap must fit into a packet, whatever they say."""
RECEIVE_LEAST = 8


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What applies where the broker says nothing."""

    packet_max_nbytes: int | None = None
    """Largest packet that it takes; None: no limit is known."""
    receive_max: int = 65535
    keepalive_s: int | None = None
    """The broker's own, instead of the one that was asked for."""
    client_id: str = ""
    """Assigned by the broker."""
    retains: bool = True
    qos_max: int = 2
    wildcards: bool = True

    @property
    def inflight(self) -> int:
        """Messages that may wait for an acknowledgement."""
        return min(INFLIGHT_MAX, self.receive_max)

    def unusable(self) -> str:
        """Why the gateway cannot work with this broker, as text; empty: it can."""
        if not self.retains:
            return "the broker does not retain messages (Retain Available 0), so an accept false would not be kept"
        if self.qos_max < 1:
            return "the broker takes only QoS 0 (Maximum QoS 0), so results could be lost without notice"
        if self.receive_max < RECEIVE_LEAST:
            return (
                f"the broker takes only {self.receive_max} messages at a time (Receive Maximum); the gateway needs "
                f"{RECEIVE_LEAST}"
            )
        if self.packet_max_nbytes is not None and self.packet_max_nbytes < PACKET_NBYTES_LEAST:
            return (
                f"the broker takes only packets of {self.packet_max_nbytes} bytes (Maximum Packet Size); the gateway "
                f"needs {PACKET_NBYTES_LEAST}"
            )
        return ""


def limits_of(properties: Any) -> BrokerLimits:
    """Of the properties of a CONNACK; None or empty: the usual ones."""
    found = {
        "packet_max_nbytes": "MaximumPacketSize",
        "receive_max": "ReceiveMaximum",
        "keepalive_s": "ServerKeepAlive",
        "client_id": "AssignedClientIdentifier",
        "qos_max": "MaximumQoS",
    }
    given = {key: getattr(properties, name) for key, name in found.items() if hasattr(properties, name)}
    return BrokerLimits(
        **given,
        retains=bool(getattr(properties, "RetainAvailable", 1)),
        wildcards=bool(getattr(properties, "WildcardSubscriptionAvailable", 1)),
    )


def publish_nbytes(topic: str, body: bytes, qos: int, expires: bool) -> int:
    """Size of a PUBLISH of MQTT 5 as a whole packet."""
    inside = 2 + len(topic.encode()) + (2 if qos else 0) + (6 if expires else 1) + len(body)
    size, length_nbytes = inside, 1
    while size > 127:
        size, length_nbytes = size >> 7, length_nbytes + 1
    return 1 + length_nbytes + inside
