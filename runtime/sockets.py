"""The desk's sockets: bound, bounded and closed in one place. Only the desk's thread may touch them."""

from __future__ import annotations

import ipaddress
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from runtime.config import StationConfig, control_endpoint
from runtime.errors import ConfigError, StationError

_BELL = "inproc://bell"
_MONITOR = "inproc://frames-monitor"


class DeskSockets:
    """PULL frames, PUB results, PUB bulk, ROUTER control, and the bell by which other threads wake the desk.

    Raises ConfigError for a bind off loopback without ``insecure_lan``, StationError where a bind fails.
    """

    def __init__(self, config: StationConfig) -> None:
        sizes = config.sockets
        self._config = config
        self._context = zmq.Context(1)
        self._poller = zmq.Poller()
        self._cameras: set[int] = set()
        self._all: list[zmq.Socket[bytes]] = []
        try:
            self._bell = self._make(zmq.PULL, {zmq.RCVHWM: 1000})
            self._bell.bind(_BELL)
            self._frames = self._make(
                zmq.PULL,
                {
                    zmq.RCVHWM: sizes.frames_hwm,
                    zmq.MAXMSGSIZE: sizes.frames_max_nbytes,
                    zmq.HEARTBEAT_IVL: sizes.heartbeat_ms,
                    zmq.HEARTBEAT_TIMEOUT: sizes.heartbeat_timeout_ms,
                    zmq.HANDSHAKE_IVL: sizes.heartbeat_timeout_ms,  # who connects and says nothing is no camera
                },
            )
            events = zmq.Event.ACCEPTED | zmq.Event.DISCONNECTED
            self._frames.monitor(_MONITOR, events)
            self._monitor = self._make(zmq.PAIR, {})
            self._monitor.connect(_MONITOR)
            small: dict[zmq.SocketOption, int] = {zmq.MAXMSGSIZE: sizes.control_max_nbytes}
            self._results = self._make(zmq.PUB, {zmq.SNDHWM: sizes.results_hwm, **small})
            self._bulk = self._make(zmq.PUB, {zmq.SNDHWM: sizes.bulk_hwm, **small})
            self._control = self._make(
                zmq.ROUTER, {zmq.SNDHWM: sizes.control_hwm, zmq.RCVHWM: sizes.control_hwm, **small}
            )
            control = control_endpoint(config.station.name, sizes.control)
            self.endpoints = {
                "frames": self._bind(self._frames, "frames", sizes.frames),
                "results": self._bind(self._results, "results", sizes.results),
                "bulk": self._bind(self._bulk, "bulk", sizes.bulk),
                "control": self._bind(self._control, "control", control),
            }
        except BaseException:
            self.close(linger_ms=0)
            raise
        for socket in (self._bell, self._frames, self._monitor, self._control):
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
        self._follow_cameras()

    def frames(self) -> Iterator[list[memoryview]]:
        """Messages on the frames socket, parts not copied; at most ``frames_per_turn``."""
        for _ in range(self._config.sockets.frames_per_turn):
            try:
                parts = self._frames.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            yield [part.buffer for part in parts]

    def requests(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """(sender, parts) of messages on the control socket; at most ``requests_per_turn``."""
        for _ in range(self._config.sockets.requests_per_turn):
            try:
                sender, *parts = self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield [sender], parts

    def reply(self, envelope: list[bytes], body: bytes) -> None:
        """Answer a request. A client that is gone or does not read loses it and asks again."""
        with suppress(zmq.ZMQError):
            self._control.send_multipart([*envelope, body], zmq.NOBLOCK)

    def publish(self, parts: Sequence[bytes]) -> None:
        """On the results socket. Never blocks: PUB drops for a subscriber that does not read."""
        self._results.send_multipart(parts, zmq.NOBLOCK)

    def publish_bulk(self, parts: Sequence[bytes | memoryview]) -> None:
        """On the bulk socket. Never blocks."""
        self._bulk.send_multipart(parts, zmq.NOBLOCK, copy=False)

    def camera_connected(self) -> bool:
        """True while somebody is connected to the frames socket and answers its heartbeat."""
        return bool(self._cameras)

    def _follow_cameras(self) -> None:
        with suppress(zmq.Again):
            while True:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
                if event["event"] == zmq.Event.ACCEPTED:
                    self._cameras.add(event["value"])
                else:
                    self._cameras.discard(event["value"])

    def close(self, linger_ms: int) -> None:
        """Close everything; what subscribers have not taken gets ``linger_ms``."""
        for socket in self._all:
            with suppress(zmq.ZMQError):
                socket.disable_monitor()
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

    def _bind(self, socket: zmq.Socket[bytes], name: str, endpoint: str) -> str:
        path = Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
        if path is None and not self._config.sockets.insecure_lan and not _is_loopback(endpoint):
            raise ConfigError(
                f"[sockets] {name} is {endpoint}, which others on the network could reach and use; "
                "bind 127.0.0.1, or give --insecure-lan if nobody untrusted is on that network"
            )
        if path is not None:
            _private_folder(path.parent, endpoint)
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


def _is_loopback(endpoint: str) -> bool:
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _private_folder(folder: Path, endpoint: str) -> None:
    """Make the folder of an ipc socket for this user alone. Raises StationError where it is somebody else's."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise StationError(f"the folder of {endpoint} cannot be made: {error.strerror}; choose another") from error
    open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
    if found.st_uid not in (os.getuid(), 0) or open_to_all:
        raise StationError(f"{folder} belongs to somebody else or is open to all; choose another place for {endpoint}")
