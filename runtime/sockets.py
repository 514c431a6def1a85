"""The desk's sockets: bound, bounded and closed in one place. Only the desk's thread may touch them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import zmq

from runtime.access import Access
from runtime.clock import MS
from runtime.config import StationConfig, control_endpoint, hosted
from runtime.connections import Connections
from runtime.errors import ConfigError, StationError
from runtime.exposure import is_loopback
from runtime.socket_files import check_ipc

_BELL = "inproc://bell"
_ZAP = "inproc://zeromq.zap.01"
MONITOR_EVENTS = 100_000
"""Of connections that came and went; beyond it ZeroMQ's thread waits for the desk."""
CONNECTS_PER_TURN = 16
"""Connections decided on before deadlines are looked at again."""
REBIND_MS = 2000
"""Longest that a socket may take to cut its connections; a station that cannot shut a client out must end."""


class DeskSockets:
    """PULL frames, PUB results, PUB bulk, ROUTER control, and the bell by which other threads wake the desk.

    With CURVE also the ROUTER on which ZeroMQ asks who may connect (ZAP, https://rfc.zeromq.org/spec/27/).
    Raises ConfigError for a bind off loopback without CURVE or ``insecure_lan``, StationError where a bind fails,
    AccessError where the key folder cannot be believed.
    """

    def __init__(self, config: StationConfig) -> None:
        """``config``: the process's; its stations share the sockets."""
        sizes = config.sockets
        self._config = config
        self.access = Access(config.security)
        self._context = zmq.Context(1)
        self._poller = zmq.Poller()
        self._speaker = -1  # connection by which the last message on the frames socket came
        self._frames_read_ns = self._requests_read_ns = time.monotonic_ns()
        self._rebinding: dict[str, int] = {}  # socket -> when it must be bound again
        self._all: list[zmq.Socket[bytes]] = []
        try:
            # First, and so closed last: nobody may be let in unasked.
            self._zap = self._make(zmq.ROUTER, {})
            if self.access.curve:
                self._zap.bind(_ZAP)
            self._bell = self._make(zmq.PULL, {zmq.RCVHWM: 1000})
            self._bell.bind(_BELL)
            self._frames = self._make(
                zmq.PULL,
                {
                    zmq.RCVHWM: sizes.frames_hwm,
                    zmq.MAXMSGSIZE: sizes.frames_max_nbytes,
                    zmq.HEARTBEAT_IVL: sizes.heartbeat_ms,
                    zmq.HEARTBEAT_TIMEOUT: sizes.heartbeat_timeout_ms,
                },
            )
            small: dict[zmq.SocketOption, int] = {zmq.MAXMSGSIZE: sizes.control_max_nbytes}
            self._results = self._make(zmq.PUB, {zmq.SNDHWM: sizes.results_hwm, **small})
            self._bulk = self._make(zmq.PUB, {zmq.SNDHWM: sizes.bulk_hwm, **small})
            self._control = self._make(
                # ZeroMQ gives room back by halves of the mark: twice as much holds control_hwm replies for certain.
                zmq.ROUTER,
                {zmq.SNDHWM: 2 * sizes.control_hwm, zmq.RCVHWM: sizes.control_hwm, **small},
            )
            self._named = {
                "frames": self._frames, "results": self._results, "bulk": self._bulk, "control": self._control,
            }  # fmt: skip
            self._connections = {name: self._guard(name, socket) for name, socket in self._named.items()}
            # Whoever knows a station's name alone finds the control socket, whichever station of the process it is.
            controls = dict.fromkeys(control_endpoint(each.station.name, sizes.control) for each in hosted(config))
            bound = [self._bind(self._control, "control", endpoint) for endpoint in controls]
            self.endpoints = {
                "frames": self._bind(self._frames, "frames", sizes.frames),
                "results": self._bind(self._results, "results", sizes.results),
                "bulk": self._bind(self._bulk, "bulk", sizes.bulk),
                "control": bound[0],
            }
        except BaseException:
            self.close(linger_ms=0)
            raise
        for socket in (self._zap, self._bell, self._frames, self._control):
            self._poller.register(socket, zmq.POLLIN)

    def make_bell(self) -> Callable[[], None]:
        """For another thread, called on it: returns what wakes the desk. Never blocks."""
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
        for name in self.access.changed():
            self._cut(name, now_ns)
        for name in self._connections:
            self._follow(name, now_ns)
        for name, until_ns in self._rebinding.items():
            if now_ns > until_ns:
                raise StationError(f"[sockets] {name} did not close its connections within {REBIND_MS} ms")

    def frames(self) -> Iterator[list[memoryview]]:
        """Messages on the frames socket, parts not copied; at most ``frames_per_turn``."""
        for _ in range(self._config.sockets.frames_per_turn):
            looked_ns = time.monotonic_ns()
            try:
                parts = self._frames.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._frames_read_ns = looked_ns
                return
            self._speaker = int(parts[0].get(zmq.SRCFD))
            if self.access.sends_frames(self._client(parts)):
                yield [part.buffer for part in parts]

    def requests(self) -> Iterator[tuple[list[bytes], list[bytes], str]]:
        """(sender, parts, client) of messages on the control socket; at most ``requests_per_turn``."""
        for _ in range(self._config.sockets.requests_per_turn):
            looked_ns = time.monotonic_ns()
            try:
                parts = self._control.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._requests_read_ns = looked_ns
                return
            yield [parts[0].bytes], [part.bytes for part in parts[1:]], self._client(parts)

    def reply(self, envelope: list[bytes], body: bytes) -> None:
        """Answer a request. A client that is gone or does not read loses it and asks again."""
        with suppress(zmq.ZMQError):
            self._control.send_multipart([*envelope, body], zmq.NOBLOCK)

    @property
    def speaker(self) -> int | None:
        """Number of the connection of the message that ``frames`` gave last; None: it is closed by now."""
        connections = self._connections["frames"]
        if connections.number(self._speaker) is None:
            self._follow("frames", time.monotonic_ns())  # it may have come since
        return connections.number(self._speaker)

    def is_open(self, connection: int) -> bool:
        """The connection of this number to the frames socket is still there."""
        return self._connections["frames"].is_open(connection)

    @property
    def read_up_to_ns(self) -> int:
        """Every frame and request that came before this moment (monotonic) has been read."""
        return min(self._frames_read_ns, self._requests_read_ns)

    def publish(self, parts: Sequence[bytes]) -> None:
        """On the results socket. Never blocks: PUB drops for a subscriber that does not read."""
        self._results.send_multipart(parts, zmq.NOBLOCK)

    def publish_bulk(self, parts: Sequence[bytes | memoryview]) -> None:
        """On the bulk socket. Never blocks."""
        self._bulk.send_multipart(parts, zmq.NOBLOCK, copy=False)

    def camera_spoke(self, camera: str) -> None:
        """The message that ``frames`` gave last is of this camera."""
        self._connections["frames"].speaks(self._speaker, camera)

    def camera_connected(self, camera: str) -> bool:
        """True while this camera is connected to the frames socket and answers its heartbeat.

        As long as no frame of it has come, whoever is connected and has sent nothing yet may be it.
        """
        return self._connections["frames"].may_hear(camera)

    def _client(self, parts: Sequence[zmq.Frame]) -> str:
        """The key's id of whoever sent a message; empty without CURVE."""
        return str(parts[-1].get("User-Id")) if self.access.curve else ""

    def _follow(self, name: str, now_ns: int) -> None:
        """Take in what became of a socket's connections. One that was cut is bound anew once they are closed."""
        if self._connections[name].follow(now_ns) and name in self._rebinding:
            self._bind(self._named[name], name, self.endpoints[name])
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
            said = self.access.connects(name, public_key, address.decode("ascii", "replace"), connections.admitted)
            if not said.refused:
                connections.let_in()
            answer = [number, said.status.encode(), said.reason.encode(), said.user_id.encode(), b""]
            self._zap.send_multipart([sender, empty, version, *answer])

    def _cut(self, name: str, now_ns: int) -> None:
        """End every connection of a socket; who may come back does so by itself within a moment."""
        if name not in self._rebinding:
            self._rebinding[name] = now_ns + REBIND_MS * MS
            self._named[name].unbind(self.endpoints[name])

    def close(self, linger_ms: int) -> None:
        """Close everything; what subscribers have not taken gets ``linger_ms``."""
        # While a monitor is still read: ZeroMQ's thread waits for ever to tell one that is gone.
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
        for option, value in options.items():
            socket.setsockopt(option, value)
        return socket

    def _guard(self, name: str, socket: zmq.Socket[bytes]) -> Connections:
        """Ask everybody who connects who he is, where CURVE is on; and follow who is connected."""
        handshake_ms = self._config.security.handshake_ms
        socket.setsockopt(zmq.HANDSHAKE_IVL, handshake_ms)  # who connects and says nothing is nobody
        if self.access.curve:
            socket.curve_server = True
            socket.curve_secretkey = self.access.station_key.secret_key.encode()
            socket.setsockopt(zmq.ZAP_DOMAIN, name.encode())
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without an answer nobody is let in
        monitor = self._make(zmq.PAIR, {zmq.RCVHWM: MONITOR_EVENTS})
        self._poller.register(monitor, zmq.POLLIN)
        return Connections(socket, monitor, handshake_ms, lambda: self.access.failed_handshake(name))

    def _bind(self, socket: zmq.Socket[bytes], name: str, endpoint: str) -> str:
        path = check_ipc(endpoint, make_folder=True)
        asked = self._config.security.curve or self._config.sockets.insecure_lan
        if path is None and not asked and not is_loopback(endpoint):
            raise ConfigError(
                f"[sockets] {name} is {endpoint}, which others on the network could reach and use; bind 127.0.0.1, "
                "give --curve and each client a key, or --insecure-lan if nobody untrusted is on that network"
            )
        before = os.umask(0o177)  # a socket file must not be open to others even for a moment
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise StationError(
                f"[sockets] {name}: cannot bind {endpoint} ({error.strerror}); is another inspector running? "
                "Choose another endpoint"
            ) from error
        finally:
            os.umask(before)
        if path is not None:
            path.chmod(0o600)
        return str(socket.getsockopt_string(zmq.LAST_ENDPOINT))
