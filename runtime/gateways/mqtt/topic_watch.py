"""Does another client publish on this station's topics? A gateway reads its own messages and recognises each of them.

Every message carries the gateway's ``instance`` and a number ``n`` that increases, so no two have the same bytes; the
broker returns each once. A message that is not expected is foreign: another gateway of this name, a client that
poses as one, or an old message of this gateway that was published again. Pure: the time is an argument.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

WATCHED = ("accept", "online", "state", "result", "gap", "recipe")
"""What is published on these is expected back."""
ECHOES_MAX = 4096
"""Own messages that may be expected back; the oldest are forgotten, and foreign if they arrive anyway."""
INSTANCE = re.compile(r"[0-9a-f]{16}")


class Watch:
    """What one gateway has sent and received on its station's topics, over all its connections."""

    def __init__(self, instance: str, quiet_s: float) -> None:
        """``instance``: 16 hexadecimal digits of this run of the gateway. ``quiet_s``: nothing foreign for so long:
        alone again."""
        self.instance = instance
        self.will = _encode({"accept": False, "result_id": 0, "why": "the gateway has disconnected"}, instance, 0)
        """Last will, for ``accept``. It alone has the number 0."""
        self._quiet_s = quiet_s
        self._number = 0
        self._connections = 0
        self._awaited: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._since_s: float | None = None  # first accept that came back over this connection
        self._proven_s = 0.0  # when the newest accept that came back had been published
        self._foreign_s: float | None = None
        self._foreign = ""

    def connected(self) -> None:
        """A new connection: what was published over the previous one does not come back any more."""
        self._connections += 1
        self._awaited.clear()
        self._since_s = None

    def encode(self, name: str, fields: Mapping[str, Any], now_s: float) -> bytes:
        """The body of a message that is published at once. ``name``: topic without prefix and station."""
        self._number += 1
        body = _encode(fields, self.instance, self._number)
        if name in WATCHED:
            self._awaited[_key(name, body)] = now_s
            while len(self._awaited) > ECHOES_MAX:
                self._awaited.popitem(last=False)
        return body

    def heard(self, name: str, body: bytes, now_s: float, *, retained: bool = False, again: bool = False) -> bool:
        """One message of a watched topic; True if it is foreign.

        ``again``: the broker itself repeats it (DUP).
        """
        if retained and (self._connections <= 1 or _instance_of(body) == self.instance):
            return False  # of the run or connection before: it says nothing of now
        published_s = self._awaited.pop(_key(name, body), None)
        if published_s is not None:
            if name == "accept":
                self._proven_s = max(self._proven_s, published_s)
                self._since_s = now_s if self._since_s is None else self._since_s
            return False
        instance = _instance_of(body)
        own = instance == self.instance
        if body == self.will or (own and again):
            return False
        if own:
            what = "a message of this gateway was published again by another client"
        elif instance:
            what = f"another gateway (instance {instance}) publishes"
        else:
            what = "a client that is not a gateway publishes"
        self.report(f"{what} on this station's topics ({name})", now_s)
        return True

    def report(self, what: str, now_s: float) -> None:
        """Something foreign was noticed."""
        if not self.foreign(now_s):
            self._foreign = what
        self._foreign_s = now_s

    def foreign(self, now_s: float) -> str:
        """What is foreign, as text, until nothing was for the quiet time; else empty."""
        return self._foreign if self._foreign_s is not None and now_s - self._foreign_s < self._quiet_s else ""

    def why(self, now_s: float) -> str:
        """Why no part may pass; empty: this gateway alone speaks for the station, as was seen a moment ago."""
        if foreign := self.foreign(now_s):
            return foreign
        if self._since_s is None or now_s - self._proven_s > self._quiet_s:
            return "the broker does not deliver the gateway's own accept back to it: it cannot detect other publishers"
        if now_s - self._since_s < self._quiet_s:
            return "the gateway has just connected and is checking for another gateway with this name"
        return ""


def denies(body: bytes) -> bool:
    """Is this a message of ``accept`` that lets nothing pass."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.get("accept") is False


def _encode(fields: Mapping[str, Any], instance: str, number: int) -> bytes:
    return msgspec.json.encode({"v": 1, **fields, "instance": instance, "n": number})


def _key(name: str, body: bytes) -> tuple[str, bytes]:
    return name, hashlib.sha256(body).digest()


def _instance_of(body: bytes) -> str:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    instance = fields.get("instance") if isinstance(fields, dict) else None
    return instance if isinstance(instance, str) and INSTANCE.fullmatch(instance) else ""
