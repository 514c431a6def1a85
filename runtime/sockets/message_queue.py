"""Messages from the reading threads to the I/O thread: bounded in number and, before they are read, in bytes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from asperity.runtime.sockets.plain_connection import TICK_MS, CutError, Peer
from asperity.runtime.wire import Part


class Waiting:
    """The messages of one socket's connections."""

    def __init__(self, per_peer: int, nbytes_max: int, ring: Callable[[], None]) -> None:
        """``per_peer``: messages of one connection that may wait; beyond it that connection is not read.

        ``nbytes_max``: of all connections, of messages that wait or are being read. ``ring`` wakes the I/O thread.
        """
        self._per_peer = per_peer
        self._nbytes_max = nbytes_max
        self._ring = ring
        self._nbytes = 0
        self._reading: set[Peer] = set()
        self._messages: deque[tuple[Peer, list[Part], int]] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def reserve(self, peer: Peer, nbytes: int, until_ns: int) -> None:
        """Make room for a part; where there is none, by cutting another connection, that with the oldest unfinished
        message: a frame takes moments, so what stays unfinished is none.

        Raises CutError when there is no room in time.
        """
        with self._changed:
            while self._nbytes + nbytes > self._nbytes_max:
                others = [other for other in self._reading if other is not peer]
                if others:
                    min(others, key=lambda other: other.began_ns).cut("an unfinished message that blocks others")
                left_s = (until_ns - time.monotonic_ns()) / 1e9
                if self._ended or left_s <= 0:
                    raise CutError(f"its message does not fit into the limit of {self._nbytes_max} bytes")
                self._changed.wait(min(left_s, TICK_MS / 1000))
            self._nbytes += nbytes
            peer.held_nbytes += nbytes
            self._reading.add(peer)

    def put(self, peer: Peer, parts: list[Part]) -> None:
        """Hand on a whole message. Raises EOFError when the connection or the I/O thread ends first."""
        with self._changed:
            self._reading.discard(peer)
            while peer.waiting >= self._per_peer:
                self._changed.wait(TICK_MS / 1000)
                if self._ended or peer.reason:
                    raise EOFError
            peer.waiting += 1
            self._messages.append((peer, parts, peer.held_nbytes))
            peer.held_nbytes = 0
        self._ring()

    def take(self) -> tuple[Peer, list[Part]] | None:
        """The oldest message; None: there is none."""
        with self._changed:
            if not self._messages:
                return None
            peer, parts, nbytes = self._messages.popleft()
            peer.waiting -= 1
            self._nbytes -= nbytes
            self._changed.notify_all()
            return peer, parts

    def forget(self, peer: Peer) -> None:
        """Give up what a connection that is gone, or whose message needs no place, held."""
        with self._changed:
            self._reading.discard(peer)
            self._nbytes -= peer.held_nbytes
            peer.held_nbytes = 0
            self._changed.notify_all()

    def end(self) -> None:
        """Messages are no longer taken."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
