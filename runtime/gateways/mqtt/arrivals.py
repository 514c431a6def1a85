"""What the link handed on, until it may be published: a trigger's result waits for the answer to its request."""

from __future__ import annotations

from collections import deque

from asperity.runtime.gateways.link import Delivered, Item, Link
from asperity.runtime.gateways.parts import Parts

ITEMS_AT_ONCE = 1000


class Arrivals:
    """Of one gateway. What was refused, or is of another recipe than was requested, comes out as no pass."""

    def __init__(self, link: Link, parts: Parts) -> None:
        self._link = link
        self._parts = parts
        self._waiting: deque[Item] = deque()

    def take(self) -> list[Item]:
        """What may be published from now on, in order."""
        if len(self._waiting) < ITEMS_AT_ONCE:
            self._waiting.extend(self._link.take(ITEMS_AT_ONCE))
        taken = []
        while self._waiting and not self._parts.waits(self._waiting[0]):
            taken.append(self._parts.show(self._waiting.popleft()))
        return taken

    def may_pass(self, item: Delivered) -> bool:
        """As ``Link.may_pass``; false too once its trigger was given again or another recipe was requested."""
        return self._link.may_pass(self._parts.get(item.result.result_id) or item)
