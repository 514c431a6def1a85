"""The I/O thread's sockets without CURVE: ZMTP spoken here, so that every byte has its bound before it is read.

libzmq assembles a whole message before we see it, and aborts the process if a connection is reset at a moment
that it did not expect; docs/decisions/plain-connections.md says what was seen and tried. Clients with any ZeroMQ
library connect as usual.
"""

from __future__ import annotations

import itertools
import math
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from asperity.runtime.clock import MS
from asperity.runtime.settings.listening import place_of
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets import zmtp
from asperity.runtime.sockets.access import Access
from asperity.runtime.sockets.message_queue import Waiting
from asperity.runtime.sockets.plain_connection import Bounds, CutError, Peer
from asperity.runtime.wire import Part

BACKLOG = 100
NEWS_MAX = 64
"""Cuts waiting to be counted by the I/O thread; of more at once only so many are."""
PAUSE_S = 0.05
"""After a connection could not be accepted: no handle, no thread, no memory is left."""
PACE_S = 0.002
"""Between two connections that are accepted: endless connection attempts take no time from the frames."""
CONTROL_WAITING_NBYTES = 16 * 2**20
"""Requests of all connections that wait or are being read."""


class PlainEnds:
    """PULL frames, PUB results, PUB bulk, ROUTER control. Only the I/O thread may call it, but for bells."""

    def __init__(self, config: StationConfig, access: Access) -> None:
        """Nothing is bound yet."""
        sizes = config.sockets
        self._config = config
        self._access = access
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._bell_lock = threading.Lock()  # its number may be another file's as soon as it is closed
        self._ending = False
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # over the connections; each tuple is replaced whole
        self._peers: dict[str, tuple[Peer, ...]] = dict.fromkeys(("frames", "results", "bulk", "control"), ())
        self._news: deque[tuple[str, str, str, str]] = deque(maxlen=NEWS_MAX)
        self._listeners: dict[int, tuple[str, socket.socket]] = {}
        self._files: list[Path] = []
        self._beat_ns = 0
        self._frames = Waiting(sizes.frames_hwm, sizes.frames_waiting_nbytes, self._ring)
        self._requests = Waiting(sizes.control_hwm, CONTROL_WAITING_NBYTES, self._ring)
        self._topics = Waiting(1, CONTROL_WAITING_NBYTES, self._ring)
        self._hwm = {"results": sizes.results_hwm, "bulk": sizes.bulk_hwm, "control": sizes.control_hwm}
        common = (config.security.handshake_ms, sizes.message_ms, sizes.parts_max)
        request = (sizes.control_max_nbytes, 2 * sizes.control_max_nbytes)
        topic = sizes.topic_max_nbytes + 1
        subscriber = Bounds(b"PUB", *common, topic, topic, sizes.subscriptions_max, sizes.topic_max_nbytes)
        self._bounds = {
            "frames": Bounds(b"PULL", *common, sizes.frames_max_nbytes, sizes.frames_message_nbytes),
            "results": subscriber,
            "bulk": subscriber,
            "control": Bounds(b"ROUTER", *common, *request),
        }
        self._door = threading.Thread(target=self._accept, name="door", daemon=True)

    def bind(self, name: str, endpoint: str) -> str:
        """Listen; the endpoint as it came to be. Raises OSError."""
        listener, bound = _listen(endpoint)
        self._listeners[listener.fileno()] = name, listener
        if endpoint.startswith("ipc://"):
            self._files.append(Path(endpoint.removeprefix("ipc://")))
        return bound

    def open(self) -> None:
        """Admit clients."""
        self._door.start()

    def make_bell(self) -> Callable[[], None]:
        """A function that wakes the I/O thread; for any thread. Never blocks."""
        return self._ring

    def _ring(self) -> None:
        with self._bell_lock, suppress(BlockingIOError):  # one that rings already
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def wait(self, timeout_ms: float) -> None:
        """Sleep until something came in, at most ``timeout_ms``."""
        poller = select.poll()
        poller.register(self._bell, select.POLLIN)
        self._poll(poller, max(0, math.ceil(timeout_ms)))
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        with suppress(IndexError):
            while True:
                self._access.cut(*self._news.popleft())
        self._feel_pulse(time.monotonic_ns())

    def _poll(self, poller: select.poll, timeout_ms: int) -> None:
        """Wait, and send what there is room for."""
        behind = {peer.fileno(): peer for peers in self._peers.values() for peer in peers if peer.pending}
        behind.pop(-1, None)
        for handle in behind:
            poller.register(handle, select.POLLOUT)
        for handle, _ in poller.poll(timeout_ms):
            if handle in behind:
                behind[handle].flush()

    def frames(self, count: int) -> list[tuple[int, str, list[Part]]]:
        """At most ``count`` messages: (connection, client, parts). Parts are not copied."""
        return [(peer.number, "", parts) for peer, parts in _taken(self._frames, count)]

    def requests(self, count: int) -> list[tuple[bytes, str, list[bytes]]]:
        """At most ``count`` messages: (sender, client, parts)."""
        taken = _taken(self._requests, count)
        return [(struct.pack(">Q", peer.number), "", [bytes(part) for part in parts]) for peer, parts in taken]

    def reply(self, envelope: list[bytes], body: bytes) -> None:
        """Answer a request. A client that is gone or does not read loses it."""
        (number,) = struct.unpack(">Q", envelope[0])
        for peer in self._peers["control"]:
            if peer.number == number:
                peer.offer(zmtp.encode([*envelope[1:], body]), self._hwm["control"])

    def publish(self, name: str, parts: Sequence[Part]) -> None:
        """Send to the subscribers; one with too much waiting loses it. Never blocks."""
        topic = bytes(parts[0])
        for peer in self._peers[name]:
            if topic.startswith(peer.topics):
                peer.offer(zmtp.encode(parts), self._hwm[name])

    def speaks(self, connection: int, camera: str) -> None:
        """A frame of this camera came by this connection."""
        for peer in self._peers["frames"]:
            if peer.number == connection:
                peer.voices.add(camera)

    def number(self, connection: int) -> int | None:
        """The number of a connection to the frames socket; None: it is closed."""
        return connection if self.is_open(connection) else None

    def is_open(self, number: int) -> bool:
        """The connection of this number to the frames socket is still there, also as its other end has it."""
        for peer in self._peers["frames"]:
            if peer.number == number:
                return not peer.reason and not _hung_up(peer.fileno())
        return False

    def may_hear(self, camera: str) -> bool:
        """A connection is there by which this camera's frames came, or by which nobody's came yet."""
        proven = [peer.voices for peer in self._peers["frames"] if peer.proven and not peer.reason]
        return any(camera in voices or not voices for voices in proven)

    def admitted(self, name: str) -> int:
        """Connections of a socket whose handshake has ended."""
        return sum(peer.proven and not peer.reason for peer in self._peers[name])

    def close(self, linger_ms: int) -> None:
        """Close everything; what subscribers have not taken gets ``linger_ms``."""
        self._ending = True
        if self._door.is_alive():
            self._door.join()
        for _, listener in self._listeners.values():
            listener.close()
        for path in self._files:
            path.unlink(missing_ok=True)
        until_ns = time.monotonic_ns() + linger_ms * MS
        while any(peer.pending for peers in self._peers.values() for peer in peers):
            left_ms = (until_ns - time.monotonic_ns()) // MS
            if left_ms <= 0:
                break
            self._poll(select.poll(), min(left_ms, 50))
        self._frames.end()
        self._requests.end()
        for peer in [peer for peers in self._peers.values() for peer in peers]:
            peer.cut("")
        with self._bell_lock:
            os.close(self._bell)
            self._bell = -1

    # ------------------------------------------------------------------ who is there

    def _accept(self) -> None:
        """The door's thread: whatever happens to a connection is that connection's."""
        poller = select.poll()
        for handle in self._listeners:
            poller.register(handle, select.POLLIN)
        while not self._ending:
            for handle, _ in poller.poll(round(PAUSE_S * 1000)):
                name, listener = self._listeners[handle]
                try:
                    end, address = listener.accept()
                    self._let_in(name, end, address[0] if isinstance(address, tuple) else "this machine")
                    time.sleep(PACE_S)
                except (OSError, RuntimeError):
                    time.sleep(PAUSE_S)

    def _let_in(self, name: str, end: socket.socket, who: str) -> None:
        try:
            self._make_lively(name, end)
            keeper = {"frames": self._frames, "control": self._requests}.get(name, self._topics)
            peer = Peer(next(self._numbers), end, who, self._bounds[name], keeper)
        except OSError:  # gone already
            end.close()
            return
        with self._lock:
            self._peers[name] = (*self._peers[name], peer)
            young = [each for each in self._peers[name] if not each.proven and not each.reason]
        if len(young) > self._config.security.connections:
            young[0].cut("too many handshakes at once")
        thread = threading.Thread(
            target=peer.run, args=(lambda peer: self._admit(name), lambda peer: self._gone(name, peer)),
            name=f"{name}-{peer.number}", daemon=True,
        )  # fmt: skip
        try:
            thread.start()
        except RuntimeError:  # no thread is left
            self._gone(name, peer)
            end.close()
            raise

    def _admit(self, name: str) -> None:
        if self.admitted(name) >= self._config.security.connections:
            raise CutError(f"more than {self._config.security.connections} connections", "CONNECTIONS")
        self._ring()

    def _gone(self, name: str, peer: Peer) -> None:
        with self._lock:
            self._peers[name] = tuple(each for each in self._peers[name] if each is not peer)
        if peer.kind and not self._ending:
            self._news.append((peer.kind, name, peer.who, peer.reason))
        self._ring()

    def _make_lively(self, name: str, end: socket.socket) -> None:
        """Let TCP find out about a peer whose cable is pulled."""
        if end.family == socket.AF_UNIX:
            return
        sizes = self._config.sockets
        second = max(1, round(sizes.heartbeat_ms / 1000))
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, second)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, second)
        end.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_KEEPCNT, max(1, round(sizes.heartbeat_timeout_ms / 1000 / second))
        )

    def _feel_pulse(self, now_ns: int) -> None:
        """Send each camera's connection a heartbeat; cut those that did not answer the last one in time."""
        sizes = self._config.sockets
        if now_ns < self._beat_ns:
            return
        self._beat_ns = now_ns + sizes.heartbeat_ms * MS // 4
        for peer in self._peers["frames"]:
            if not peer.proven:
                continue
            if peer.pinged_ns and peer.heard_ns > peer.pinged_ns:
                peer.pinged_ns = 0
            if not peer.pinged_ns and now_ns - peer.heard_ns > sizes.heartbeat_ms * MS:
                peer.pinged_ns = now_ns
                peer.offer([zmtp.PING], 1)
            # Bytes that wait are a sign of life that was not looked at yet: this process may have stood still.
            elif peer.pinged_ns and now_ns - peer.pinged_ns > sizes.heartbeat_timeout_ms * MS and not peer.readable():
                peer.cut("no reply to the heartbeat")


def _hung_up(handle: int) -> bool:
    """The other end is closed, though its last bytes may wait unread."""
    if handle < 0:
        return True
    poller = select.poll()
    poller.register(handle, select.POLLRDHUP)
    return bool(poller.poll(0))


def _taken(waiting: Waiting, count: int) -> list[tuple[Peer, list[Part]]]:
    taken: list[tuple[Peer, list[Part]]] = []
    while len(taken) < count and (one := waiting.take()) is not None:
        taken.append(one)
    return taken


def _listen(endpoint: str) -> tuple[socket.socket, str]:
    """A listening socket and its endpoint. Raises OSError, UnicodeError on a name that cannot be one."""
    place = place_of(endpoint)
    if place.path is not None:
        if place.path.is_socket():  # of a process that was killed; the journal's lock keeps out a second inspector
            place.path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address: str | tuple[str, int] = str(place.path)
    else:
        host = "0.0.0.0" if place.host == "*" else place.host
        family, _, _, _, found = socket.getaddrinfo(
            host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = str(found[0]), int(found[1])
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    if place.path is not None:
        return listener, endpoint
    host, port_number = listener.getsockname()[:2]
    return listener, f"tcp://[{host}]:{port_number}" if ":" in host else f"tcp://{host}:{port_number}"
