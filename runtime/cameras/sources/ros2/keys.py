"""Names as rmw_zenoh writes them: key expressions of topics, liveliness tokens, the attachment of a message. Pure.

Formats: docs/cameras/ros2.md. All of them come from other computers, so each text and size is checked.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

IMAGE = "sensor_msgs/msg/Image"
POINTS = "sensor_msgs/msg/PointCloud2"
INFO = "sensor_msgs/msg/CameraInfo"

TOPIC = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
TEXT_MAX = 1024
ADMIN = "@ros2_lv"
PUBLISHER = "MP"
_TOKEN_PARTS = 13
_NAMES = (b"sequence_number", b"source_timestamp", b"source_gid")
GID_NBYTES = 16


class Attachment(NamedTuple):
    """What the publisher says of a message."""

    sequence: int
    """Its own count of its messages."""
    gid: bytes
    """Which publisher it is."""


class Publisher(NamedTuple):
    """A publisher that a liveliness token speaks of."""

    node: str
    topic: str
    type: str
    """As ROS writes it: ``sensor_msgs/msg/Image``."""


def message_key(domain: int, topic: str) -> str:
    """Every message of a topic, whatever its type and the hash of it."""
    return f"{domain}/{topic.strip('/')}/*/*"


def tokens_key(domain: int | str) -> str:
    """Every publisher of a domain, or of all: ``*``."""
    return f"{ADMIN}/{domain}/*/*/*/{PUBLISHER}/*/*/*/*/*/*/*"


def type_of_key(key: str) -> str:
    """The type in a message's key, as ROS writes it; empty: the key is none of rmw_zenoh."""
    parts = key[:TEXT_MAX].split("/")
    return ros_type(parts[-2]) if len(parts) >= 4 else ""


def ros_type(name: str) -> str:
    """``sensor_msgs::msg::dds_::Image_`` as ROS writes it; empty: not such a name."""
    found = re.fullmatch(r"(\w+)::(\w+)::dds_::(\w+)_", name, re.ASCII)
    return "/".join(found.groups()) if found else ""


def dds_type(name: str) -> str:
    """``sensor_msgs/msg/Image`` as it is in a key."""
    package, kind, plain = name.split("/")
    return f"{package}::{kind}::dds_::{plain}_"


def publisher(token: str) -> Publisher | None:
    """The publisher in a liveliness token, ``@ros2_lv/domain/session/node id/id/MP/enclave/namespace/node/topic/type/
    hash/qos``; None: the token is of something else.
    """
    parts = token.split("/")
    if len(token) > TEXT_MAX or len(parts) != _TOKEN_PARTS or parts[0] != ADMIN or parts[5] != PUBLISHER:
        return None
    space, node, topic, name = (part.replace("%", "/") for part in parts[7:11])
    if not TOPIC.fullmatch(topic) or not ros_type(name) or not TOPIC.fullmatch(f"{space.rstrip('/')}/{node}"):
        return None
    return Publisher(f"{space.rstrip('/')}/{node}", topic, ros_type(name))


def attachment(data: bytes) -> Attachment | None:
    """Sequence number and publisher; None: not of rmw_zenoh.

    Two forms: newer versions write the three values, older ones each after its name. A text and the gid have their
    length in front, one byte.
    """
    parts, at = [], 0
    named = data[:1] == bytes([len(_NAMES[0])]) and data[1 : 1 + len(_NAMES[0])] == _NAMES[0]
    for name, nbytes in zip(_NAMES, (8, 8, 1 + GID_NBYTES), strict=True):
        if named:
            if data[at : at + 1 + len(name)] != bytes([len(name)]) + name:
                return None
            at += 1 + len(name)
        parts.append(data[at : at + nbytes])
        at += nbytes
    if at != len(data) or parts[2][0] != GID_NBYTES:
        return None
    (sequence,) = struct.unpack("<q", parts[0])
    return Attachment(sequence, parts[2][1:])
