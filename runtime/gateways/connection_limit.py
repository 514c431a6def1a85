"""Which connection is closed when there is no room for another. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Protocol, TypeVar


class Guest(Protocol):
    """One connection."""

    @property
    def asked(self) -> bool:
        """It has asked something whole, or is logged in."""

    @property
    def host(self) -> str:
        """The address that it comes from."""

    @property
    def since_s(self) -> float:
        """When it came or last sent something, ``time.monotonic()``."""


G = TypeVar("G", bound=Guest)


def one_to_close(guests: Collection[G]) -> G:
    """One that asks nothing, of the address with the most connections, the one silent longest: so a client that
    connects and connects and asks at once is served, however many others stay silent. ``guests`` are not empty."""
    of_host = Counter(guest.host for guest in guests)
    return min(guests, key=lambda guest: (guest.asked, -of_host[guest.host], guest.since_s))
