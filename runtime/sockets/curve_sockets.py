"""The I/O thread's sockets with CURVE: libzmq's, which authenticates each connection (ZAP, rfc.zeromq.org/spec/27).

Two workarounds for libzmq 4.3.5. Its receiving queues are left unbounded: if one is full while its connection is
reset, a heartbeat ends the whole process (docs/decisions/plain-connections.md). And as libzmq counts no bytes, each
TCP connection is checked in every turn, and cut if it has sent more than was read from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import zmq

from asperity.runtime.clock import MS
from asperity.runtime.errors import StationError
from asperity.runtime.settings.station_toml import StationConfig
from asperity.runtime.sockets.access import Access
from asperity.runtime.sockets.curve_connections import Connections
from asperity.runtime.wire import Part

_BELL = "inproc://bell"
_ZAP = "inproc://zeromq.zap.01"
MONITOR_EVENTS = 100_000
"""Of connections that came and went; beyond it ZeroMQ's thread waits for the I/O thread."""
CONNECTS_PER_TURN = 16
"""Connections decided on before deadlines are looked at again."""
REBIND_MS = 2000
"""Longest that a socket may take to cut its connections; a station that cannot shut a client out must end."""
CONTROL_WAITING_NBYTES = 4 * 2**20
"""Requests of one connection that were not read yet; beyond it is cut."""
SUBSCRIBER_NBYTES = 2**20
"""What a subscriber's connection may send while it lasts: subscriptions, heartbeats. Then it is cut, and comes back."""
SURPLUS_PER_TURN = 5000
"""Parts of a message with too many that are thrown away before deadlines are looked at again."""
PART_NBYTES = 42
"""At most what CURVE and framing add to a part on the wire."""


class CurveEnds:
    """PULL frames, PUB results, PUB bulk, ROUTER control. Only the I/O thread may call it."""

    def __init__(self, config: StationConfig, access: Access) -> None:
        """Nothing is bound yet."""
        sizes = config.sockets
        self._config = config
        self._access = access
        self._context = zmq.Context(1)
        self._poller = zmq.Poller()
        self._rebinding: dict[str, int] = {}  # socket -> when it must be bound again
        self._bound: dict[str, list[str]] = {}
        self._surplus: set[str] = set()  # sockets of which the rest of a message is being thrown away
        self._all: list[zmq.Socket[bytes]] = []
        try:
            # First, and so closed last: nobody may be let in unasked.
            self._zap = self._make(zmq.ROUTER, {})
            self._zap.bind(_ZAP)
            self._bell = self._make(zmq.PULL, {zmq.RCVHWM: 1000})
            self._bell.bind(_BELL)
            lively = {zmq.HEARTBEAT_IVL: sizes.heartbeat_ms, zmq.HEARTBEAT_TIMEOUT: sizes.heartbeat_timeout_ms}
            small: dict[zmq.SocketOption, int] = {zmq.MAXMSGSIZE: sizes.control_max_nbytes}
            self._named = {
                "frames": self._make(zmq.PULL, {zmq.MAXMSGSIZE: sizes.frames_max_nbytes, **lively}),
                "results": self._make(zmq.PUB, {zmq.SNDHWM: sizes.results_hwm, **small}),
                "bulk": self._make(zmq.PUB, {zmq.SNDHWM: sizes.bulk_hwm, **small}),
                # ZeroMQ gives room back by halves of the mark: twice as much holds control_hwm replies for certain.
                "control": self._make(zmq.ROUTER, {zmq.SNDHWM: 2 * sizes.control_hwm, **small}),
            }
            limits = {"frames": sizes.frames_waiting_nbytes, "control": CONTROL_WAITING_NBYTES}
            self._connections = {
                name: self._guard(name, socket, limits.get(name, SUBSCRIBER_NBYTES))
                for name, socket in self._named.items()
            }
        except BaseException:
            self.close(linger_ms=0)
            raise
        for socket in (self._zap, self._bell, self._named["frames"], self._named["control"]):
            self._poller.register(socket, zmq.POLLIN)

    def bind(self, name: str, endpoint: str) -> str:
        """Bind a socket; its endpoint as it came to be. Raises ZMQError."""
        socket = self._named[name]
        socket.bind(endpoint)
        bound = str(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        if bound not in self._bound.setdefault(name, []):
            self._bound[name].append(bound)
        return bound

    def open(self) -> None:
        """Clients are admitted as soon as the I/O thread is asked for them."""

    def make_bell(self) -> Callable[[], None]:
        """For another thread, called on it: returns what wakes the I/O thread. Never blocks."""
        socket = self._context.socket(zmq.PUSH)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(_BELL)

        def ring() -> None:
            with suppress(zmq.ZMQError):  # a full bell rings already; without a desk nobody hears
                socket.send(b"", zmq.NOBLOCK)

        return ring

    def wait(self, timeout_ms: float) -> None:
        """Sleep until something came in, at most ``timeout_ms``."""
        self._poller.poll(max(0, math.ceil(timeout_ms)))
        with suppress(zmq.Again):
            while True:
                self._bell.recv(zmq.NOBLOCK)
        now_ns = time.monotonic_ns()
        self._let_in(now_ns)
        for name in self._access.changed():
            self._cut(name, now_ns)
        for name in self._connections:
            self._follow(name, now_ns)
        for name, until_ns in self._rebinding.items():
            if now_ns > until_ns:
                raise StationError(f"[sockets] {name} did not close its connections within {REBIND_MS} ms")

    def frames(self, count: int) -> list[tuple[int, str, list[Part]]]:
        """At most ``count`` messages: (connection, client, parts). Parts are not copied."""
        taken = self._take("frames", count)
        return [(handle, client, [part.buffer for part in parts]) for handle, client, parts in taken]

    def requests(self, count: int) -> list[tuple[bytes, str, list[bytes]]]:
        """At most ``count`` messages: (sender, client, parts)."""
        taken = self._take("control", count)
        return [(parts[0].bytes, client, [part.bytes for part in parts[1:]]) for _, client, parts in taken]

    def _take(self, name: str, count: int) -> list[tuple[int, str, list[zmq.Frame]]]:
        taken = []
        with suppress(zmq.Again):
            for _ in range(count):
                parts = self._receive(name)
                if parts is None:
                    break
                try:
                    handle, client = int(parts[-1].get(zmq.SRCFD)), str(parts[-1].get("User-Id"))
                except (zmq.ZMQError, ValueError, TypeError):
                    continue  # of a peer of which nothing is known: no client of ours
                self._connections[name].read(handle, sum(len(part) + PART_NBYTES for part in parts))
                taken.append((handle, client, parts))
        return taken

    def _receive(self, name: str) -> list[zmq.Frame] | None:
        """A message, its parts counted as they come; None: one of too many parts, whose sender is cut.

        Raises zmq.Again.
        """
        socket, parts_max = self._named[name], self._config.sockets.parts_max
        if name not in self._surplus:
            parts = [socket.recv(zmq.NOBLOCK, copy=False)]
            while parts[-1].more and len(parts) < parts_max:
                parts.append(socket.recv(zmq.NOBLOCK, copy=False))
            if not parts[-1].more:
                return parts
            self._surplus.add(name)
            with suppress(zmq.ZMQError, ValueError, TypeError):
                self._connections[name].cut(int(parts[-1].get(zmq.SRCFD)), f"a message of more than {parts_max} parts")
        for _ in range(SURPLUS_PER_TURN):
            socket.recv(zmq.NOBLOCK)
            if not socket.getsockopt(zmq.RCVMORE):
                self._surplus.discard(name)
                break
        return None

    def reply(self, envelope: list[bytes], body: bytes) -> None:
        """Answer a request. A client that is gone or does not read loses it."""
        with suppress(zmq.ZMQError):
            self._named["control"].send_multipart([*envelope, body], zmq.NOBLOCK)

    def publish(self, name: str, parts: Sequence[Part]) -> None:
        """Send to the subscribers; one with too much waiting loses it. Never blocks."""
        self._named[name].send_multipart(parts, zmq.NOBLOCK, copy=name == "results")

    def speaks(self, connection: int, camera: str) -> None:
        """A frame of this camera came by this connection (a file descriptor)."""
        self._connections["frames"].speaks(connection, camera)

    def number(self, connection: int) -> int | None:
        """A unique number for the connection of this descriptor to the frames socket; None: it is closed."""
        connections = self._connections["frames"]
        if connections.number(connection) is None:
            self._follow("frames", time.monotonic_ns())  # it may have come since
        return connections.number(connection)

    def is_open(self, number: int) -> bool:
        """The connection of this number to the frames socket is still there."""
        return self._connections["frames"].is_open(number)

    def may_hear(self, camera: str) -> bool:
        """A connection is there by which this camera's frames came, or by which nobody's came yet."""
        return self._connections["frames"].may_hear(camera)

    def admitted(self, name: str) -> int:
        """Connections of a socket whose handshake has ended."""
        return self._connections[name].admitted

    def _follow(self, name: str, now_ns: int) -> None:
        """Process the events of a socket's connections. One that was cut is bound again once they are closed."""
        if self._connections[name].follow(now_ns) and name in self._rebinding:
            try:
                for endpoint in self._bound[name]:
                    self.bind(name, endpoint)
            except zmq.ZMQError as error:
                raise StationError(f"[sockets] {name}: cannot bind {endpoint} again ({error.strerror})") from error
            del self._rebinding[name]

    def _let_in(self, now_ns: int) -> None:
        """Answer ZeroMQ, which asks for each connection after its handshake."""
        for _ in range(CONNECTS_PER_TURN):
            try:
                sender, empty, version, number, domain, address, _, _, *proof = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            name = domain.decode("ascii", "replace")
            # Only CURVE with a key of 32 bytes gets here; anything else is no proof and is nobody's key.
            public_key = proof[0] if len(proof) == 1 else b""
            # The monitor told of this connection before ZeroMQ asked: it and all that came before it are counted.
            self._follow(name, now_ns)
            connections = self._connections[name]
            said = self._access.connects(name, public_key, address.decode("ascii", "replace"), connections.admitted)
            if not said.refused:
                connections.let_in()
            answer = [number, said.status.encode(), said.reason.encode(), said.user_id.encode(), b""]
            self._zap.send_multipart([sender, empty, version, *answer])

    def _cut(self, name: str, now_ns: int) -> None:
        """End every connection of a socket; clients that may reconnect do so automatically within a moment."""
        if name not in self._rebinding:
            self._rebinding[name] = now_ns + REBIND_MS * MS
            for endpoint in self._bound[name]:
                self._named[name].unbind(endpoint)

    def close(self, linger_ms: int) -> None:
        """Close everything; what subscribers have not taken gets ``linger_ms``."""
        # While a monitor is still read: ZeroMQ's thread waits forever to notify one that is gone.
        for socket in self._all:
            with suppress(zmq.ZMQError):
                socket.disable_monitor()
        for socket in reversed(self._all):
            socket.close(linger_ms)
        # Bells of other threads may be open still: the context is destroyed, not awaited.
        self._context.destroy(linger_ms)

    def _make(self, kind: int, options: Mapping[zmq.SocketOption, int]) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        self._all.append(socket)
        socket.setsockopt(zmq.LINGER, 0)
        # Never full: one that is, while its connection is reset, ends the process in libzmq at the next heartbeat.
        socket.setsockopt(zmq.RCVHWM, 0)
        for option, value in options.items():
            socket.setsockopt(option, value)
        return socket

    def _guard(self, name: str, socket: zmq.Socket[bytes], waiting_nbytes: int) -> Connections:
        """Authenticate every client that connects, and follow the connections."""
        handshake_ms = self._config.security.handshake_ms
        socket.setsockopt(zmq.HANDSHAKE_IVL, handshake_ms)  # who connects and says nothing is nobody
        socket.curve_server = True
        socket.curve_secretkey = self._access.station_key.secret_key.encode()
        socket.setsockopt(zmq.ZAP_DOMAIN, name.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an answer nobody is let in
        monitor = self._make(zmq.PAIR, {zmq.RCVHWM: MONITOR_EVENTS})
        self._poller.register(monitor, zmq.POLLIN)
        return Connections(
            socket, monitor, handshake_ms, waiting_nbytes,
            lambda: self._access.failed_handshake(name),
            lambda why: self._access.cut("BOUNDS", name, "", why),
        )  # fmt: skip
