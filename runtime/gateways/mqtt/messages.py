"""What a broker delivered, and which reply it is owed."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from asperity.runtime.wire.common import fields_of

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Message(NamedTuple):
    """A message that was read."""

    topic: str
    body: bytes
    retained: bool
    """Kept by the broker from before the subscription."""
    again: bool
    """The broker repeats it (DUP)."""


class Refused(NamedTuple):
    """A request of which nothing but the id was read, and its reply."""

    request_id: str
    code: str
    text: str


def id_of(body: bytes) -> str:
    """Id of a request; empty: it has none that can be used."""
    try:
        request_id = msgspec.json.decode(fields_of(body)["id"], type=str)
    except (KeyError, ValueError, RecursionError):
        return ""
    return request_id if ID.fullmatch(request_id) else ""
