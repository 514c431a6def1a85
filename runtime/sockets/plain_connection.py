"""One plain connection: a thread reads it and holds it to its bounds before anything is kept; any client may send.

Blocking reads, each for a whole part if the part is large: a frame is read straight into the memory in which it is
decoded, and the interpreter runs a few times per frame, not per packet.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from asperity.runtime.clock import MS
from asperity.runtime.sockets import zmtp
from asperity.runtime.wire import Part

READ_NBYTES = 65_536
"""Read at once; a part of at least this size is read into its own memory."""
TICK_MS = 200
"""Longest blocking read, after which deadlines and the end are looked at."""
SMALL_BURST = 512
SMALL_PER_S = 100
"""Subscriptions and commands of one connection: at once, and then per second; with more it is closed."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one connection of a socket; it is cut beyond them."""

    own_type: bytes
    handshake_ms: int
    message_ms: int
    """From the first byte of a message to its last."""
    parts: int
    part_nbytes: int
    message_nbytes: int
    subscriptions: int = 0
    topic_nbytes: int = 0


class Keeper(Protocol):
    """Takes whole messages, and counts their bytes before they are read (``runtime.sockets.message_queue``)."""

    def reserve(self, peer: Peer, nbytes: int, until_ns: int) -> None:
        """Wait for room for a part. Raises CutError where there is none in time."""

    def put(self, peer: Peer, parts: list[Part]) -> None:
        """Hand on a whole message; waits while too many of this peer wait."""

    def forget(self, peer: Peer) -> None:
        """Give up the unfinished message of a peer that is gone."""


class CutError(Exception):
    """A connection goes beyond its bounds. ``kind``: as ``runtime.sockets.access.REFUSALS`` has it."""

    def __init__(self, why: str, kind: str = "BOUNDS") -> None:
        super().__init__(why)
        self.kind = kind


class Peer:
    """One connection. ``run`` is its thread's; ``offer``, ``flush`` and ``cut`` may be called by any."""

    def __init__(self, number: int, end: socket.socket, who: str, bounds: Bounds, keeper: Keeper) -> None:
        """``number``: never given twice. ``end``: as accepted. ``who``: its address, for the log."""
        self.number = number
        self.who = who
        self.proven = False
        """The handshake has ended well."""
        self.closed = False
        self.reason = ""
        """Why it was cut, as text; empty: the client closed it."""
        self.kind = ""
        """The same as ``runtime.sockets.access.REFUSALS`` has it."""
        self.topics: tuple[bytes, ...] = ()
        """What it subscribed to; replaced whole."""
        self.voices: set[str] = set()
        """Cameras whose frames came by it. The I/O thread's."""
        self.since_ns = time.monotonic_ns()
        self.heard_ns = self.since_ns
        self.pinged_ns = 0
        """When the heartbeat that is not answered yet was sent; 0: none. The I/O thread's."""
        self.waiting = 0
        self.held_nbytes = 0
        """Of the unfinished message. Both are the keeper's."""
        self.began_ns = 0
        """When the unfinished message began; 0: there is none."""
        self._bounds = bounds
        self._keeper = keeper
        self._end = end
        self._buffer = memoryview(bytearray(READ_NBYTES))
        self._start = self._stop = 0
        self._counts: dict[bytes, int] = {}
        self._small = float(SMALL_BURST)
        self._small_ns = self.since_ns
        self._lock = threading.Lock()  # over closing, and over what waits to be sent
        self._pending: deque[list[Part]] = deque()
        end.setblocking(True)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, TICK_MS * 1000))

    # ------------------------------------------------------------------ its thread

    def run(self, admit: Callable[[Peer], None], gone: Callable[[Peer], None]) -> None:
        """Read until the connection ends, for whatever reason; then close it.

        ``admit`` is called after the handshake and may raise CutError, ``gone`` at the end.
        """
        try:
            self._shake_hands()
            admit(self)
            self.proven = True
            while True:
                self._read_message()
        except CutError as error:
            self.reason, self.kind = str(error), error.kind
        except zmtp.ProtocolError as error:
            self.reason = str(error)
        except (OSError, EOFError, MemoryError):
            pass
        finally:
            with self._lock:
                self.closed = True
                if not self.proven:
                    self.kind = self.kind if self.kind == "CONNECTIONS" else "HANDSHAKE"
                elif self.reason:
                    self.kind = "BOUNDS"
                if self.reason:  # at once, and what it still sends is thrown away
                    _abort(self._end)
                self._end.close()
                self._pending.clear()
            self._keeper.forget(self)
            gone(self)

    def _shake_hands(self) -> None:
        until_ns = self.since_ns + self._bounds.handshake_ms * MS
        self.offer([zmtp.GREETING], 1)
        first = bytes(self._read(1, until_ns))
        if first != zmtp.GREETING[:1]:  # HTTP, TLS, ZMTP 1: their rest may never come
            raise zmtp.ProtocolError("not a ZMTP 3 greeting")
        zmtp.check_greeting(first + bytes(self._read(zmtp.GREETING_NBYTES - 1, until_ns)))
        self.offer([zmtp.ready(self._bounds.own_type)], 1)
        head = zmtp.header(self._read(1, until_ns)[0])
        if not head.command:
            raise zmtp.ProtocolError("a message before the handshake")
        zmtp.check_ready(self._read_command(head, until_ns), self._bounds.own_type)

    def _read_message(self) -> None:
        bounds = self._bounds
        parts: list[Part] = []
        nbytes, until_ns = 0, 0
        while True:
            head = zmtp.header(self._read(1, until_ns)[0])
            if head.command:
                self._obey(*zmtp.command(self._read_command(head, until_ns or self._deadline_ns())))
                if not parts:
                    return
                continue
            if not parts:
                until_ns = self._deadline_ns()
                self.began_ns = time.monotonic_ns()
            size = int.from_bytes(self._read(head.size_nbytes, until_ns), "big")
            nbytes += size
            if len(parts) >= bounds.parts:
                raise CutError(f"a message of more than {bounds.parts} parts")
            if size > bounds.part_nbytes or nbytes > bounds.message_nbytes:
                raise CutError(f"a part above {bounds.part_nbytes} or a message above {bounds.message_nbytes} bytes")
            self._keeper.reserve(self, size, until_ns)
            parts.append(self._read(size, until_ns))
            if not head.more:
                break
        self.began_ns = 0
        if bounds.own_type == b"PUB":
            if len(parts) != 1:
                raise CutError("a multipart message where only subscriptions are accepted")
            self._subscribe(*zmtp.subscription(bytes(parts[0])))
            self._keeper.forget(self)
        else:
            self._keeper.put(self, parts)

    def _deadline_ns(self) -> int:
        return time.monotonic_ns() + self._bounds.message_ms * MS

    def _read_command(self, head: zmtp.Header, until_ns: int) -> bytes:
        nbytes = int.from_bytes(self._read(head.size_nbytes, until_ns), "big")
        if nbytes > zmtp.COMMAND_MAX_NBYTES:
            raise CutError(f"a command above {zmtp.COMMAND_MAX_NBYTES} bytes")
        return bytes(self._read(nbytes, until_ns))

    def _obey(self, name: bytes, data: bytes) -> None:
        """A command after the handshake. One that is not known is passed over, as the protocol wants it."""
        self._count_small()
        if name == b"PING":
            if not self.offer([zmtp.pong(data)], SMALL_BURST):
                raise CutError("it does not read the replies to its heartbeats")
        elif name == b"ERROR":
            raise EOFError
        elif name in (b"SUBSCRIBE", b"CANCEL") and self._bounds.own_type == b"PUB":
            self._subscribe(name == b"SUBSCRIBE", data)

    def _subscribe(self, on: bool, topic: bytes) -> None:
        self._count_small()
        if len(topic) > self._bounds.topic_nbytes:
            raise CutError(f"a subscription above {self._bounds.topic_nbytes} bytes")
        count = self._counts.get(topic, 0) + (1 if on else -1)
        if count > 0:
            self._counts[topic] = count
        else:
            self._counts.pop(topic, None)
        if len(self._counts) > self._bounds.subscriptions:
            raise CutError(f"more than {self._bounds.subscriptions} subscriptions")
        self.topics = tuple(self._counts)

    def _count_small(self) -> None:
        now_ns = time.monotonic_ns()
        self._small = min(SMALL_BURST, self._small + SMALL_PER_S * (now_ns - self._small_ns) / 1e9) - 1
        self._small_ns = now_ns
        if self._small < 0:
            raise CutError(f"more than {SMALL_PER_S} subscriptions and heartbeats per second")

    def _read(self, nbytes: int, until_ns: int) -> memoryview:
        """The next bytes, as memory that is not written to again. ``until_ns`` 0: as long as the connection lasts."""
        if nbytes < READ_NBYTES:
            while self._stop - self._start < nbytes:
                if self._start:
                    left = self._stop - self._start
                    self._buffer[:left] = bytes(self._buffer[self._start : self._stop])
                    self._start, self._stop = 0, left
                self._stop += self._receive(self._buffer[self._stop :], 0, until_ns)
            self._start += nbytes
            return memoryview(bytes(self._buffer[self._start - nbytes : self._start]))
        whole = np.empty(nbytes, np.uint8).data  # not touched before its bytes are there
        done = min(nbytes, self._stop - self._start)
        whole[:done] = self._buffer[self._start : self._start + done]
        self._start += done
        while done < nbytes:
            done += self._receive(whole[done:], socket.MSG_WAITALL, until_ns)
        return whole.toreadonly()

    def _receive(self, into: memoryview, flags: int, until_ns: int) -> int:
        while True:
            if self.closed or self.reason:
                raise EOFError
            try:
                count = self._end.recv_into(into, 0, flags)
            except BlockingIOError:
                count = -1
            now_ns = time.monotonic_ns()
            if until_ns and now_ns > until_ns:
                raise CutError("its message or handshake takes too long")
            if count == 0:
                raise EOFError
            if count > 0:
                self.heard_ns = now_ns
                return count

    # ------------------------------------------------------------------ any thread

    def offer(self, buffers: Sequence[Part], hwm: int) -> bool:
        """Send one message, now or when there is room; False: ``hwm`` wait already, or it is gone. Never blocks."""
        with self._lock:
            if self.closed or self.reason or len(self._pending) >= hwm:
                return False
            self._pending.append(list(buffers))
            if len(self._pending) == 1:
                self._flush()
            return True

    def flush(self) -> None:
        """Send what there is room for now."""
        with self._lock:
            if not self.closed:
                self._flush()

    @property
    def pending(self) -> bool:
        """Something waits to be sent."""
        return bool(self._pending)

    def fileno(self) -> int:
        """-1 once it is closed."""
        return self._end.fileno()

    def readable(self) -> bool:
        """Bytes wait that its thread has not read."""
        with self._lock:
            if self.closed:
                return False
            poller = select.poll()
            poller.register(self._end, select.POLLIN)
            return bool(poller.poll(0))

    def cut(self, reason: str) -> None:
        """End the connection; its thread closes it. Empty ``reason``: in order."""
        with self._lock:
            if self.closed:
                return
            self.reason = self.reason or reason
            with suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        try:
            while self._pending:
                head = self._pending[0]
                sent = self._end.sendmsg(head, [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                while head and sent >= _nbytes(head[0]):
                    sent -= _nbytes(head.pop(0))
                if not head:
                    self._pending.popleft()
                elif sent:
                    head[0] = memoryview(head[0]).cast("B")[sent:]
        except BlockingIOError:
            pass
        except OSError:  # its thread notices as well
            self._pending.clear()


def _nbytes(part: Part) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


def _abort(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
