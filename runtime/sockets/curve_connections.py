"""The connections of one libzmq socket, as its monitor reports them, and how much each has sent."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from contextlib import suppress

import zmq

from asperity.runtime.clock import MS
from asperity.runtime.sockets import connection_traffic

SLACK_MS = 500
"""Beyond the time for a handshake, after which a connection that is still there must have ended it."""
HANDSHAKE_NBYTES = 16_384
"""What a connection may send before it is proven; a handshake with CURVE takes less than 1 KB."""
WEIGH_MS = 20
"""How often what connections have sent is looked at."""
_DONE = 2**62
_MESSAGE = struct.Struct("=Hi")
"""First part of a monitor's message: event and value. pyzmq's own reader of them imports asyncio."""
_EVENTS = (
    zmq.Event.ACCEPTED
    | zmq.Event.CLOSED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.HANDSHAKE_FAILED_AUTH
)


class Connections:
    """Counts only proven connections: those that answered the handshake.

    A monitor says which connection was accepted and which is gone, but not which one ended its handshake. So one counts
    as soon as all those under way have ended theirs, or when it is older than a handshake may be.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        monitor: zmq.Socket[bytes],
        handshake_ms: int,
        waiting_nbytes: int,
        failed: Callable[[], None],
        was_cut: Callable[[str], None],
    ) -> None:
        """``monitor``: a PAIR of the same context.

        ``waiting_nbytes``: what a connection may have sent that was not read. ``failed`` is called for each connection
        that never became one, ``was_cut`` for each that was cut, with the reason.
        """
        address = f"inproc://monitor-{id(socket)}"
        socket.monitor(address, _EVENTS)
        monitor.connect(address)
        self._monitor = monitor
        self._failed = failed
        self._was_cut = was_cut
        self._waiting_nbytes = waiting_nbytes
        self._read: dict[int, tuple[bytes, int]] = {}  # connection -> its cookie, bytes read of it by the I/O thread
        self._weigh_ns = 0
        self._patience_ns = (handshake_ms + SLACK_MS) * MS
        self._under_way: dict[int, int] = {}
        self._proven: set[int] = set()
        self._voices: dict[int, set[str]] = {}  # connection -> cameras whose frames came by it
        self._succeeded = 0
        self._told = 0  # failures whose connection is not closed yet
        self._let_in = 0  # connections to which the gate said yes and whose handshake has not ended
        self._numbers: dict[int, int] = {}  # descriptors are used again, these numbers never
        self._next_number = itertools.count(1)

    def speaks(self, connection: int, camera: str) -> None:
        """A frame of this camera came by this connection (a file descriptor); cameras are few."""
        if connection in self._proven or connection in self._under_way:
            self._voices.setdefault(connection, set()).add(camera)

    def number(self, connection: int) -> int | None:
        """A unique number for the open connection of this descriptor; None: it is closed, or not known yet."""
        return self._numbers.get(connection)

    def is_open(self, number: int) -> bool:
        """The connection of this number is still there."""
        return number in self._numbers.values()

    def may_hear(self, camera: str) -> bool:
        """A connection is there by which this camera's frames came, or by which nobody's came yet."""
        spoke = any(camera in voices for voices in self._voices.values())
        return spoke or any(connection not in self._voices for connection in self._proven)

    @property
    def admitted(self) -> int:
        """Proven connections, and those that the gate admitted a moment ago."""
        return len(self._proven) + min(len(self._under_way), self._succeeded + self._let_in)

    def let_in(self) -> None:
        """The gate said yes to a connection."""
        self._let_in += 1

    def follow(self, now_ns: int) -> bool:
        """Process the monitor's events; True if the socket was closed to new connections (``unbind``)."""
        closed = False
        with suppress(zmq.Again):
            while True:
                event, value = _MESSAGE.unpack(self._monitor.recv_multipart(zmq.NOBLOCK)[0])
                closed |= self._take(event, value, now_ns)
        for old in [fd for fd, since_ns in self._under_way.items() if now_ns - since_ns > self._patience_ns]:
            self._succeeded = max(0, self._succeeded - 1)
            self._prove(old)
        if now_ns >= self._weigh_ns:
            self._weigh_ns = now_ns + WEIGH_MS * MS
            self._weigh()
        return closed

    def read(self, connection: int, nbytes: int) -> None:
        """The I/O thread has read a message of this connection, of so many bytes on the wire."""
        self._note(connection)
        if connection in self._read:
            cookie, before = self._read[connection]
            self._read[connection] = cookie, before + nbytes

    def cut(self, connection: int, why: str) -> None:
        """End a connection."""
        self._note(connection)
        if connection in self._read:
            cookie = self._read[connection][0]
            connection_traffic.cut(connection, cookie)
            self._read[connection] = cookie, _DONE  # cut once
            self._was_cut(why)

    def _note(self, connection: int) -> None:
        """Its first message may come before it was weighed for the first time."""
        known = connection in self._under_way or connection in self._proven
        if known and connection not in self._read and (found := connection_traffic.look(connection)) is not None:
            self._read[connection] = found[0], 0

    def _weigh(self) -> None:
        """Cut who has sent more than may wait."""
        unproven = []
        for connection in (*self._under_way, *self._proven):
            found = connection_traffic.look(connection)
            if found is None:
                continue
            cookie, received = found
            if self._read.get(connection, (b"", 0))[0] != cookie:
                self._read[connection] = cookie, 0
            waiting = received - self._read[connection][1]
            if waiting > self._waiting_nbytes:
                self.cut(connection, f"more than {self._waiting_nbytes} unread bytes")
            elif connection in self._under_way and waiting > HANDSHAKE_NBYTES:
                unproven.append(connection)
        # Who of them has ended its handshake nobody says; when there are more of them than did, some surely have not.
        if len(unproven) > self._succeeded + self._let_in:
            for connection in unproven:
                self.cut(connection, f"more than {HANDSHAKE_NBYTES} bytes before its handshake was complete")

    def _take(self, event: int, value: int, now_ns: int) -> bool:
        if event == zmq.Event.ACCEPTED:
            self._proven.discard(value)
            self._voices.pop(value, None)
            self._read.pop(value, None)
            self._under_way[value] = now_ns
            self._numbers[value] = next(self._next_number)
        elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
            self._succeeded += 1
            self._let_in = max(0, self._let_in - 1)
        elif event == zmq.Event.DISCONNECTED:
            self._proven.discard(value)
            self._voices.pop(value, None)
            self._numbers.pop(value, None)
            self._read.pop(value, None)
            if self._under_way.pop(value, None) is not None:
                self._ended_early()
        elif event == zmq.Event.CLOSED:
            # Closing the listener closes what it accepted, without a word.
            self._under_way.clear()
            self._proven.clear()
            self._voices.clear()
            self._numbers.clear()
            self._read.clear()
            self._succeeded = self._told = self._let_in = 0
            return True
        else:
            self._told += 1
            if event != zmq.Event.HANDSHAKE_FAILED_AUTH:  # the gate said no, and counted it
                self._failed()
        if self._under_way and self._succeeded == len(self._under_way):
            self._succeeded = 0
            for fd in list(self._under_way):
                self._prove(fd)
        if not self._under_way:
            self._let_in = 0
        return False

    def _ended_early(self) -> None:
        if self._told:
            self._told -= 1
        elif self._succeeded:
            self._succeeded -= 1
        else:
            self._failed()

    def _prove(self, fd: int) -> None:
        del self._under_way[fd]
        self._proven.add(fd)
